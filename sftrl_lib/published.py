"""The numbers that the paper prints, as plain data in percent. They are drawn beside ours, never in place of them.

Source: arXiv 2501.17161 v2 (ICML 2025). `printed`: read as text in the figure or caption. `digitised`:
measured in the published image, about +-0.5 points; the paper's lines are smoothed.
The paper prints no N, no seeds and no intervals; its released scripts evaluate 234 (GP), 48 (V-IRL) or 18 episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "arXiv 2501.17161v2"

# Hands or routes behind a rate, by the released evaluation scripts; under a new look V-IRL-VL has 18 routes.
EPISODES = {"GP-L": 234, "V-IRL-L": 48, "GP-VL": 234, "V-IRL-VL": 48}
VISUAL_EPISODES = {"GP-VL": 234, "V-IRL-VL": 18}


@dataclass(frozen=True)
class Variant:
    """One of the paper's four task variants: its names in the tables, and the metric that its claims are about."""

    task: str
    modality: str
    metric: str  # of Figs. 5 and 6


VARIANTS = {  # the claims are about these, even if the tables hold other tasks
    "GP-L": Variant("general_points", "text", "success"),
    "V-IRL-L": Variant("navigation", "text", "step_accuracy"),
    "GP-VL": Variant("general_points", "image", "success"),
    "V-IRL-VL": Variant("navigation", "image", "step_accuracy"),
}

# The task variant of each figure that shows a single one. Fig. 4 shows either V-IRL-L or V-IRL-VL.
FIGURE_OF = {1: "V-IRL-L", 2: "GP-L", 8: "GP-VL", 9: "GP-L", 10: "GP-L", 15: "GP-L", 16: "GP-VL", 17: "GP-VL",
             18: "V-IRL-VL", 19: "V-IRL-VL", 20: "GP-L", 21: "V-IRL-L", "sensitivity": "GP-L"}  # fmt: skip

# Fig. 1: V-IRL-L, whole-route success over training compute (1e9 GFLOPs, percent). Digitised.
FIG01 = {
    "provenance": "digitised",
    "x_unit": "1e9 GFLOPs",
    "rl": {
        "rule_ood": [
            (0.07, 49),
            (0.41, 61),
            (0.75, 65),
            (1.09, 66),
            (1.43, 71),
            (1.77, 72.5),
            (2.12, 77),
            (2.48, 87),
        ],
        "id": [
            (0.10, 56),
            (0.42, 60),
            (0.75, 68.5),
            (1.09, 78),
            (1.43, 86),
            (1.77, 87.5),
            (2.12, 87.5),
            (2.48, 89),
        ],
    },
    "sft": {
        "rule_ood": [
            (0.07, 51),
            (0.09, 56),
            (0.10, 43),
            (0.28, 25),
            (0.56, 10),
            (1.12, 0),
            (1.69, 0),
            (2.48, 3),
        ],
        "id": [(0.07, 59), (0.10, 84), (0.28, 89), (0.75, 94), (1.12, 98), (1.69, 100), (2.48, 95)],
    },
}

# Fig. 2: the cartoon of sequential revision. Its rewards are neither those of the text nor those of the code.
FIG02 = {
    "provenance": "printed",
    "cards": ["5", "4", "10", "7"],
    "attempts": [
        {"formula": "10+7+4+5", "verdict": "wrong value", "reward": -1},
        {"formula": "(7-4)*10-6", "verdict": "a number that is on no card", "reward": -5},
        {"formula": "(7-5)*10+4", "verdict": "correct", "reward": 10},
    ],
    "rewards_in_the_text": {"correct": 5, "wrong_value": -1, "wrong_numbers": -2, "illegal": -3, "misread": -1.5},
}

# Fig. 3: how the prompt is updated. Printed.
FIG03 = {
    "provenance": "printed",
    "update": "v_in_t = concat(v_in_0, [v_out_k, v_ver_k] for k = 0 .. t-1)",
}

# Fig. 4: the route it shows. Printed.
FIG04 = {
    "provenance": "printed",
    "landmarks": ["The Dutch", "Lola Taverna"],
    "destination": "Shuka",
}

# Fig. 5: only the axes are recoverable, not the curves. Ticks printed.
FIG05 = {
    "provenance": "printed axis ticks; curve values not recoverable",
    "GP-L": {
        "id_ticks": [28, 52, 76, 100],
        "rule_ood_ticks": [1, 6, 12, 17],
        "x_ticks_gflops": [0, 0.5e10, 1.0e10],
    },
    "V-IRL-L": {
        "id_ticks": [70, 80, 90, 100],
        "rule_ood_ticks": [0, 33, 65, 98],
        "x_ticks_gflops": [0, 2e9, 4e9],
    },
    "GP-VL": {
        "id_ticks": [14, 28, 41, 55],
        "rule_ood_ticks": [3, 8, 14, 19],
        "x_ticks_gflops": [2e10, 4e10, 6e10],
    },
    "V-IRL-VL": {
        "id_ticks": [69, 77, 85, 93],
        "rule_ood_ticks": [0, 19, 37, 56],
        "x_ticks_gflops": [2e10, 4e10],
    },
}

