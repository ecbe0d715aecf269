"""Trained checkpoints as players of `sftrl_lib.play`, and the small ones that come with the package.

`find_cast` takes the models that were trained here or, on a fresh machine, those below ``evaluation/shipped``: the
ends of Init, SFT and RL of one profile, one folder each, with weights in half precision and without critics. They are
made by

    python -m sftrl_lib.evaluation.players export --profile laptop

from ``build/<profile>``; ``record.json`` beside each says which run it is the end of, what made it, what its tests
gave, and how often it answers as the original does; README.md is the model card that follows from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils import logging

from .. import fingerprint, paths, provenance, tables
from ..configs import Protocol
from ..files import fresh_folder, reason, replace_folder
from ..jobs import parse_seeds, parse_tasks
from ..methods import INIT, METHODS
from ..models.checkpoint import CheckpointError
from ..models.pictures import stack_pictures
from ..models.policy import Policy, load_policy
from ..models.rollout import random_draws
from ..profiles import LAPTOP, PROFILES, SEARCH, SMOKE, Profile, Study, get_profile
from ..runs import Run
from ..task import SPLITS, Task
from ..tasks import TASKS
from ..training.snapshots import Snapshot, snapshots_of
from .cast import Answer, Cast, Observation, Player, Token
from .episodes import play
from .measurements import ROWS, main_ends
from .model_card import card

RECORD = "record.json"
LARGEST = 35 * 10**6  # bytes of all that is shipped
DTYPE = "float16"  # of shipped weights; of the two half precisions the one that keeps small models' digits
AGREEMENT = 64  # hands or routes on which a shipped model is compared with the original
TINY = 10**7  # parameters below which one thread answers faster than several
OTHERS = 3  # likeliest other tokens that are told beside each token of an answer


@dataclass(frozen=True)
class Trained:
    """Where a checkpoint stands on its branch."""

    profile: str = ""
    seed: int = 0
    step: int = 0
    train_flops: float = 0.0


@dataclass(frozen=True)
class Model(Player):
    """A player that is a checkpoint."""

    policy: Policy
    study: Study
    trained: Trained

    @property
    def task(self) -> Task:
        return self.study.task


@contextmanager
def few_threads(policy: Policy) -> Iterator[None]:
    """One thread for a tiny model: several spend their time waiting for each other, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if policy.parameters_count < TINY else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def answer(
    policy: Policy, seen: Observation, temperature: float = 1.0, max_new_tokens: int = 48, seed: int = 0
) -> Answer:
    """The model's next answer to an observation, drawn as in tests; `temperature` 0 is greedy."""
    prompt = policy.prompt(seen)
    decoding, draws = policy.decoding, random_draws([(seed, 0)], max_new_tokens)
    with few_threads(policy):
        decoding.begin(1, max_new_tokens)
        hidden = decoding.feed([prompt.ids], [prompt.picture])
        ids = decoding.answer(hidden, temperature, draws.to(policy.device))[0][0]
        # Read once more in one go, which gives the probabilities of what was not said as well.
        whole = torch.tensor([[*prompt.ids, *ids]], device=policy.device)
        picture = stack_pictures([prompt.picture], policy.device) or {}
        hidden = policy.decoder(input_ids=whole, **picture).last_hidden_state[0, len(prompt.ids) - 1 : -1]
        chances = torch.softmax(policy.logits(hidden) / (temperature or 1.0), dim=-1)
    ids = ids[:-1] if ids[-1] == policy.end_token else ids
    return Answer(tuple(_tokens(policy, ids, chances)))


def _tokens(policy: Policy, ids: Sequence[int], chances: torch.Tensor) -> Iterator[Token]:
    """The tokens of an answer; one that ends within a character of several bytes is joined with the next."""
    decode, before, probability = policy.tokenizer.decode, "", 1.0
    likeliest = chances.topk(OTHERS + 1)
    for index, token in enumerate(ids):
        text = decode(ids[: index + 1], skip_special_tokens=True)
        probability *= float(chances[index, token])
        if text.endswith("�") and index + 1 < len(ids):
            continue
        found = zip(likeliest.indices[index].tolist(), likeliest.values[index].tolist(), strict=True)
        others = [(decode([other]), chance) for other, chance in found if other != token][:OTHERS]
        yield Token(text[len(before) :], probability, tuple(others))
        before, probability = text, 1.0


def find_cast(key: str = "gp-l", profile: str = "") -> Cast:
    """Who can play a task: Init and the ends of the main comparison, of every seed that was trained.

    Those of `profile`; without one, those trained here before the shipped ones, and toys of the smoke profile only if
    there is nothing else. The bare foundation model where nothing is trained. Raises ValueError for an unknown task or
    profile, or one that does not run the task.
    """
    chosen = [get_profile(profile)] if profile else _candidates(key)
    chosen[0].study(TASKS[key].key)
    real = [_trained(known, key) for known in chosen if not known.toy]
    toys = [_trained(known, key) for known in chosen if known.toy]
    casts = [cast for cast in (*real, _shipped(key, profile), *toys) if cast]
    whole = (cast for cast in casts if not cast.note)
    return next(whole, None) or next(iter(casts), None) or _foundation(chosen[0], key)


