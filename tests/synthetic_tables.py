"""Tables and transcripts that look like a run's, made from formulas for tests; never written to results/."""

import numpy as np
import pandas as pd

from sftrl_lib.analysis.tables import COLUMNS, validate

TASKS = {
    "GP-L": ("general_points", "text", "success"),
    "V-IRL-L": ("navigation", "text", "step_accuracy"),
    "GP-VL": ("general_points", "image", "success"),
    "V-IRL-VL": ("navigation", "image", "step_accuracy"),
}
# (start, end) rate of every branch on every split and metric
RATES = {
    ("sft", "id", "success"): (0.10, 0.55),
    ("sft", "heldout", "success"): (0.09, 0.40),
    ("sft", "rule_ood", "success"): (0.05, 0.003),
    ("rl", "id", "success"): (0.10, 0.42),
    ("rl", "heldout", "success"): (0.09, 0.38),
    ("rl", "rule_ood", "success"): (0.05, 0.19),
    ("sft", "id", "recognition"): (0.93, 0.99),
    ("sft", "rule_ood", "recognition"): (0.60, 0.02),
    ("rl", "id", "recognition"): (0.93, 0.99),
    ("rl", "rule_ood", "recognition"): (0.60, 0.85),
}
INIT_FLOPS, END_FLOPS = 3e12, 6.2e13


def main_table(variants=("GP-L",), seeds=(0, 1, 2), steps=8, noise=0.01, curve_n=300, end_n=1000):
    """The main experiment of some task variants: Init, and SFT and RL from it with `steps` checkpoints."""
    random = np.random.default_rng(sum(map(ord, "synthetic tables")))
    rows = []

    def measure(rate, n):
        return float(np.round(np.clip(rate + noise * random.standard_normal(), 0, 1) * n) / n)

    for variant in variants:
        task, modality, metric_name = TASKS[variant]
        for (method, split, metric), (start, end) in RATES.items():
            metric = metric_name if metric == "success" else metric
            if metric == "recognition" and task == "navigation":
                continue
            for seed in seeds:
                if method == "rl":
                    where = (task, modality, "init", "main", "sampled", seed, 0, INIT_FLOPS, split, metric)
                    rows.append((*where, measure(start, end_n), end_n))
                for step in range(1, steps + 1):
                    share = step / steps
                    flops = INIT_FLOPS + share * (END_FLOPS - INIT_FLOPS)
                    n = end_n if step == steps else curve_n
                    rate = end + (start - end) * np.exp(-4 * share)
                    where = (task, modality, method, "main", "sampled", seed, 10 * step, flops, split, metric)
                    rows.append((*where, measure(rate, n), n))
    return pd.DataFrame(rows, columns=COLUMNS)


def everything(seeds=(0, 1, 2)):
    """All that GP-L's figures and claims read."""
    main = main_table(seeds=seeds)
    random = np.random.default_rng(sum(map(ord, "ablations")))
    rows = []

    def add(method, experiment, setting, seed, step, share, split, rate, n=500, metric="success"):
        flops = INIT_FLOPS + share * (END_FLOPS - INIT_FLOPS)
        value = float(np.round(np.clip(rate + 0.008 * random.standard_normal(), 0, 1) * n) / n)
        where = ("general_points", "text", method, experiment, setting, seed, step, flops, split, metric)
        rows.append((*where, value, n))

    levels = {"init": (0.10, 0.05), "sft": (0.5, 0.0), "rl": (0.42, 0.18)}
    for seed in seeds:
        for method, (in_distribution, out) in levels.items():
            step, share = (0, 0) if method == "init" else (80, 1)
            rates = {"id": in_distribution, "heldout": 0.9 * in_distribution, "rule_ood": out}
            for split, rate in rates.items():
                add(method, "main", "greedy", seed, step, share, split, 0.9 * rate, 1000)
                add(method, "main", "single", seed, step, share, split, 0.5 * rate, 1000)
                for temperature in (0.0, 0.5, 1.0):
                    for attempts in (1, 3, 5, 10):
                        setting = f"temperature={temperature:g};attempts={attempts}"
                        factor = 0.4 + 0.12 * attempts**0.7
                        factor *= 1.2 - 0.4 * temperature if method == "init" else 1
                        add(method, "sensitivity", setting, seed, step, share, split, factor * rate, 500)
        for attempts, gain in ((1, 0.01), (3, 0.06), (5, 0.13), (10, 0.17)):
            for step in (20, 40, 60, 80):
                share = step / 80
                where = ("rl", "attempts", f"attempts={attempts}", seed, step, share)
                add(*where, "rule_ood", 0.05 + gain * share**0.5)
                add(*where, "id", 0.10 + 2.2 * gain * share**0.5)
        add("init", "main", "sampled", seed, 0, 0, "id", 0.99, 1000, "format")
    for seed in seeds[:2]:
        add("foundation", "main", "sampled", seed, 0, 0, "id", 0.0, 1000, "format")
        for setting in ("lr=0.0001", "lr=0.0002", "lr=0.0005"):
            for step in range(0, 50, 10):
                where = ("rl_no_init", "no_init", setting, seed, step, step / 40)
                for metric in ("success", "format"):
                    add(*where, "id", -1.0, metric=metric)
        for step in range(10, 90, 10):
            where = ("sft_suboptimal", "suboptimal", "", seed, step, step / 80)
            add(*where, "id", 0.10 + 0.35 * (step / 80) ** 0.5)
            add(*where, "rule_ood", 0.05 * np.exp(-step / 15))
    return validate(pd.concat([main, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True))


def failing_transcript(output="import itertools\n\ndef solve(cards):\n    return $24$\n" * 4):
    """An episode of RL without SFT that never answers correctly."""
    prompt = "[Task Description] You are an expert 24 points card game player. " * 12 + "\nCards: 2, J, 3, K"
    feedback = "You failed this trial because your formula is incorrect."
    turns = [{"prompt": prompt, "output": output, "outcome": "illegal", "reward": -3.0}]
    turns += [{"prompt": feedback, "output": f"nan {i} \x00 $x", "outcome": "illegal", "reward": -3.0} for i in "abcd"]
    return {
        "task": "general_points", "modality": "text", "method": "rl_no_init", "experiment": "no_init",
        "setting": "lr=0.0002", "seed": 0, "step": 40, "split": "rule_ood", "episode": 3,
        "cards": ["2", "J", "3", "K"], "numbers": [2, 11, 3, 13], "turns": turns,
    }  # fmt: skip
