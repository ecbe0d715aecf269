"""The README.md of an exported checkpoint: a model card, written from its record alone.

Every number in it stands in ``record.json``; what is not recorded is not said. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..methods import METHODS
from ..task import SPLITS
from ..tasks import TASKS

_FRONT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: {pipeline}
tags: [sftrl, {task}, {method}]
---
"""


def card(record: Mapping[str, Any]) -> str:
    """The model card of the checkpoint that `players.export` writes with this record."""
    task, method = TASKS[record["task"]], METHODS[record["method"]]
    pipeline = "image-text-to-text" if task.modality == "image" else "text-generation"
    agreed = record["same_greedy_answers"]
    lines = [
        _FRONT.format(pipeline=pipeline, task=task.key, method=method.name),
        f"# {method.label} on {task.label}, seed {record['seed']}",
        "",
        f"The end of run `{record['run']}` of profile `{record['profile']}`: step {record['step']}, "
        f"{record['train_flops']:.3g} FLOPs of training compute by the paper's formulas, that of Init included.",
        f"A tiny model of a reproduction of *SFT Memorizes, RL Generalizes* (arXiv 2501.17161) for {task.words.title}. "
        "It is of no use for anything else.",
        "",
        "```python",
        "from sftrl_lib.evaluation.quick import evaluate",
        "",
        f'evaluate("PATH", "{task.key}")',
        "```",
        "",
        "## Tests",
        "",
        *_tests(record["tested"], task.words.metrics),
        "",
        "## What it was made by",
        "",
        f"* weights in {record['dtype']}, SHA-256 `{record['sha256']}`, from a checkpoint with SHA-256 "
        f"`{record['made_from_sha256']}`; on {agreed['n']} {task.unit}s its first greedy answer is the original's in "
        f"{100 * agreed['share']:.0f} %",
        f"* settings `{record['identity']}`",
        *(f"* {name}: {value}" for name, value in record["exported"].items()),
    ]
    return "\n".join(lines) + "\n"


def _tests(tested: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    """A table of the main metric by split; a sentence where nothing was tested."""
    if not tested:
        return ["It was not tested before it was exported."]
    rows = ["| split | metric | value | n |", "|---|---|---|---|"]
    for split, found in tested.items():
        [(metric, value)] = [(name, number) for name, number in found.items() if name != "n"]
        rows.append(f"| {SPLITS[split].label} | {labels.get(metric, metric)} | {100 * value:.1f} % | {found['n']} |")
    return rows
