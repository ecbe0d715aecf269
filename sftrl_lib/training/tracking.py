"""Training logs in a tracker while they are made, by transformers' own integrations; off unless asked for.

    SFTRL_REPORT_TO=tensorboard make reproduce
    SFTRL_REPORT_TO="tensorboard trackio" make reproduce

Both branches use the same names, those of `METRICS`, wherever they have the number. The numbers in ``log.json`` and in
the tables are these as well, and are kept whether or not anything is tracked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_reporting_integration_callbacks

from ..files import reason
from .branch import Branch

VARIABLE = "SFTRL_REPORT_TO"
METRICS = {
    "loss": "what is minimised; SFT: nats per token of the answers",
    "grad_norm": "of the gradient, before it is clipped",
    "entropy": "nats per token of the policy's distributions",
    # RL alone
    "flops": "training compute so far, that of Init included (paper C.3)",
    "success": "share of rollouts solved, with exploration",
    "first_attempt": "share of rollouts solved at once",
    "reward": "mean of an attempt",
    "policy_loss": "the clipped objective, negated",
    "value_loss": "mean squared error of the critic",
    "explained_variance": "share of the returns' variance that the critic foresaw",
    "clip_fraction": "share of ratios outside 1 - clip and 1 + clip; of tokens, or of answers",
    "approx_kl": "old policy to new, nats, the k3 estimator",
    "kl_to_init": "policy to Init, nats per token; with a KL penalty only",
    # SFT alone, as TRL logs them
    "learning_rate": "of the step",
    "mean_token_accuracy": "share of the answers' tokens that are the likeliest",
    "num_tokens": "read so far, prompts included",
    "num_input_tokens_seen": "read so far, without padding",
    "train_tokens_per_second": "since training began",
    "train_runtime": "seconds since training began",
    "epoch": "passes over the demonstrations",
}


def chosen() -> list[str]:
    """The integrations named in `VARIABLE`. Raises ValueError for an unknown one, or one that is not installed."""
    names = os.environ.get(VARIABLE, "").replace(",", " ").split()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"{VARIABLE}={name!r} is not known; use some of {', '.join(INTEGRATION_TO_CALLBACK)}.")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            what = f"needs a package that is not here ({reason(error)})"
            raise ValueError(f"{VARIABLE}={name!r} {what}; pip install {name}, or unset {VARIABLE}.") from None
    return names


@contextmanager
def tracked(branch: Branch) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A function that takes a step and its log, for trainers that are not transformers' own."""
    callbacks = [make() for make in get_reporting_integration_callbacks(chosen())]
    if not callbacks:
        yield lambda step, entry: None
        return
    folder, on_cpu = str(branch.folder / "tracking"), not torch.cuda.is_available()
    args = TrainingArguments(output_dir=folder, run_name=branch.folder.name, report_to="none", use_cpu=on_cpu)
    state, control = TrainerState(is_world_process_zero=branch.processes.main), TrainerControl()
    for callback in callbacks:
        callback.on_train_begin(args, state, control, model=branch.policy.model)

    def report(step: int, entry: Mapping[str, float]) -> None:
        state.global_step = step
        for callback in callbacks:
            callback.on_log(args, state, control, model=branch.policy.model, logs=dict(entry))

    try:
        yield report
    finally:
        for callback in callbacks:
            callback.on_train_end(args, state, control, model=branch.policy.model)
