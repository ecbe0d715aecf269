"""Own figures: what SFT and RL do under other rules than the paper's, and where their variants end.

Paper: one new rule. Ours: rules that differ from the training rule in one thing at a time, after "Debunk the Myth of
SFT Generalization" (arXiv 2510.00237), and the controls that readers ask for, beside Init, SFT and RL with their seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.axes import Axes

from ..claims.statistics import level_of
from ..experiments import parse_setting
from ..methods import METHODS
from ..points.rules import as_rule
from ..tables import ends, select
from ..task import PROBES, SPLITS, Task
from ..tasks import TASKS
from .style import (
    GREY,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    canvas,
    caption,
    handle,
    in_lines,
    legend_below,
    methods_in,
    percent,
    record,
    styled,
)

GROUPS = {  # heading -> probes, and the paper's new rule
    "the training rule": ("grid_old_short_low", "grid_old_long_low"),
    "a new rule, numbers to 10": ("grid_new_short_low", "grid_new_long_low", "all5", "all7"),
    "a new rule, numbers above 10": ("grid_new_short_high", "grid_new_long_high", "all12", "rule_ood", "large"),
    "else": ("five", "fake"),
}
VARIANTS_OF = ("wordings", "dft", "kl_sft", "grpo", "dose", "diversity", "rejection")  # experiments of `controls`
_COMPARED = ("init", "sft", "rl")


@styled
def rules(tables: Tables) -> Drawing:
    """Success, and numbers read by the stated rule, of Init, SFT and RL under one rule per line."""
    task = TASKS["gp-l"]
    rows = select(tables.metrics, task=task.name, modality=task.modality, metric=["success", task.words.stated.metric])
    probed = ends(select(rows, experiment=["rule_grid", "rule_panel", "fake"], method=list(_COMPARED)))
    if probed.empty:
        raise NothingToDraw("it needs rows of experiment 'rule_grid', 'rule_panel' or 'fake'")
    seeds = sorted(set(probed["seed"]))
    main = select(rows, experiment="main", setting="sampled", split="rule_ood", seed=seeds, method=list(_COMPARED))
    rows = pd.concat([probed, ends(main)])
    groups = {name: [probe for probe in group if probe in set(probed["split"]) | {"rule_ood"}]
              for name, group in GROUPS.items()}  # fmt: skip
    lines = [line for name, group in groups.items() if group for line in (name, *group)]
    title = "Is it the rule? Init, SFT and RL of GP-L under other rules"
    told = "every hand of four has a J, Q or K", "spelt out: '4', '4', and '4' respectively"
    subtitle = caption(tables.profile, rows, "lines", *told)
    figure = canvas(WIDTH, 0.6 + 0.215 * len(lines), title, subtitle)
    grid = figure.subplots(1, 2, sharey=True)
    series = []
    named = {"success": axis_name("success", task), task.words.stated.metric: f"{task.words.stated.title} (%)"}
    for axes, (metric, name) in zip(grid, named.items(), strict=True):
        for place, split in enumerate(lines):
            if split in groups or (split == "fake" and metric != "success"):  # whose lists are held to the other rule
                continue
            here = select(rows, split=split, metric=metric)
            series += [{"metric": metric, "setting": _rule(task, split), "split": split} | one
                       for one in _dots(axes, here, place)]  # fmt: skip
        axes.set(xlabel=name, xlim=(-2, 102), ylim=(len(lines) - 0.4, -0.6))
        in_lines(axes)
    grid[0].set_yticks(range(len(lines)), [line if line in groups else _rule(task, line) for line in lines])
    for label, line in zip(grid[0].get_yticklabels(), lines, strict=True):
        label.set(fontweight="bold" if line in groups else "normal")
    handles = [handle(method, linestyle="none") for method in methods_in(rows)]
    legend_below(figure, handles, len(handles))
    seen = "A line per rule, a mark per method: left success, right the share of lists that follow the stated rule."
    return Drawing(figure, record("rules", title, subtitle, tables.profile, series, None, seen))


def _rule(task: Task, split: str) -> str:
    """A rule as its line is called."""
    if split not in task.probes or "stated" in task.probes[split]:
        return "J, Q, K = 11, 12, 13" if split == "rule_ood" else PROBES[split].column
    rule = as_rule(task.probes[split]["rule"])
    values = ", ".join(map(str, rule.values)) if len(set(rule.values)) > 1 else f"{rule.values[0]}"
    cards = ", five cards" if split == "five" else ""
    return f"J, Q, K = {values}{', spelt out' if rule.spelt_out else ''}{cards}"


def _dots(axes: Axes, rows: pd.DataFrame, place: float) -> Iterator[dict]:
    """A mark with its interval per method, one a little below the other. Yields the JSON records."""
    for shift, method in zip((-0.24, 0.0, 0.24), _COMPARED, strict=True):
        here = select(rows, method=method)
        if len(here):
            yield {"method": method} | _mark(axes, here, place + shift, method)


def _mark(axes: Axes, rows: pd.DataFrame, place: float, method: str) -> dict:
    estimate, look = level_of(rows), METHODS[method]
    axes.plot([100 * estimate.low, 100 * estimate.high], [place, place], color=look.color, linewidth=1.1, clip_on=False)
    axes.plot(100 * estimate.value, place, look.marker, color=look.color, markersize=8 if look.marker == "*" else 4.6,
              markeredgecolor="white", markeredgewidth=0.5, clip_on=False, zorder=5)  # fmt: skip
    return percent(estimate)


@styled
def controls(tables: Tables) -> Drawing:
    """The main metric at the end of every variant, in distribution and under the new rule, a row of panels per task."""
    rows = select(tables.metrics, split=["id", "rule_ood"])
    varied = ends(select(rows, experiment=list(VARIANTS_OF)))
    found = [(task, _of(task, rows, varied)) for task in TASKS.values()]
    found = [(task, lines) for task, lines in found if lines]
    if not found:
        raise NothingToDraw(f"it needs rows of experiment {' or '.join(map(repr, VARIANTS_OF))}")
    shown = pd.concat([part for _, lines in found for _, part in lines])
    title = "Variants of SFT and RL, equal training compute unless said otherwise"
    subtitle = caption(tables.profile, shown, "lines", "Init, SFT and RL: of the same seeds", "dotted: Init")
    figure = canvas(WIDTH, 0.7 + sum(0.5 + 0.2 * len(lines) for _, lines in found), title, subtitle)
    heights = [2 + len(lines) for _, lines in found]
    grid = figure.subplots(len(found), 2, squeeze=False, sharey="row", height_ratios=heights)
    series = []
    for panels, (task, lines) in zip(grid, found, strict=True):
        for axes, split in zip(panels, ("id", "rule_ood"), strict=True):
            for place, (name, part) in enumerate(lines):
                here = select(part, split=split)
                if len(here):
                    about = {"variant": task.label, "split": split, "setting": name, "method": here["method"].iloc[0]}
                    series.append(about | _mark(axes, here, place, about["method"]))
            start = next(one for one in series if one["variant"] == task.label and one["split"] == split)
            axes.axvline(start["value"], color=GREY, linewidth=0.9, linestyle=":")
            axes.set(title=f"{task.label} · {SPLITS[split].label}", xlabel=axis_name(task.metric, task))
            axes.set(ylim=(len(lines) - 0.4, -0.6))
            in_lines(axes)
        panels[0].set_yticks(range(len(lines)), [name for name, _ in lines])
    seen = "For each task two panels with a line per variant: a mark and its interval."
    return Drawing(figure, record("controls", title, subtitle, tables.profile, series, None, seen))


def _of(task: Task, rows: pd.DataFrame, varied: pd.DataFrame) -> Sequence[tuple[str, pd.DataFrame]]:
    """The lines of one task: name and rows, Init, SFT and RL first; none if it has no variants."""
    own = {"task": task.name, "modality": task.modality, "metric": task.metric}
    varied = select(varied, **own)
    if varied.empty:
        return []
    main = select(rows, **own, experiment="main", setting="sampled", seed=sorted(set(varied["seed"])))
    lines = [(METHODS[method].label, ends(select(main, method=method))) for method in _COMPARED]
    for experiment in VARIANTS_OF:
        here = select(varied, experiment=experiment)
        for (method, setting), part in here.groupby(["method", "setting"], sort=False):
            lines.append((_variant(experiment, method, setting), part))
    return lines


_NAMES = {
    "wordings": "SFT, both wordings of the rule",
    "dft": "SFT with the DFT loss",
    "kl_sft": "SFT, KL to Init",
    "grpo": "GRPO",
    "dose": "SFT",
    "diversity": "other rules in training",
    "rejection": "SFT on Init's right answers",
}


def _variant(experiment: str, method: str, setting: str) -> str:
    """A variant as its line is called, with the numbers that it varies."""
    numbers = {name: value for name, value in parse_setting(setting).items() if not isinstance(value, str)}
    told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in numbers.items() if name != "spelt_out")
    who = f"{METHODS[method].label}, " if experiment == "diversity" else ""
    return f"{who}{_NAMES[experiment]}" + (f", {told}" if told and experiment != "grpo" else "")
