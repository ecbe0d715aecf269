"""What Init, SFT and RL answer to the same question, attempt by attempt, under the training rule and under a new one.

For notebook 05: the paper's comparison at the size of one hand, or of one position of a route.
"""

from __future__ import annotations

import pandas as pd

from ..answers import read_fields
from ..models.checkpoint import CheckpointError
from ..models.policy import Policy
from ..runs import Run
from ..task import SPLITS, Task
from ..training.fork import final_policy
from .measurements import main_ends
from .players import answer

RULES = ("id", "rule_ood")


def compare(run: Run, temperature: float = 0.0) -> pd.DataFrame:
    """The answers of `run`, of its Init and of what else of the main comparison was trained with its seed.

    One row per attempt: rule, model, attempt, answer, verdict, reward. `temperature` 0 is greedy.
    """
    rows = []
    for label, policy in _trained(run).items():
        for split in RULES:
            rows += [
                {"rule": SPLITS[split].label, "model": label, **row} for row in _ask(run, policy, split, temperature)
            ]
    return pd.DataFrame(rows).sort_values("rule", kind="stable").set_index(["rule", "model", "attempt"])


def question(task: Task, split: str) -> str:
    """The prompt of the example under the rule of a split."""
    _, observation, _ = _reset(task, split, 1)
    text = observation["messages"][-1]["content"]
    return text if isinstance(text, str) else "".join(part.get("text", "") for part in text)


def rewards(task: Task) -> pd.Series:
    """What the verifier of the task pays for each verdict."""
    return pd.Series(task.rewards, name="reward", dtype=float).rename(lambda name: name.replace("_", " "))


def _trained(run: Run) -> dict[str, Policy]:
    """Init, the ends of the main comparison that are there, and the end of `run` itself, by label."""
    found, main = {}, main_ends(run.profile, run.study, run.seed)
    for each in main if run in main else [*main, run]:
        try:
            found[each.method.label] = final_policy(each)
        except CheckpointError:
            continue
    return found


def _reset(task: Task, split: str, attempts: int) -> tuple:
    env = task.make_env(task.split(split), attempts)
    observation, info = env.reset(seed=0, options=dict(task.example))
    return env, observation, info


def _ask(run: Run, policy: Policy, split: str, temperature: float) -> list[dict]:
    """The attempts at the first question of the example."""
    evaluation = run.study.evaluation
    env, observation, info = _reset(run.task, split, evaluation.attempts)
    rows, place, done = [], info.get("position"), False
    while not done and info.get("position") == place:
        said = answer(policy, observation, temperature, evaluation.max_new_tokens).text
        observation, reward, terminated, truncated, info = env.step(said)
        verdict = str(info["outcome"]).replace("_", " ")
        rows.append({"attempt": len(rows) + 1, "answer": _short(said), "verdict": verdict, "reward": reward})
        done = terminated or truncated
    return rows


def _short(said: str) -> str:
    """The fields of an answer that matter, in one line; all of it if none can be read."""
    types = {"number": list, "formula": str, "action": str}
    fields = read_fields(said, types)
    short = "; ".join(f"{name} {fields[name]}" for name in types if name in fields)
    return short or " ".join(said.split())[:100]