def _candidates(key: str) -> list[Profile]:
    """The profiles that run a task, laptop first.

    Not the search for learning rates, whose models are no result. Raises ValueError if there is no such profile.
    """
    known = [profile for profile in PROFILES.values() if TASKS[key].key in [s.task.key for s in profile.studies]]
    found = sorted((p for p in known if p.name != SEARCH.name), key=lambda p: p.name != LAPTOP.name)
    if not found:
        raise ValueError(f"No profile runs {TASKS[key].label}; add a study of it to one, or play with a function.")
    return found


def _trained(profile: Profile, key: str) -> Cast | None:
    """The cast of what a profile has trained here; None if that is nothing."""
    names = (path.name for path in paths.build(profile.name).glob(f"runs/{key}-{INIT.name}-s*"))
    seeds = sorted(int(found[1]) for name in names if (found := re.fullmatch(rf"{key}-{INIT.name}-s(\d+)", name)))
    ends = {seed: list(_ends(profile, key, seed)) for seed in seeds}
    ends = {seed: found for seed, found in ends.items() if found}
    if not ends:
        return None
    wanted = [run.method.label for run in main_ends(profile, profile.study(key), next(iter(ends)))]
    there = {run.method.label for found in ends.values() for run, _ in found}
    missing = [label for label in wanted if label not in there]
    note = f"Not here: {', '.join(missing)}; {_cure(profile, key)}" if missing else ""

    @lru_cache
    def load(seed: int) -> list[Model]:
        source = f"{profile.name}, seed {seed}"
        return [
            _model(
                run.method.label, source, _load(snapshot.folder, profile), profile, key,
                Trained(profile.name, seed, snapshot.step, snapshot.compute.flops),
            )
            for run, snapshot in ends[seed]
        ]

    return Cast(tuple(ends), load, profile.toy, note)


def _ends(profile: Profile, key: str, seed: int) -> Iterator[tuple[Run, Snapshot]]:
    for run in main_ends(profile, profile.study(key), seed):
        try:
            yield run, snapshots_of(run)[-1]
        except CheckpointError:
            continue


def _shipped(key: str, profile: str = "") -> Cast | None:
    """The cast that comes with the package; None if there is none, or if it is not of `profile`.

    Raises CheckpointError if a record is damaged.
    """
    records = [read_record(file.parent) for file in sorted((paths.PLAYERS / key).glob(f"*/{RECORD}"))]
    records = [record for record in records if profile in ("", record["profile"])]
    records.sort(key=lambda record: list(METHODS).index(record["method"]))
    if not records:
        return None
    known = get_profile(records[0]["profile"])

    @lru_cache
    def load(seed: int) -> list[Model]:
        return [
            _model(
                METHODS[record["method"]].label, f"{known.name}, seed {seed}, shipped", _sound(record), known, key,
                Trained(known.name, seed, record["step"], record["train_flops"]),
            )
            for record in records
            if record["seed"] == seed
        ]

    return Cast(tuple(sorted({record["seed"] for record in records})), load, known.toy)


def _foundation(profile: Profile, key: str) -> Cast:
    """The bare foundation model, and how to get more."""
    policy = _load(profile.study(key).foundation, profile)
    player = _model("Foundation", "no SFT", policy, profile, key)
    note = "No trained models here, so only the foundation model plays, which was never taught the answer format; "
    return Cast((0,), lambda seed: [player], note=note + _cure(profile, key))


def _cure(profile: Profile, key: str) -> str:
    if profile == SMOKE:
        return "`make smoke` trains toys in minutes."
    all_of_them = f"`make reproduce PROFILE={profile.name} TASKS={TASKS[key].label}`"
    return f"{all_of_them} trains all of them, `make smoke` toys in minutes."


def _load(source: str | Path, profile: Profile) -> Policy:
    logging.disable_progress_bar()  # nothing to wait for
    return load_policy(source, profile.dtype, profile.device)


def _model(
    name: str, source: str, policy: Policy, profile: Profile, key: str, trained: Trained = Trained()
) -> Model:
    study = profile.study(key)

    def say(seen: Observation, temperature: float, seed: int) -> Answer:
        return answer(policy, seen, temperature, study.evaluation.max_new_tokens, seed)

    return Model(name, source, say, policy, study, trained)


