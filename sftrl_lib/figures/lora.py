"""Own figure: LoRA adapters of several ranks against full fine-tuning, from the same Init at equal compute.

Paper and official code: all weights are trained. Ours: both branches, under the training rule and under the new one, at
the learning rate of full fine-tuning and at three times it.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from ..claims import statistics
from ..experiments import parse_setting
from ..methods import METHODS
from ..tables import ends, select
from ..tasks import TASKS
from .style import (
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    caption,
    error_bar,
    handle,
    legend_below,
    line_handle,
    methods_in,
    percent,
    record,
    split_name,
    styled,
)

SHOWN = ("id", "rule_ood")


@styled
def lora(tables: Tables) -> Drawing:
    """The main metric over the rank, a row per task, a column per split; full fine-tuning at the right end."""
    found = ends(select(tables.metrics, experiment="lora", split=list(SHOWN)))
    tasks = [t for t in TASKS.values() if len(select(found, task=t.name, modality=t.modality, metric=t.metric))]
    if not tasks:
        raise NothingToDraw("it needs rows of experiment 'lora'")
    parts = [select(found, task=t.name, modality=t.modality, metric=t.metric) for t in tasks]
    rows = pd.concat(parts)
    title = "LoRA against full fine-tuning, equal training compute"
    subtitle = caption(tables.profile, rows, "lines", "all: every weight is trained")
    figure = canvas(6.2, 2.3 * len(tasks) + 0.2, title, subtitle)
    grid = figure.subplots(len(tasks), len(SHOWN), squeeze=False, sharey="row")
    series = []
    for line, task, part in zip(grid, tasks, parts, strict=True):
        for axes, split in zip(line, SHOWN, strict=True):
            series += [{"variant": task.label, "split": split} | one for one in _panel(axes, select(part, split=split))]
            axes.set(title=f"{task.label} · {split_name(split, task)}", xlabel="rank of the adapters", ylim=(0, None))
        line[0].set_ylabel(f"{task.words.metrics[task.metric]} (%)")
    handles = [handle(method) for method in methods_in(rows)]
    handles += [line_handle("rate of full fine-tuning"), line_handle("three times it", dashed=True)]
    legend_below(figure, handles, len(handles))
    seen = "Lines over the rank of the adapters, one for each method and learning rate, all weights at the right end."
    return Drawing(figure, record("lora", title, subtitle, tables.profile, series, None, seen))


def _panel(axes: Axes, rows: pd.DataFrame) -> list[dict]:
    """A line per method and learning rate. Returns the JSON records."""
    settings = rows["setting"].map(parse_setting)
    rows = rows.assign(rank=settings.map(lambda s: int(s["rank"])), lr=settings.map(lambda s: s["lr"]))
    ranks = [*sorted(set(rows["rank"]) - {0}), *({0} & set(rows["rank"]))]
    series = []
    for method, here in rows.groupby("method"):
        look = METHODS[method]
        for number, (lr, group) in enumerate(here.groupby("lr")):
            line, shift = ("-", (0, (4, 2)))[number % 2], 0.06 * (number - 0.5)
            levels = {rank: statistics.level_of(part) for rank, part in group.groupby("rank")}
            places = [ranks.index(rank) + shift for rank in ranks if rank in levels]
            values = [100 * levels[rank].value for rank in ranks if rank in levels]
            axes.plot(places, values, color=look.color, marker=look.marker, markersize=5, linestyle=line)
            for rank, estimate in levels.items():
                error_bar(axes, ranks.index(rank) + shift, estimate, look.color, alpha=0.6)
                series.append({"method": method, "lr": lr, "rank": rank} | percent(estimate))
    axes.set_xticks(range(len(ranks)), [str(rank) if rank else "all" for rank in ranks])
    return series
