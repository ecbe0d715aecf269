"""A fault campaign: a run is killed, starved of disk and damaged, and must end in the same results or say why not.

    python tests/fault_campaign.py                        every fault on a small run (`test_fault_campaign.py`)
    python tests/fault_campaign.py --pipeline --kills 27  kill -9 of `make smoke TASKS=GP-L`, notebooks and all

A kill takes the whole process group, at a random moment or as soon as a chosen kind of file appears; then the same
command again, until a run ends: its tables, figures and checkpoints must be those of the uninterrupted run, byte for
byte. Flipped bits are put into the small run: into one file of each kind, and what was made from it is removed.

A campaign that is stopped goes on when the same command is given again (``--work``), and prints what it has so far.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SMALL_RUN = """
from sftrl_lib.evaluation.measurements import evaluate, merge
from sftrl_lib.profiles import get_profile
from sftrl_lib.provenance import merge_logs
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import train

profile = get_profile("toy")
for method in ("init", "sft", "rl"):
    run = Run(profile, "sums", method)
    train(run)
    evaluate(run)
merge(profile)
merge_logs(profile.name)
"""
SMALL_MODEL = ROOT / "sftrl_lib" / "foundation" / "shipped" / "gp-l"
MOMENTS = {  # what appears below build/ at the moments that a kill is aimed at
    "a dataset": "**/data/*/dataset",
    "a training checkpoint": "**/training/*",
    "a snapshot": "**/step-*",
    "a row of a table": "**/tests/*/metrics.csv",
    "an executed notebook": "*/0*.ipynb",
    "a random moment": "",
}
COMPARED = ("results/**/*", "figures/**/*", "build/*/runs/*/step-*[0-9]/*")
SENTENCE = "named in one sentence"
HARMLESS = "not needed or made again, with the same results"


@dataclass
class Campaign:
    """One command, run in homes of its own, and what it leaves when nothing goes wrong."""

    command: list[str]
    environment: dict[str, str]
    work: Path
    seed: int = 0
    seconds: float = 0.0  # of an uninterrupted run
    tally: dict[str, Any] = field(default_factory=dict)  # what happened so far, as in ``work/tally.json``

    def __post_init__(self) -> None:
        kept = self.work / "tally.json"
        if kept.exists():
            self.tally = json.loads(kept.read_text(encoding="utf-8"))
            self.seconds = self.tally["seconds"]

    def count(self, what: str, name: str, outcome: Any = 1) -> None:
        """Add to a number of the tally, or note an outcome; it is on the disk when this returns."""
        counts = self.tally.setdefault(what, {})
        counts[name] = counts.get(name, 0) + outcome if isinstance(outcome, int) else outcome
        fresh = self.work / "tally.json.new"
        fresh.write_text(json.dumps(self.tally, indent=1), encoding="utf-8")
        fresh.replace(self.work / "tally.json")

    def start(self, home: Path, limit: int | None = None) -> subprocess.Popen:
        """Start the command as the leader of a process group; `limit`: the largest file in bytes that it may write."""

        def starve() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk is an error, not a signal

        environment = {**self.environment, "SFTRL_HOME": str(home)}
        with (self.work / "stderr.txt").open("w") as errors:
            return subprocess.Popen(
                self.command, env=environment, cwd=ROOT, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=starve if limit else None,
            )  # fmt: skip

    def finish(self, home: Path, limit: int | None = None) -> tuple[int, str]:
        """Run to the end; exit status and the last line of standard error."""
        process = self.start(home, limit)
        try:
            process.wait()
        finally:
            end(process)
        said = (self.work / "stderr.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return process.returncode, said[-1].replace(f"{home}/", "") if said else ""

    def results(self, home: Path) -> dict[str, bytes]:
        """What is compared; the manifest is not, because it says how long everything took."""
        files = sorted(path for pattern in COMPARED for path in home.glob(pattern) if path.is_file())
        return {str(path.relative_to(home)): path.read_bytes() for path in files if path.name != "manifest.json"}

    @property
    def expected(self) -> dict[str, bytes]:
        return self.results(self.work / "whole")

    def rehearse(self) -> None:
        """The uninterrupted run."""
        if "compared" in self.tally:
            return
        home, began = self.work / "whole", time.monotonic()
        shutil.rmtree(home, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        status, said = self.finish(home)
        assert status == 0, said
        assert self.expected, "the run has written no results"
        self.seconds = self.tally["seconds"] = time.monotonic() - began
        self.count("compared", "files", {"number": len(self.expected), "bytes": sum(map(len, self.expected.values()))})

    def kill(self, home: Path, moment: str, rng: random.Random) -> bool:
        """Start the command and kill it at `moment`; False if it had ended before."""
        pattern, before = MOMENTS[moment], set()
        if pattern:
            before = set((home / "build").glob(pattern))
        process, began = self.start(home), time.monotonic()
        until = began + rng.uniform(0.1, 1.0) * self.seconds
        try:
            while process.poll() is None and (pattern or time.monotonic() < until):
                if pattern and set((home / "build").glob(pattern)) - before:
                    break
                time.sleep(0.005)
            return process.poll() is None
        finally:
            end(process)

    def survives(self, home: Path) -> None:
        """The same command again gives the uninterrupted run's results."""
        status, said = self.finish(home)
        assert status == 0, said
        expected, found = self.expected, self.results(home)
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        assert not differing, f"differing after a restart: {differing} in {home}"

    def kills(self, count: int) -> int:
        """Kill until `count` kills have fallen on a running process, at every kind of moment and at random ones.

        Whenever a run gets to its end, it is compared, and the next one starts from nothing. Returns how many fell.
        """
        home, never = self.work / "killed", set(self.tally.get("never", {}))
        hit = self.tally.setdefault("kills", {})
        while sum(hit.values()) < count:
            rng = random.Random(f"{self.seed}/{sum(hit.values())}/{self.tally.get('ends', {})}")
            moment = min((m for m in MOMENTS if m not in never), key=lambda m: hit.get(m, 0))
            fresh = not home.exists()
            if self.kill(home, moment, rng):
                self.count("kills", moment)
                continue
            if fresh:  # a whole run without it
                never.add(moment)
                self.count("never", moment)
            self.count("ends", "compared", self._compared(home))
        if home.exists():
            self.count("ends", "compared", self._compared(home))
        return sum(hit.values())

    def _compared(self, home: Path) -> int:
        self.survives(home)
        shutil.rmtree(home)
        return 1

    def full_disk(self, limit: int) -> str:
        """No file may grow beyond `limit` bytes: the run fails with a sentence, and succeeds once there is room."""
        home = self.work / "full"
        shutil.rmtree(home, ignore_errors=True)
        status, said = self.finish(home, limit)
        assert status != 0, "the run did not notice that it could not write"
        self.survives(home)
        shutil.rmtree(home)
        self.count("full disk", str(limit), said)
        return said

    def flips(self, *only: str) -> dict[str, str]:
        """Flip a bit in the middle of one file of each kind of a finished run, and run it again.

        What was made from that file is removed, so that it is read. Either the results come out as they were, or the
        run ends with a sentence that names the file. `only`: some kinds, as `kind_of` calls them.
        """
        whole, kinds = self.work / "whole", {}
        for path in sorted((whole / "build").rglob("*")):
            if path.is_file() and path.stat().st_size > 2 and "views" not in path.parts:
                kinds.setdefault(kind_of(path.relative_to(whole)), path.relative_to(whole))
        for kind, victim in kinds.items():
            if kind not in self.tally.get("flips", {}) and (not only or kind in only):
                self.count("flips", kind, self._flip(victim))
        return self.tally["flips"]

    def _flip(self, victim: Path) -> str:
        home = self.work / "flipped"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.work / "whole", home)
        forget_what_was_made_of(home, victim)
        content = bytearray((home / victim).read_bytes())
        content[len(content) // 2] ^= 0x01
        (home / victim).write_bytes(bytes(content))
        status, said = self.finish(home)
        if status == 0:
            return HARMLESS if self.results(home) == self.expected else "OTHER RESULTS, SILENTLY"
        named = victim.name in said or victim.parent.name in said
        return f"{SENTENCE if named else 'NOT NAMED'}: {said}"

    def summary(self) -> str:
        """What has been tried and what came of it, a few lines to be pasted."""
        if "compared" not in self.tally:
            return "* No run has got to its end yet."
        kills, files = self.tally.get("kills", {}), self.tally["compared"]["files"]
        lines = [f"* An uninterrupted run takes {self.seconds:.0f} s."]
        if kills:
            moments = ", ".join(f"{number} at {moment}" for moment, number in kills.items())
            ends = self.tally.get("ends", {}).get("compared", 0)
            lines += [
                f"* {sum(kills.values())} kills ({moments}), and as many restarts.",
                f"* Runs that got to their end after kills: {ends}. All {files['number']} files of tables, figures and "
                f"checkpoints ({files['bytes'] / 1e6:.1f} MB) were equal to the uninterrupted run's, byte for byte.",
            ]
        for limit, said in self.tally.get("full disk", {}).items():
            lines.append(f"* No file above {limit} bytes: the run stops (`{said}`). With room it ends the same.")
        outcomes = self.tally.get("flips", {})
        for start in dict.fromkeys(outcome.partition(":")[0] for outcome in outcomes.values()):
            found = sorted(kind for kind, outcome in outcomes.items() if outcome.startswith(start))
            what = start if start in (SENTENCE, HARMLESS) else outcomes[found[0]]
            lines.append(f"* A flipped bit in {len(found)} kinds of files, {what}: {', '.join(found)}.")
        return "\n".join(lines)


def end(process: subprocess.Popen) -> None:
    """Kill the whole process group, unless it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kind_of(file: Path) -> str:
    """For example "step/model.safetensors" for all snapshots' weights; a run's own files go by what the run does."""
    folder = file.parent.name.partition("-")[0]
    return f"{file.parts[2].removesuffix('s')}/{file.name}" if len(file.parts) == 5 else f"{folder}/{file.name}"


def forget_what_was_made_of(home: Path, victim: Path) -> None:
    """Remove the results, every run, test and dataset that is later than the one that `victim` is in, and from this
    one what a training checkpoint leads to."""
    for name in ("results", "figures"):
        shutil.rmtree(home / name, ignore_errors=True)
    own = home / Path(*victim.parts[:4])  # build/<profile>/runs/<run>

    def began(unit: Path) -> int:
        return (unit / "made_with.json").stat().st_mtime_ns

    units = [path.parent for path in (home / "build").glob("*/*/*/made_with.json")]
    for unit in units if own in units else ():
        if began(unit) > began(own):
            shutil.rmtree(unit)
    if "training" in victim.parts:
        for path in (own / "finished", own / "log.json", own / "digests.json"):
            path.unlink(missing_ok=True)
        for snapshot in own.glob("step-*"):
            shutil.rmtree(snapshot)


def small_campaign(work: Path, model: Path, seed: int = 0) -> Campaign:
    """The campaign on the toy profile, in one process without notebooks."""
    environment = {
        **os.environ,
        "SFTRL_EXTENSIONS": "toy_extension",
        "TOY_MODEL": str(model),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return Campaign([sys.executable, "-c", SMALL_RUN], environment, work, seed)


def pipeline_campaign(work: Path, seed: int = 0) -> Campaign:
    """The campaign on `make smoke TASKS=GP-L`."""
    command = ["make", "reproduce", "PROFILE=smoke", "TASKS=GP-L"]
    return Campaign(command, dict(os.environ), work, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", action="store_true", help="kill make smoke TASKS=GP-L in place of the small run")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=SMALL_MODEL, help="with a chat template, for the small run")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fault_campaign", help="what is there goes on")
    parser.add_argument("--fresh", action="store_true", help="starts over, as is to be done after a change of code")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    small = small_campaign(options.work.resolve() / "small", options.model, options.seed)
    killed = pipeline_campaign(options.work.resolve() / "pipeline", options.seed) if options.pipeline else small
    steps: list[Callable[[], Any]] = [
        killed.rehearse, lambda: killed.kills(options.kills),
        small.rehearse, lambda: small.full_disk(20_000), small.flips,
    ]  # fmt: skip
    status = 0
    try:
        for step in steps:
            step()
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.")
        status = 130
    except AssertionError as failure:
        print(f"FAILED: {failure}")
        status = 1
    for campaign in (small,) if killed is small else (killed, small):
        print(campaign.summary())
    outcomes = small.tally.get("flips", {}).values()
    return status or int(any(not outcome.startswith((SENTENCE, HARMLESS)) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
