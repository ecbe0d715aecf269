"""From trained runs to rows of the tidy table: what is tested, how often, and where it is kept.

A run's rows go to ``build/<profile>/tests/<run>/metrics.csv`` after every checkpoint, so an interrupted evaluation
resumes where it stopped. `merge` puts all of them together. ``states.json`` beside it tells a table that is whole from
one that a power cut or a full disk has cut, which at a line's end looks like a shorter table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from .. import paths, tables
from ..experiments import SENSITIVITY, setting_text
from ..files import reason, write_atomically
from ..fingerprint import MADE_WITH, Identity, claim, made_with
from ..methods import METHODS
from ..models.policy import Policy, load_policy
from ..models.rollout import Episode
from ..profiles import Profile, Study
from ..runs import Run, main_run, test_settings, training_runs
from ..task import Metrics, Task
from ..training.snapshots import Snapshot, snapshots_of
from .divergence import kl
from .episodes import play, transcript, within
from .pass_at_k import samples

ROWS, TRANSCRIPTS = "metrics.csv", "transcripts.jsonl"  # a run's part of the tables
STATES = "states.json"  # beside them: the states that they may be in, each as file -> digest
KEPT_TRANSCRIPTS = {"id": 2, "heldout": 2, "rule_ood": 4, "visual_ood": 4}  # of the ends of branches
_COLUMNS = [*tables.COLUMNS, *tables.ADDED]


@dataclass(frozen=True)
class Cell:
    """What identifies a group of rows; the fields are columns of the table."""

    task: str
    modality: str
    method: str
    experiment: str
    setting: str
    seed: int

    def key(self, snapshot: Snapshot, split: str) -> dict[str, Any]:
        """The columns that a row of the table and a transcript share."""
        return {**asdict(self), "step": snapshot.step, "split": split}

    def rows(
        self, snapshot: Snapshot, task: Task, split: str, metrics: Metrics, by_cluster: Mapping[str, str] = {}
    ) -> list[dict[str, Any]]:
        compute = snapshot.compute
        spent = {
            "train_flops": compute.flops,
            "paper_flops": compute.by_lambda(task.paper_lambda),
            "measured_lambda": compute.measured_lambda,
        }
        shared = {**self.key(snapshot, split), **spent}
        return [
            {**shared, "metric": name, "value": value, "n": n, "by_cluster": by_cluster.get(name, "")}
            for name, (value, n) in metrics.items()
        ]


def cell_of(run: Run) -> Cell:
    """The cell of a run under the main protocol."""
    setting = run.setting or ("sampled" if run.experiment_name == "main" else "")
    return Cell(run.task.name, run.task.modality, run.method_name, run.experiment_name, setting, run.seed)


class Part:
    """One run's part of the tables, written after every addition. Raises TableError if what is there is damaged."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        check_part(claim(folder, identity))
        self.path, self.transcripts = folder / ROWS, folder / TRANSCRIPTS
        self.frame = tables.read(self.path) if self.path.exists() else pd.DataFrame(columns=_COLUMNS)

    def has(self, cell: Cell, snapshot: Snapshot, split: str) -> bool:
        return len(tables.select(self.frame, **cell.key(snapshot, split))) > 0

    def add(self, rows: list[dict[str, Any]], records: Sequence[dict[str, Any]] = ()) -> None:
        begun = self.path.exists() and self.transcripts.exists()
        known = self.transcripts.read_bytes() if begun else b""
        lines = [tables.transcript_line(record) for record in records]
        transcripts = known + b"".join(line for line in lines if line not in known)
        fresh_rows = pd.DataFrame(rows, columns=_COLUMNS)
        self.frame = pd.concat([self.frame, fresh_rows], ignore_index=True) if len(self.frame) else fresh_rows
        rows_text = tables.as_csv(self.frame, str(self.path))
        # The states that the files can be in from here on, whenever the process is killed.
        before = _digests(self.path.parent)
        between = {**before, TRANSCRIPTS: _digest(transcripts)}
        after = {**between, ROWS: _digest(rows_text)}
        write_atomically(self.path.with_name(STATES), json.dumps([before, between, after], indent=1) + "\n")
        if transcripts:
            write_atomically(self.transcripts, transcripts)
        write_atomically(self.path, rows_text)  # last, because the rows say that all is done