def quick_look(cast: Cast, episodes: int = 100, seed: int = 0, attempts: int = 5) -> pd.DataFrame:
    """Success of a cast's first seed under its training rule and under the new one, on the same hands for all.

    Rows: players. Columns: splits. Cells: the share of `episodes` solved, in percent.
    """
    rows: dict[str, dict[str, float]] = {}
    for player in cast.load(cast.seeds[0]):
        how = Protocol(episodes, attempts, 1.0, player.study.evaluation.max_new_tokens)
        for split in ("id", "rule_ood"):
            with few_threads(player.policy):
                ended = play(player.policy, player.task, split, how, seed, description=f"{player.name}, {split}")
            solved = sum(episode.terminated for episode in ended)
            rows.setdefault(player.name, {})[SPLITS[split].label] = 100 * solved / episodes
    return pd.DataFrame.from_dict(rows, orient="index")


# Shipping


def export(profile: Profile, seeds: Sequence[int] = (), studies: Sequence[Study] = ()) -> Path:
    """Write the ends of Init and of the main comparison: of all `studies`, for `seeds` (the profile's first if empty).

    What was shipped before is replaced as a whole, and stays if anything fails. Raises CheckpointError if a run is not
    there, ValueError if a profile trains adapters or all together is larger than `LARGEST`.
    """
    if profile.lora:
        raise ValueError(f"The profile {profile.name!r} trains adapters, which need their base model; export another.")
    seeds = seeds or profile.seeds[:1]
    runs = [run for study in studies or profile.studies for seed in seeds for run in main_ends(profile, study, seed)]
    ends = [(run, snapshots_of(run)[-1]) for run in runs]
    fresh = fresh_folder(paths.PLAYERS)
    for run, snapshot in ends:
        folder = fresh / run.key / f"{run.method_name}-s{run.seed}"
        folder.mkdir(parents=True)
        _write(folder, run, snapshot)
    size = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
    if size > LARGEST:
        raise ValueError(f"{len(ends)} models take {size / 1e6:.1f} MB, over {LARGEST / 1e6:g}; give fewer seeds.")
    replace_folder(fresh, paths.PLAYERS)
    return paths.PLAYERS


def _write(folder: Path, run: Run, snapshot: Snapshot) -> None:
    policy = _load(snapshot.folder, replace(run.profile, dtype=DTYPE, device="cpu"))
    policy.value_head = None
    policy.save(folder)
    record = {
        "run": run.name,
        "profile": run.profile.name,
        "task": run.key,
        "method": run.method_name,
        "seed": run.seed,
        "step": snapshot.step,
        "train_flops": snapshot.compute.flops,
        "identity": fingerprint.digest(run.identity),
        "dtype": DTYPE,
        "sha256": _sha256(folder),
        "made_from_sha256": _sha256(snapshot.folder),
        "tested": _tested(run, snapshot),
        "same_greedy_answers": _agreement(folder, run, snapshot),
        "exported": provenance.origin(),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(record), encoding="utf-8")


def _tested(run: Run, snapshot: Snapshot) -> dict[str, Any]:
    """The main metric of the run's own tests by split, with n; empty if it was not tested."""
    if not (run.tests / ROWS).exists():
        return {}
    rows = tables.select(tables.read(run.tests / ROWS), setting="sampled", step=snapshot.step, metric=run.task.metric)
    return {row.split: {run.task.metric: row.value, "n": row.n} for row in rows.itertuples()}


def _agreement(folder: Path, run: Run, snapshot: Snapshot) -> dict[str, float]:
    """On how many hands or routes the first greedy answer is the original's, as a share with n."""
    how = Protocol(AGREEMENT, 1, 0.0, run.study.evaluation.max_new_tokens)
    said = []
    for source in (folder, snapshot.folder):
        policy = _load(source, replace(run.profile, dtype="float32", device="cpu"))
        said.append([episode.attempts[0].text for episode in play(policy, run.task, "id", how, 0)])
    return {"share": sum(a == b for a, b in zip(*said, strict=True)) / AGREEMENT, "n": AGREEMENT}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a shipped model, with its folder. Raises CheckpointError if it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = record["method"] in METHODS and record["profile"] in PROFILES and type(record["seed"]) is int
        if not known or not isinstance(record["sha256"], str):
            raise ValueError("it names no known run")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder / RECORD} is damaged ({reason(error)}); restore the file.") from error
    return {**record, "folder": folder}


def _sound(record: Mapping[str, Any]) -> Policy:
    """The model of a record. Raises CheckpointError unless its weights are those that were exported."""
    folder = record["folder"]
    if not (folder / "model.safetensors").is_file() or _sha256(folder) != record["sha256"]:
        raise CheckpointError(f"{folder / 'model.safetensors'} is not what its record says; restore the file.")
    return _load(folder, replace(get_profile(record["profile"]), dtype="float32"))


def _sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.evaluation.players", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("export",))
    parser.add_argument("--profile", default="laptop", help="default: laptop")
    parser.add_argument("--seeds", help='default: the first of the profile; as in "0 1"')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    options = parser.parse_args(arguments)
    try:
        profile = get_profile(options.profile)
        folder = export(profile, parse_seeds(options.seeds), parse_tasks(profile, options.tasks))
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"The players of profile {options.profile} are in {folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
