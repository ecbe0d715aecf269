"""The paper's effect without training: trained models on fresh hands, under the training rule and under a new one.

    python -m sftrl_lib.evaluation.quick_look --tasks "GP-L V-IRL-L" --episodes 200

The models are those that were trained here or that come with the package (`players`), one seed of them; toys and bare
foundation models are refused, because they show nothing. The hands are no test's and no training's. What is found goes
to ``results/quicklook`` and ``figures/quicklook``, in the form of any profile's.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from .. import paths, tables
from ..claims.comparison import COMPARED
from ..claims.evidence import Evidence
from ..claims.words import shown
from ..configs import Protocol
from ..figures import bars, style
from ..methods import METHODS
from ..published import VARIANTS
from ..task import SPLITS
from ..tasks import labelled
from .episodes import play
from .players import Model, few_threads, find_cast

NAME = "quicklook"
RULES = ("id", "rule_ood")
FRESH = 31_337  # seed of the hands


class NoModels(ValueError):
    """There are no trained models to look at; the message says how to get some."""


@dataclass(frozen=True)
class Look:
    """What the models did: the rows of a table, and whose they are."""

    metrics: pd.DataFrame
    sources: tuple[str, ...]  # such as "laptop, seed 0, shipped"

    @property
    def table(self) -> pd.DataFrame:
        """The main metric in percent with its 95 % interval over the episodes: a row a model, a column a rule."""
        evidence, found = Evidence(self.metrics), {}
        for label, method in itertools.product(VARIANTS, COMPARED):
            cells = {SPLITS[split].label: evidence.level(label, method, split) for split in RULES}
            if all(cells.values()):
                what = f"{label}, {VARIANTS[label].metric.replace('_', ' ')} in %"
                found[what, METHODS[method].label] = {rule: shown(cell, "") for rule, cell in cells.items()}
        return pd.DataFrame.from_dict(found, orient="index")

    def figure(self) -> style.Drawing:
        """The headline figure, drawn from these rows."""
        return bars.headline(style.Tables(f"{NAME}: {'; '.join(self.sources)}", self.metrics))


_METHODS = {METHODS[name].label: name for name in COMPARED}


def look(labels: Sequence[str] = ("GP-L",), episodes: int = 200) -> Look:
    """Let Init, SFT and RL of the first seed play `episodes` hands or routes of every task, under both rules.

    Writes tables and figure. Raises NoModels if a task has no trained models, ValueError for an unknown task.
    """
    rows, sources = [], []
    for task in map(labelled, labels):
        models = trained(task.label)
        sources += [model.source for model in models]
        for model in models:
            rows += _rows(model, episodes)
    looked = Look(tables.validate(pd.DataFrame(rows, columns=list(tables.COLUMNS))), tuple(dict.fromkeys(sources)))
    tables.write(looked.metrics, tables.metrics_path(NAME))
    style.save_figure(looked.figure(), "headline", NAME)
    return looked


def trained(label: str) -> list[Model]:
    """Init, SFT and RL of one seed. Raises NoModels if one of them is missing or they are toys."""
    cast = find_cast(labelled(label).key)
    there = [player for player in cast.load(cast.seeds[0]) if player.name in _METHODS]
    if cast.toy or len(there) < len(COMPARED):
        raise NoModels(
            f"There are no trained models of {label}: none came with this checkout and none was trained here. "
            f"`make reproduce TASKS={label}` trains them, or `make headline` (GP-L alone, less of it); "
            "`python -m sftrl_lib.evaluation.players export` then keeps them beside the package."
        )
    return there


def _rows(model: Model, episodes: int) -> Iterator[dict]:
    """The rows of one model under both rules, by the paper's protocol."""
    task, how = model.task, model.study.evaluation
    protocol = Protocol(episodes, how.attempts, how.temperature, how.max_new_tokens)
    for split in RULES:
        with few_threads(model.policy):
            ended = play(model.policy, task, split, protocol, FRESH, description=f"{model.name}, {SPLITS[split].short}")
        for metric, (value, n) in task.measure(split, ended).items():
            yield {
                "task": task.name, "modality": task.modality, "method": _METHODS[model.name], "experiment": "main",
                "setting": "sampled", "seed": model.trained.seed, "step": model.trained.step,
                "train_flops": model.trained.train_flops, "split": split, "metric": metric, "value": value, "n": n,
            }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.evaluation.quick_look", description=about)
    parser.add_argument("--tasks", default="", help='as in "GP-L V-IRL-L"; default: GP-L')
    parser.add_argument("--episodes", type=int, default=200, help="hands or routes per model and rule; default: 200")
    options = parser.parse_args(arguments)
    try:
        looked = look(options.tasks.split() or ("GP-L",), options.episodes)
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(looked.table.to_string())
    print(f"Models: {'; '.join(looked.sources)}; {options.episodes} fresh hands or routes under each rule, one seed.")
    print(f"The figure is {(paths.figures(NAME) / 'headline.png').relative_to(paths.HOME)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