# Fig. 6: final rule-OOD rates at equal compute (GP: episode success; V-IRL: per-step accuracy). Printed.
FIG06 = {
    "provenance": "printed",
    "GP-L": {"init": 11.5, "sft": 3.4, "rl": 15.0},
    "V-IRL-L": {"init": 80.8, "sft": 1.3, "rl": 91.8},
    "GP-VL": {"init": 11.2, "sft": 5.6, "rl": 14.2},
    "V-IRL-VL": {"init": 35.7, "sft": 2.5, "rl": 45.0},
}

# Fig. 7: final visual-OOD success, rules unchanged, and the best earlier V-IRL mini-benchmark result.
FIG07 = {
    "provenance": "printed",
    "GP-VL": {"init": 23.6, "sft": 13.7, "rl": 41.2},
    "V-IRL-VL": {"init": 16.7, "sft": 11.1, "rl": 77.8, "previous_best": 44.0},
}

# Fig. 8: GP-VL, (success, recognition) of checkpoints as compute grows. Digitised, order from shading.
FIG08 = {
    "provenance": "digitised",
    "rule": {
        "rule_ood": {
            "init": [(11.1, 74.4)],
            "rl": [(11.1, 91), (14.6, 95.5), (17.5, 95.9)],
            "sft": [(13.2, 71.4), (12.0, 55.1), (10.3, 50.3), (9.4, 32.7)],
        },
        "id": {
            "init": [(24.2, 84.7)],
            "rl": [(37.6, 97.0), (46.0, 97.6), (52.4, 97.9)],
            "sft": [(21.0, 78.2), (21.1, 72.9), (19.7, 67.9), (13.8, 60.0)],
        },
    },
    "visual": {
        "visual_ood": {
            "init": [(23.6, 78)],
            "rl": [(32.6, 95.5), (40.7, 95.0), (46.3, 97.6)],
            "sft": [(26.5, 76.2), (15.4, 71.2), (16.3, 67.9), (12.0, 60.1)],
        },
        "id": {
            "init": [(24.2, 84.7)],
            "rl": [(37.6, 97.0), (52.4, 97.9), (61.5, 98.8)],
            "sft": [(21.0, 78.2), (21.0, 72.9), (19.7, 67.9), (13.9, 60.0)],
        },
    },
}

# Fig. 9: RL on GP-L from the model without SFT. Printed axis and legend: no curve rises above the axis.
FIG09 = {
    "provenance": "printed axis and legend",
    "highest_success": 0.4,
    "learning_rates": [5e-7, 1e-6, 2e-6],
}

# Fig. 10: GP-L, RL, OOD growth over Init in points at equal compute, by verification iterations: printed.
FIG10 = {
    "provenance": "printed; ID growth only as the axis range 4-12",
    "ood_growth": {1: 0.48, 3: 2.15, 5: 2.99, 10: 5.99},
    "id_growth_axis": [4, 12],
}

# Figs. 11-14: a prompt, a response and the verifier's message, one example per task variant. Printed.
EXAMPLES = {
    "provenance": "printed examples",
    "figures": {"GP-VL": 11, "GP-L": 12, "V-IRL-VL": 13, "V-IRL-L": 14},
    "slips": "Fig. 12 (text) still speaks of an image and repeats the old rule; Fig. 11 reads K as 13 by the 10-rule.",
}

# Fig. 15: SFT on sub-optimal trajectories, GP-L: values not recoverable; conclusion printed.
FIG15 = {
    "provenance": "printed conclusion; curve values not recoverable",
    "conclusion": "ID success rises, OOD success still degrades",
}

# Figs. 16-19: axis ranges, learning rates and statements. Printed.
FIG16 = {
    "provenance": "printed axis and legend",
    "highest_id_success": 30,
    "learning_rates": {
        "all components": [1e-7, 5e-7, 1e-6, 1e-5, 1e-4],
        "vision encoder frozen": [1e-7, 1e-6],
        "encoder and adapter frozen": [1e-7, 5e-7, 1e-6],
    },
}
FIG17 = {"provenance": "printed axis and legend", "id_success_axis": [20, 50], "learning_rates": [1e-6, 2e-6]}
FIG18 = {"provenance": "printed axis", "id_success_axis": [10, 60], "rule_ood_success_axis": [0, 1.5]}
FIG19 = {
    "provenance": "printed axis and legend",
    "highest_step_accuracy": 1.5,
    "learning_rates": [1e-7, 2e-7],
}

# Fig. 20: what the untuned model answered. Printed.
FIG20 = {
    "provenance": "printed transcript",
    "summary": "The model answers with a brute-force Python program, runs out of context and gives no JSON.",
    "cards": ["2", "J", "3", "K"],
}

# Fig. 21: what over-trained SFT answers in V-IRL when only relative turns are offered. Printed.
FIG21 = {
    "provenance": "printed transcript",
    "summary": "The prompt offers relative turns only; the model answers with an absolute heading.",
    "direction": "northwest",
}
