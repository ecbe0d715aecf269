"""Tables and transcripts that look like a run's, made from formulas for tests; never written to results/."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

import sftrl_lib  # noqa: F401  registers the environments
from sftrl_lib import paths, tasks
from sftrl_lib.configs import PPOConfig
from sftrl_lib.evaluation.illustrations import illustrate
from sftrl_lib.methods import METHODS, Method
from sftrl_lib.points.task import GP_L
from sftrl_lib.tables import COLUMNS, ends, select, validate, write_transcripts
from sftrl_lib.virl import expert_response

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
    ("sft", "rule_ood", "training_rule"): (0.20, 0.95),
    ("rl", "rule_ood", "training_rule"): (0.20, 0.08),
}
# The same for navigation: per-step accuracy, whole routes, and the mechanism.
ROUTE_RATES = {
    ("sft", "id", "step_accuracy"): (0.86, 0.99),
    ("sft", "heldout", "step_accuracy"): (0.85, 0.98),
    ("sft", "rule_ood", "step_accuracy"): (0.72, 0.03),
    ("rl", "id", "step_accuracy"): (0.86, 0.96),
    ("rl", "heldout", "step_accuracy"): (0.85, 0.95),
    ("rl", "rule_ood", "step_accuracy"): (0.72, 0.90),
    ("sft", "id", "success"): (0.50, 0.95),
    ("sft", "rule_ood", "success"): (0.35, 0.02),
    ("rl", "id", "success"): (0.50, 0.86),
    ("rl", "rule_ood", "success"): (0.35, 0.74),
    ("sft", "id", "legal_action"): (0.98, 1.0),
    ("sft", "rule_ood", "legal_action"): (0.80, 0.30),
    ("rl", "id", "legal_action"): (0.98, 1.0),
    ("rl", "rule_ood", "legal_action"): (0.80, 0.97),
    ("sft", "rule_ood", "training_rule"): (0.30, 0.96),
    ("rl", "rule_ood", "training_rule"): (0.30, 0.04),
    ("sft", "heldout", "success"): (0.48, 0.90),
    ("rl", "heldout", "success"): (0.48, 0.80),
}
# What seeing changes: GP-VL's cards and numbers apart, SFT worse at both; the new look; routes that rarely end well.
IMAGE_RATES = {
    "GP-VL": {
        ("sft", "id", "success"): (0.24, 0.14),
        ("rl", "id", "success"): (0.24, 0.52),
        ("sft", "visual_ood", "success"): (0.22, 0.12),
        ("rl", "visual_ood", "success"): (0.22, 0.41),
        ("sft", "id", "recognition"): (0.85, 0.60),
        ("sft", "rule_ood", "recognition"): (0.75, 0.33),
        ("sft", "visual_ood", "recognition"): (0.78, 0.58),
        ("rl", "id", "recognition"): (0.85, 0.98),
        ("rl", "rule_ood", "recognition"): (0.75, 0.95),
        ("rl", "visual_ood", "recognition"): (0.78, 0.97),
        ("sft", "rule_ood", "numbers"): (0.60, 0.02),
        ("rl", "rule_ood", "numbers"): (0.60, 0.85),
    },
    "V-IRL-VL": {
        ("sft", "rule_ood", "success"): (0.01, 0.0),
        ("rl", "rule_ood", "success"): (0.01, 0.004),
        ("sft", "visual_ood", "success"): (0.30, 0.11),
        ("rl", "visual_ood", "success"): (0.30, 0.78),
    },
}
INIT_FLOPS, END_FLOPS = 3e12, 6.2e13


def main_table(variants=("GP-L",), seeds=(0, 1, 2), steps=8, noise=0.01, curve_n=300, end_n=1000):
    """The main experiment of some task variants: Init, and SFT and RL from it with `steps` checkpoints."""
    random = np.random.default_rng(sum(map(ord, "synthetic tables")))
    rows = []

    def measure(rate, n):
        return float(np.round(np.clip(rate + noise * random.standard_normal(), 0, 1) * n) / n)

    for variant in variants:
        task, modality, _ = TASKS[variant]
        rates = (RATES if task == "general_points" else ROUTE_RATES) | IMAGE_RATES.get(variant, {})
        for (method, split, metric), (start, end) in rates.items():
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
                add(*where, "id", 0.05 if attempts == 1 else 0.97, metric="format")
        add("init", "main", "sampled", seed, 0, 0, "id", 0.99, 1000, "format")
    for seed in seeds[:2]:
        for setting in ("lr=0.0001", "lr=0.0002", "lr=0.0005"):
            for step in range(0, 50, 10):
                where = ("rl_no_init", "no_init", setting, seed, step, step / 40)
                for metric in ("success", "format"):
                    add(*where, "id", -1.0, metric=metric)
                add(*where, "rule_ood", 0.1)
        for split in ("id", "heldout", "rule_ood"):
            for number, lr in enumerate(("0.0001", "0.0003", "0.001")):
                add("sft", "search", f"lr={lr}", seed, 80, 1, split, 0.4 + 0.05 * number)
                for ratio in ("token", "sequence"):
                    add("rl", "search", f"lr={lr};ratio={ratio}", seed, 80, 1, split, 0.3 - 0.05 * number)
        for step in range(10, 90, 10):
            where = ("sft_suboptimal", "suboptimal", "", seed, step, step / 80)
            add(*where, "id", 0.10 + 0.35 * (step / 80) ** 0.5)
            add(*where, "rule_ood", 0.05 * np.exp(-step / 15))
    for seed in seeds[:2]:  # after all others, which then keep their random numbers
        for rank in (0, 4, 64):
            for split in ("id", "rule_ood"):
                add("sft", "lora", f"lr=0.002;rank={rank}", seed, 80, 1, split, 0.3 + 0.002 * rank)
                add("rl", "lora", f"lr=0.0006;rank={rank}", seed, 80, 1, split, 0.2 + 0.001 * rank)
        for split in ("id", "rule_ood"):  # controls
            add("sft", "dft", "loss=dft", seed, 80, 1, split, 0.35)
            add("rl", "grpo", "group=8", seed, 80, 1, split, 0.45)
        for method, share in (("init", 0.3), ("sft", 0.1), ("rl", 0.4)):
            for metric in ("success", "recognition"):
                add(method, "rule_grid", "", seed, 80, 1, "grid_new_short_high", share, metric=metric)
                add(method, "rule_panel", "", seed, 80, 1, "all5", share + 0.1, metric=metric)
                add(method, "fake", "", seed, 80, 1, "fake", share / 2, metric=metric)
    return validate(pd.concat([main, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True))


SFT_RATES = {  # of Fig. 16: parts frozen -> learning rates
    "none": ("0.0001", "0.0003", "0.001", "0.003", "0.01"),
    "vision": ("0.0003", "0.001"),
    "vision+adapter": ("0.0001", "0.0003", "0.001"),
}


def image_tasks(seeds=(0, 1, 2), steps=5):
    """All that the figures and claims of the tasks with images read."""
    random = np.random.default_rng(sum(map(ord, "image tasks")))
    rows = []

    def add(variant, method, experiment, setting, seed, share, split, rate, step=None):
        task, modality, metric = TASKS[variant]
        flops = INIT_FLOPS + share * (END_FLOPS - INIT_FLOPS)
        value = float(np.round(np.clip(rate + 0.006 * random.standard_normal(), 0, 1) * 500) / 500)
        step = round(10 * steps * share) if step is None else step
        rows.append((task, modality, method, experiment, setting, seed, step, flops, split, metric, value, 500))

    for seed in seeds:
        for share in np.arange(1, steps + 1) / steps:
            for frozen, rates in SFT_RATES.items():
                for number, lr in enumerate(rates):
                    rate = 0.24 - (0.04 * number - 0.05) * share
                    add("GP-VL", "sft", "sft_tuning", f"lr={lr};frozen={frozen}", seed, share, "id", rate)
            for lr, gain in (("0.0003", 0.18), ("0.001", 0.3)):
                add("GP-VL", "rl", "rl_tuning", f"lr={lr}", seed, share, "id", 0.24 + gain * share**0.5)
            for lr, rate in (("0.0001", 0.004), ("0.0003", 0.006)):
                add("V-IRL-VL", "rl", "overfitted", f"lr={lr}", seed, share, "rule_ood", rate)
                add("V-IRL-VL", "rl", "overfitted", f"lr={lr}", seed, share, "id", 0.80 + 10 * rate)
        add("V-IRL-VL", "sft", "overfitted", "", seed, 0, "rule_ood", 0.004, step=800)
        add("V-IRL-VL", "sft", "overfitted", "", seed, 0, "id", 0.80, step=800)
    main = main_table(("GP-VL", "V-IRL-VL"), seeds, steps)
    return validate(pd.concat([main, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True))


def with_protocols(table):
    """The table with its end points once more: every metric decoded greedily, success also with a single attempt."""
    last = ends(select(table, experiment="main"))
    single = select(last, metric="success")
    more = [last.assign(setting="greedy", value=0.9 * last["value"]),
            single.assign(setting="single", value=0.6 * single["value"])]  # fmt: skip
    return validate(pd.concat([table, *more], ignore_index=True))


TOY_METHOD = Method("toy", "Toy method", "#117733", "v", PPOConfig)


def register_toys(patch):
    """A task and a method that are not the paper's, both called toy in the tables."""
    patch.setitem(tasks.TASKS, "toy", replace(GP_L, key="toy", label="Toy", name="toy"))
    patch.setitem(METHODS, "toy", TOY_METHOD)


