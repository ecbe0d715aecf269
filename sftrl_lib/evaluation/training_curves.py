"""Training curves of a run, from the trainer's own log, for the notebooks."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..files import check_seal, reason
from ..provenance import FINISHED
from ..runs import Run
from ..tables import TableError


def training_log(run: Run) -> pd.DataFrame:
    """One row per update or logged step. Raises TableError if the run has not been trained or its log is damaged."""
    path = run.folder / "log.json"
    if not path.exists():
        raise TableError(f"There is no training log of {run.name}; train it first.")
    try:
        check_seal(run.folder, path.name)
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        finished = run.folder / FINISHED
        raise TableError(
            f"{path} is damaged ({reason(error)}); remove {finished} and run the same command again, which writes it."
        ) from error


def draw_training(run: Run) -> Figure:
    """The method's panels of the training log, over training compute."""
    log, panels = training_log(run), run.method.panels
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.6), squeeze=False, layout="constrained")
    for axis, (column, label) in zip(axes[0], panels.items(), strict=True):
        sns.lineplot(data=log, x="flops", y=column, ax=axis)
        axis.set(xlabel="training compute (FLOPs)", ylabel=label)
    sns.despine(figure)
    return figure
