"""The end of a search: choose by success on held-out instances, and only then test all ends under the other splits.

    python -m sftrl_lib.evaluation.search --only-choose
    python -m sftrl_lib.evaluation.search

`make search` calls the second after the runs. It tests every setting, not the chosen one alone, so that the tables show
what another choice would have done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import paths, provenance
from ..claims import selection
from ..experiments import CHOSEN_ON
from ..jobs import parse_seeds, parse_tasks
from ..profiles import Profile, Study, get_profile
from ..runs import Run, main_run, test_settings, training_runs
from ..training.snapshots import snapshots_of
from .episodes import play
from .measurements import Part, cell_of, merge, policy_of


def test_other_splits(profile: Profile, seeds: Sequence[int] = (), studies: Sequence[Study] = ()) -> None:
    """Test the end of every searched run on the splits that had no part in the choice.

    Budgets are tried from the smallest up and larger ones only while the rule asks for them, so some may not be there.
    Raises SelectionError unless the choice from these tables is written down; nothing is tested then.
    """
    studies = tuple(studies) or profile.studies
    selection.check_chosen(profile.name, [study.task.label for study in studies])
    for study in studies:
        for experiment in (e for e in study.experiments if e.name in selection.SEARCHED):
            for seed in seeds or profile.seeds:
                for run in training_runs(profile, study, experiment, seed, beside_main=False):
                    _test(run)


def _test(run: Run) -> None:
    trained, task, how = main_run(run) or run, run.task, run.study.evaluation.protocol()
    if not (trained.folder / provenance.FINISHED).is_file():
        print(f"not run, so not tested: {run.name}")
        return
    others = tuple(split for split in task.splits if split not in CHOSEN_ON)
    identity = {"run": trained.identity, **test_settings(run.study, run.experiment_name, others)}
    part = Part(paths.test_folder(run.profile.name, f"{run.name}-others"), identity)
    end, cell = snapshots_of(trained)[-1], cell_of(run)
    policy = policy_of(run.profile, end)
    for split in others:
        if not part.has(cell, end, split):
            episodes = play(policy(), task, split, how, run.seed, run.profile.rollout_batch, f"{run.name}: {split}")
            part.add(cell.rows(end, task, split, task.measure(split, episodes)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.evaluation.search", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="search")
    parser.add_argument("--seeds", help='as in "91 92"; default: those of the profile')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    parser.add_argument("--only-choose", action="store_true", help="test nothing; the choice may still change")
    options = parser.parse_args(arguments)
    try:
        profile = get_profile(options.profile)
        seeds, studies = parse_seeds(options.seeds), parse_tasks(profile, options.tasks)
        merge(profile, seeds)
        print(selection.choose(profile.name).to_string(index=False))
        if options.only_choose:
            return 0
        test_other_splits(profile, seeds, studies)
        merge(profile, seeds)
        provenance.write(profile.name)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    from ..figures.draw import draw_all

    draw_all(profile.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