def with_toys(table):
    """The table with GP-L's rows once more as the toy task's; and on every task the toy method, which does as RL."""
    hands = select(table, task="general_points", modality="text").assign(task="toy")
    table = pd.concat([table, hands], ignore_index=True)
    return validate(pd.concat([table, select(table, method="rl").assign(method="toy")], ignore_index=True))


def illustrated(home, transcripts):
    """The folder of the pictures that figures show of `transcripts`, made below `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        write_transcripts(transcripts, "laptop")
        illustrate("laptop")
        return paths.pictures("laptop")


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


def points_transcript(split="rule_ood", method="rl", **changes):
    """An episode of GP-L in which the second attempt is right, as today's pipeline writes it."""
    options = {"rule": "distinct"} if split == "rule_ood" else {}
    env = gym.make("sftrl/GeneralPoints-v0", **options)
    observation, info = env.reset(options={"hand": ["Q", "7", "8", "A"]})
    numbers = list(info["numbers"])
    answers = ("(12+7)+8-2=24", "12*(8-7+1)=24") if split == "rule_ood" else ("10+7+8+1=24", "10+7+8-1=24")
    turns, asked = [], observation["messages"][0]["content"]
    for formula in answers:
        output = f'{{\n  "cards": {info["cards"]},\n  "number": {numbers},\n  "formula": "{formula}",\n}}'
        observation, reward, *_, info = env.step(output)
        turns.append({"prompt": asked, "output": output, "outcome": info["outcome"], "reward": reward})
        asked = info["feedback"]
    key = {"task": "general_points", "modality": "text", "method": method, "experiment": "main", "setting": "sampled",
           "seed": 0, "step": 40, "split": split, "episode": 0}  # fmt: skip
    return key | {"cards": list(info["cards"]), "numbers": numbers, "success": True, "turns": turns} | changes


