"""What happened while a branch was trained: drawn from the trainer's own log, for the notebooks."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..profiles import Study
from ..tables import TableError
from ..training.branches import branch_folder, check_run

_PANELS = {
    "rl": {"success": "success of rollouts", "entropy": "entropy (nats a token)", "value_loss": "value loss",
           "clip_fraction": "share of clipped tokens"},
    "sft": {"loss": "loss on answers"},
}  # fmt: skip


def training_log(study: Study, method: str, experiment: str, setting: str, seed: int) -> pd.DataFrame:
    """One row per update or logged step. Raises TableError if the branch has not been trained."""
    check_run(method, experiment, setting)
    path = branch_folder(study, method, experiment, setting, seed) / "log.json"
    if not path.exists():
        raise TableError(f"There is no training log of {path.parent.name}; train it first.")
    return pd.DataFrame(json.loads(path.read_text()))


def draw_training(study: Study, method: str, experiment: str, setting: str, seed: int) -> Figure:
    """The training log as small panels over training compute."""
    log = training_log(study, method, experiment, setting, seed)
    panels = _PANELS["sft" if method.startswith("sft") else "rl"]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.6), squeeze=False, layout="constrained")
    for axis, (column, label) in zip(axes[0], panels.items(), strict=True):
        sns.lineplot(data=log, x="flops", y=column, ax=axis)
        axis.set(xlabel="training compute (FLOPs)", ylabel=label)
    sns.despine(figure)
    return figure