def check_part(folder: Path) -> None:
    """Raises TableError if a table in ``tests/<run>`` is not as it was written; the message says what to do.

    Without rows there is nothing to check, for they are made anew; nor what is older than ``states.json``.
    """
    cure = f"remove {folder}, and the same command repeats the test"
    if (folder / MADE_WITH).exists() and made_with(folder) is None:
        raise tables.TableError(f"{folder / MADE_WITH} is damaged, which says what the test belongs to; {cure}.")
    record = folder / STATES
    if not record.exists() or not (folder / ROWS).exists():
        return
    found = _digests(folder)
    try:
        states = json.loads(record.read_bytes())
        unknown = [name for name in found if all(state[name] != found[name] for state in states)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise tables.TableError(f"{record} is damaged ({reason(error)}); {cure}.") from error
    if found not in states:
        damaged = folder / (unknown or [TRANSCRIPTS])[0]  # the rows say which transcripts there are to be
        raise tables.TableError(f"{damaged} is not as it was written, but cut short or changed; {cure}.")


def _digests(folder: Path) -> dict[str, str]:
    """Of the files of a part; a missing one is an empty one."""
    files = [folder / name for name in (ROWS, TRANSCRIPTS)]
    return {path.name: _digest(path.read_bytes() if path.exists() else b"") for path in files}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def evaluate(run: Run) -> pd.DataFrame:
    """Test every checkpoint of a run, the ends with more episodes; its rows.

    The ends are the last checkpoint and the one where the budget is spent by the paper's lambda.
    """
    found = snapshots_of(run)
    part = Part(run.tests, run.tests_identity)
    ends = [found[-1]]
    if run.experiment.paper_end:
        budget = found[-1].compute.flops
        ends.append(min(found, key=lambda one: abs(one.compute.by_lambda(run.task.paper_lambda) - budget)))
    along = run.splits if run.experiment.along is None else run.experiment.along
    for snapshot in found:
        last = snapshot is found[-1]
        if run.experiment.test == "pass_at_k":
            if last:
                _test_samples(part, run, snapshot)
            continue
        end = snapshot in ends
        beside_the_curve = end and not last and len(found) > run.checkpoints
        splits = [split for split in run.splits if end or split in along]
        _test(part, run, snapshot, splits, end, last, not beside_the_curve)
    return part.frame


def _test(part: Part, run: Run, snapshot: Snapshot, splits: Sequence[str], end: bool, last: bool, curve: bool) -> None:
    """The paper's protocol on `splits`; at the end of main also single attempts and greedy decoding.

    An end on a curve has rows for the curve's episodes, which are its first, as well. The model is loaded only if
    something is left to play.
    """
    policy, cell, evaluation, task = policy_of(run.profile, snapshot), cell_of(run), run.study.evaluation, run.task
    batch = run.profile.rollout_batch
    both = last and cell.experiment == "main"
    shown = last and run.experiment in run.base.experiments  # no figure has transcripts of controls
    for split in splits:
        label = f"{cell.method} step {snapshot.step}: {split}"
        if not part.has(cell, snapshot, split):
            episodes = play(policy(), task, split, evaluation.protocol(end), cell.seed, batch, label)
            clusters = by_cluster(task, split, episodes, partial(task.measure, split)) if end else {}
            rows = cell.rows(snapshot, task, split, task.measure(split, episodes), clusters)
            if curve and len(episodes) > evaluation.episodes_curve:
                first = episodes[: evaluation.episodes_curve]
                rows += cell.rows(snapshot, task, split, task.measure(split, first))
            if split == "id":
                rows += cell.rows(snapshot, task, split, _kl_to_init(run, policy(), episodes))
            if both:
                single = replace(cell, setting="single")
                clusters = by_cluster(task, split, episodes, _at_once)
                rows += single.rows(snapshot, task, split, _at_once(episodes), clusters)
            records = []
            for number in kept(episodes, KEPT_TRANSCRIPTS.get(split, 2)) if shown else ():
                played = transcript(task, split, episodes[number], policy(), number)
                records.append({**cell.key(snapshot, split), **played})
            part.add(rows, records)
        greedy = replace(cell, setting="greedy")
        if both and not part.has(greedy, snapshot, split):
            how = evaluation.protocol(temperature=0.0, episodes=evaluation.episodes_greedy)
            episodes = play(policy(), task, split, how, cell.seed, batch, f"{label}, greedy")
            clusters = by_cluster(task, split, episodes, partial(task.measure, split))
            part.add(greedy.rows(snapshot, task, split, task.measure(split, episodes), clusters))


def _at_once(episodes: Sequence[Episode]) -> Metrics:
    """Success with a single attempt."""
    return {"success": within(episodes, 1)}


def by_cluster(
    task: Task, split: str, episodes: Sequence[Episode], measure: Callable[[Sequence[Episode]], Metrics]
) -> dict[str, str]:
    """The metrics of levels puzzle by puzzle (route by route), where those of a split are a sample.

    Those that verdicts and tables use: success, the task's own metric, recognition.
    """
    if split not in task.sampled:
        return {}
    groups: dict[int, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(task.cluster(episode), []).append(episode)
    found = {key: measure(group) for key, group in groups.items()}
    return {
        name: tables.clusters_text({key: metrics[name] for key, metrics in found.items()})
        for name in dict.fromkeys(("success", task.metric, "recognition"))
        if all(name in metrics for metrics in found.values())
    }


def _kl_to_init(run: Run, policy: Policy, episodes: Sequence[Episode]) -> Metrics:
    """How far the answers to training hands have moved from Init (`divergence.py`).

    {} for what does not begin at Init, and with pictures, which episodes do not keep.
    """
    if run.start is None or policy.processor is not None:
        return {}
    [init] = snapshots_of(run.init)
    return {"kl_to_init": kl(policy, policy_of(run.profile, init)(), episodes, run.study.evaluation.temperature)}


def _test_samples(part: Part, run: Run, snapshot: Snapshot) -> None:
    """pass@k: many single answers to every hand."""
    policy, cell, evaluation = policy_of(run.profile, snapshot), cell_of(run), run.study.evaluation
    for split in run.splits:
        last = _with_k(cell, evaluation.samples)
        if part.has(last, snapshot, split):
            continue
        how = evaluation.protocol(episodes=evaluation.episodes_samples, attempts=1)
        label = f"{cell.method}, {evaluation.samples} answers to a hand: {split}"
        batch = run.profile.rollout_batch
        episodes = play(policy(), run.task, split, how, cell.seed, batch, label, samples=evaluation.samples)
        rows = []
        for k, metrics in samples(episodes, evaluation.samples).items():
            rows += _with_k(cell, k).rows(snapshot, run.task, split, metrics)
        part.add(rows)


def _with_k(cell: Cell, k: int) -> Cell:
    """The cell of pass@k, with what the run varies named first."""
    return replace(cell, setting=";".join(filter(None, (cell.setting, setting_text({"k": k})))))


def policy_of(profile: Profile, snapshot: Snapshot):
    """A function that loads a checkpoint when it is first called."""

    @cache
    def load() -> Policy:
        return load_policy(snapshot.folder, profile.dtype, profile.device)

    return load


def kept(episodes: Sequence[Episode], most: int) -> list[int]:
    """Indices of the episodes to keep: the first ones, with a success and a failure among them if there are any."""
    outcomes = [episode.terminated for episode in episodes]
    either = [outcomes.index(outcome) for outcome in (True, False) if outcome in outcomes]
    return sorted(list(dict.fromkeys((*either, *range(len(episodes)))))[:most])


def evaluate_sensitivity(profile: Profile, key: str, seed: int) -> pd.DataFrame:
    """Temperature x number of attempts for Init and the ends of the main comparison.

    One long rollout per temperature is scored at every number of attempts.
    """
    study = profile.study(key)
    ends = [(run, snapshots_of(run)[-1]) for run in main_ends(profile, study, seed)]
    config, splits = study.evaluation, SENSITIVITY.tested(study.task.splits)
    identity = {run.method_name: run.identity for run, _ in ends} | test_settings(study, SENSITIVITY.name, splits)
    part = Part(paths.test_folder(profile.name, f"{key}-{SENSITIVITY.name}-s{seed}"), identity)
    most = max(config.attempts_grid)
    for run, snapshot in ends:
        policy = policy_of(profile, snapshot)
        for temperature in config.temperatures:
            cells = {
                k: replace(
                    cell_of(run),
                    experiment=SENSITIVITY.name,
                    setting=setting_text({"temperature": temperature, "attempts": k}),
                )
                for k in config.attempts_grid
            }
            for split in splits:
                if part.has(cells[most], snapshot, split):
                    continue
                how = config.protocol(attempts=most, temperature=temperature, episodes=config.episodes_sensitivity)
                label = f"{run.method_name}, T={temperature:g}: {split}"
                episodes = play(policy(), study.task, split, how, seed, profile.rollout_batch, label)
                rows = []
                for k, cell in cells.items():
                    rows += cell.rows(snapshot, study.task, split, {"success": within(episodes, k)})
                part.add(rows)
    return part.frame


def main_ends(profile: Profile, study: Study, seed: int) -> list[Run]:
    """Init and the runs of the main comparison with a seed, in the order of the methods."""
    runs = training_runs(profile, study, study.experiment("main"), seed)
    return [runs[0].init, *sorted(runs, key=lambda run: list(METHODS).index(run.method_name))]


def merge(profile: Profile, seeds: Sequence[int] = ()) -> pd.DataFrame:
    """Join what the tests of a profile's runs wrote into ``results/<profile>/metrics.csv`` and ``transcripts.jsonl``.

    A main run that is also one setting of another experiment is not trained twice: its rows are copied there.
    `seeds` keeps only those, all if empty. Raises TableError if there is no part, one is damaged or two disagree.
    """
    for folder in sorted(paths.build(profile.name).glob("tests/*/")):
        check_part(folder)
    parts = sorted(paths.build(profile.name).glob(f"tests/*/{ROWS}"))
    if not parts:
        raise tables.TableError(f"No run of profile {profile.name!r} has been tested yet.")
    frame = pd.concat(map(tables.read, parts), ignore_index=True)
    if seeds:
        frame = frame[frame["seed"].isin(seeds)]
    frame = tables.validate(
        pd.concat([frame, *_with_main_runs(profile, seeds, frame)], ignore_index=True),
        f"The runs' table of profile {profile.name!r}",
    )
    tables.write(frame, tables.metrics_path(profile.name))
    records = tables.read_parts(path.with_name(TRANSCRIPTS) for path in parts)
    tables.write_transcripts([r for r in records if not seeds or r["seed"] in seeds], profile.name)
    return frame


def _with_main_runs(profile: Profile, seeds: Sequence[int], frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of main runs that are a setting of another experiment, as rows of that experiment."""
    copies = []
    _, ablation = profile.chosen_seeds(tuple(seeds))
    for study in profile.studies:
        for experiment in (*study.experiments, *study.controls):
            if experiment.name == "main" or experiment.tests_again:
                continue
            own = tables.select(frame, task=study.task.name, modality=study.task.modality, experiment=experiment.name)
            tested = {*own["seed"], *(ablation if experiment in study.experiments else ())}
            for arm in experiment.arms:
                for setting, seed in ((s, int(seed)) for s in arm.settings for seed in sorted(tested)):
                    run = Run(profile, study.task.key, arm.method, experiment.name, setting_text(setting), seed)
                    if main := main_run(run):
                        cell = asdict(cell_of(main)) | {"split": list(experiment.tested(study.task.splits))}
                        rows = tables.select(frame, **cell)
                        copies.append(rows.assign(experiment=experiment.name, setting=run.setting))
    return [rows for rows in copies if len(rows)]