def route_transcript(split="rule_ood", method="rl", route=3, wrong=(1,), stuck=(), seed=0, **changes):
    """A played episode of V-IRL-L: at the positions `wrong` the first attempt is wrong, at `stuck` every one.

    A wrong answer to a turn is the other action space's, to anything else a stop or a step too many.
    """
    city, actions = ("nyc:heldout" if split == "heldout" else "nyc"), "relative" if split == "rule_ood" else "absolute"
    env = gym.make("sftrl/Navigation-v0", actions=actions, routes=city)
    observation, info = env.reset(seed=seed, options={"route": route})
    rail, turns, done, retry = info["rail"], [], False, False
    while not done:
        position, expert = info["position"], info["expert_action"]
        point, said = rail.points[position], expert
        if position in stuck or (position in wrong and not retry):
            other = point.action("absolute" if actions == "relative" else "relative")
            said = other if other != expert else "forward()" if expert == "stop()" else "stop()"
        output = expert_response(point.observation, point.instruction, said)
        asked = observation["messages"][-1]["content"]
        observation, reward, terminated, truncated, info = env.step(output)
        turns.append({"prompt": asked, "output": output, "outcome": info["outcome"], "reward": reward,
                      "feedback": info["feedback"], "position": position, "expert_action": expert})  # fmt: skip
        done, retry = terminated or truncated, info["outcome"] != "correct"
    key = {"task": "navigation", "modality": "text", "method": method, "experiment": "main", "setting": "sampled",
           "seed": 0, "step": 40, "split": split, "episode": 0}  # fmt: skip
    path = [list(point.geocode) for point in rail.points]
    headings = [point.heading for point in rail.points]
    return key | {"success": info["success"], "city": city, "actions": actions, "route": route, "headings": headings,
                  "instructions": list(rail.instructions), "path": path, "turns": turns} | changes  # fmt: skip


def example_transcripts():
    """One transcript for every figure that shows one."""
    seen, suits = {"modality": "image"}, ["spades", "clubs", "clubs", "spades"]
    return [
        failing_transcript(), points_transcript(), points_transcript("id", suits=suits, **seen), route_transcript(),
        route_transcript(**seen), route_transcript(method="sft", wrong=(), stuck=(1,)),
    ]  # fmt: skip
