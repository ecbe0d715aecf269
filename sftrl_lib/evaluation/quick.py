"""Test any model on a task in one line, without a profile or a run.

    from sftrl_lib.evaluation.quick import evaluate
    evaluate("Qwen/Qwen2.5-0.5B-Instruct", "gp-l", episodes=100)

The hands and routes, attempts, feedback, verifier and metrics are those of this project's own checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..configs import Protocol
from ..models.policy import Policy, load_policy, wrap
from ..models.rollout import Episode
from ..task import Task
from ..tasks import TASKS
from .episodes import play

Model = str | Path | Policy | PreTrainedModel


def evaluate(
    model: Model,
    task: str | Task = "gp-l",
    splits: Sequence[str] = (),
    episodes: int = 200,
    attempts: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> pd.DataFrame:
    """The metrics of a model on `splits` (all of the task's by default): a row a metric, with a 95 % interval.

    `model` is a shipped model's name, a folder (adapters as well), a hub name, or a model that is loaded already, with
    its `tokenizer` (with pictures its processor; by default that of the folder or hub name it came from). `task` is one
    of `tasks.TASKS` or its key, `attempts` the number per question (0: the paper's, 5 per hand and 2 per position).
    Raises CheckpointError for a model that cannot be tested, ValueError for an unknown task or split.
    """
    task = TASKS[task] if isinstance(task, str) else task
    splits = tuple(splits) or tuple(task.splits)
    for split in splits:
        task.split(split)
    how = Protocol(episodes, attempts or task.attempts, temperature, max_new_tokens)
    if isinstance(model, PreTrainedModel):
        name, policy = model.name_or_path or type(model).__name__, wrap(model, tokenizer)
    elif isinstance(model, Policy):
        name, policy = model.model.name_or_path or type(model.model).__name__, model
    else:
        name, policy = str(model), load_policy(model, dtype, device)
    training = policy.model.training
    policy.model.eval()
    try:
        played = {split: play(policy, task, split, how, seed, description=f"{name}: {split}") for split in splits}
    finally:
        policy.model.train(training)
    return pd.concat([table(task, split, name, found, how.attempts) for split, found in played.items()])


def table(task: Task, split: str, model: str, episodes: Sequence[Episode], attempts: int) -> pd.DataFrame:
    """The metrics of a test, with Wilson's intervals, in rows like those of metrics.csv."""
    rows = []
    for metric, (value, n) in task.measure(split, episodes).items():
        interval = binomtest(round(value * n), n).proportion_ci(method="wilson")
        about = {"model": model, "task": task.name, "modality": task.modality, "split": split, "attempts": attempts}
        rows.append({**about, "metric": metric, "value": value, "low": interval.low, "high": interval.high, "n": n})
    return pd.DataFrame(rows)
