"""A fault campaign: a run is killed, starved of disk and damaged, and must end in the same tables or say what is wrong.

    python tests/fault_campaign.py                       every fault on a small run (`test_fault_campaign.py`)
    python tests/fault_campaign.py --pipeline --kills 27  kill -9 of `make smoke TASKS=GP-L`, notebooks and all

A kill takes the whole process group, at a random moment or as soon as a chosen kind of file appears; then the same
command again. What is compared, byte for byte, is everything below ``results/``.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SMALL_RUN = """
from sftrl_lib.evaluation.measurements import evaluate, merge
from sftrl_lib.profiles import get_profile
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import train

profile = get_profile("toy")
for method in ("init", "sft", "rl"):
    run = Run(profile, "sums", method)
    train(run)
    evaluate(run)
merge(profile)
"""
MOMENTS = {  # what appears below build/ at the moments that a kill is aimed at
    "a dataset": "**/data/*/dataset",
    "a training checkpoint": "**/training/*",
    "a snapshot": "**/step-*",
    "a row of a table": "**/tests/*/metrics.csv",
    "an executed notebook": "*/0*.ipynb",
}


@dataclass
class Campaign:
    """One command, run in homes of its own, and what it leaves when nothing goes wrong."""

    command: list[str]
    environment: dict[str, str]
    work: Path
    rng: random.Random
    seconds: float = 0.0  # of an uninterrupted run
    expected: dict[str, bytes] = field(default_factory=dict)

    def start(self, home: Path, limit: int | None = None) -> subprocess.Popen:
        """Start the command as the leader of a process group; `limit`: the largest file in bytes that it may write."""

        def starve() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk is an error, not a signal

        environment = {**self.environment, "SFTRL_HOME": str(home)}
        return subprocess.Popen(
            self.command, env=environment, cwd=ROOT, start_new_session=True, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=starve if limit else None,
        )  # fmt: skip

    def finish(self, home: Path, limit: int | None = None) -> tuple[int, str]:
        """Run to the end; exit status and the last line of standard error."""
        process = self.start(home, limit)
        errors = process.communicate()[1].strip().splitlines()
        return process.returncode, errors[-1] if errors else ""

    def results(self, home: Path) -> dict[str, bytes]:
        folder = home / "results"
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def rehearse(self) -> None:
        """The uninterrupted run."""
        home, began = self.work / "whole", time.monotonic()
        status, said = self.finish(home)
        assert status == 0, said
        self.seconds, self.expected = time.monotonic() - began, self.results(home)
        assert self.expected, "the run has written no results"

    def kill(self, home: Path, moment: str = "") -> bool:
        """Start the command and kill it at a random moment, or when `moment` comes; whether it was still running."""
        process, began = self.start(home), time.monotonic()
        pattern, before = MOMENTS.get(moment), set()
        if pattern:
            before = set((home / "build").glob(pattern))
        until = began + self.rng.uniform(0.1, 1.0) * self.seconds
        while process.poll() is None and time.monotonic() < (began + 3 * self.seconds if pattern else until):
            if pattern and set((home / "build").glob(pattern)) - before:
                break
            time.sleep(0.005)
        alive = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if alive else None
        process.communicate()
        return alive

    def survives(self, home: Path) -> None:
        """The same command again gives the uninterrupted run's results."""
        status, said = self.finish(home)
        assert status == 0, said
        found = self.results(home)
        differing = [name for name in self.expected if found.get(name) != self.expected[name]]
        assert found.keys() == self.expected.keys() and not differing, f"differing after a restart: {differing}"

    def kills(self, count: int) -> int:
        """Kill at every kind of moment and at random ones, then compare; how many kills fell on a running process."""
        home, fell = self.work / "killed", 0
        for number in range(count):
            moments = list(MOMENTS)
            fell += self.kill(home, moments[number] if number < len(moments) else "")
        self.survives(home)
        shutil.rmtree(home)
        return fell

    def full_disk(self, limit: int) -> str:
        """No file may grow beyond `limit` bytes: the run fails with a sentence, and succeeds once there is room."""
        home = self.work / "full"
        status, said = self.finish(home, limit)
        assert status != 0, "the run did not notice that it could not write"
        self.survives(home)
        shutil.rmtree(home)
        return said

    def flips(self) -> dict[str, str]:
        """Flip a byte in the middle of one file of each kind of a finished run, and run it again.

        Either the results come out as they were, or the run ends with a sentence that names the file.
        """
        outcomes = {}
        whole = self.work / "whole"
        kinds: dict[str, Path] = {}
        for path in sorted((whole / "build").rglob("*")):
            if path.is_file() and path.stat().st_size > 2:
                kinds.setdefault(f"{path.parent.name.partition('-')[0]}/{path.name}", path)
        for kind, path in kinds.items():
            home = self.work / "flipped"
            shutil.copytree(whole, home)
            victim = home / path.relative_to(whole)
            content = bytearray(victim.read_bytes())
            content[len(content) // 2] ^= 0x01
            victim.write_bytes(bytes(content))
            status, said = self.finish(home)
            if status == 0:
                same = self.results(home) == self.expected
                outcomes[kind] = "the same results" if same else "OTHER RESULTS, SILENTLY"
            else:
                named = victim.name in said or victim.parent.name in said
                outcomes[kind] = f"{'named' if named else 'NOT NAMED'}: {said}"
            shutil.rmtree(home)
        return outcomes


def small_campaign(work: Path, model: Path, seed: int = 0) -> Campaign:
    """The campaign on the toy profile, in one process without notebooks."""
    environment = {
        **os.environ,
        "SFTRL_EXTENSIONS": "toy_extension",
        "TOY_MODEL": str(model),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    return Campaign([sys.executable, "-c", SMALL_RUN], environment, work, random.Random(seed))


def pipeline_campaign(work: Path, seed: int = 0) -> Campaign:
    """The campaign on `make smoke TASKS=GP-L`."""
    command = ["make", "reproduce", "PROFILE=smoke", "TASKS=GP-L"]
    return Campaign(command, dict(os.environ), work, random.Random(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", action="store_true", help="make smoke TASKS=GP-L in place of the small run")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a small model with a chat template, for the small run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.pipeline:
            campaign = pipeline_campaign(work, options.seed)
        else:
            campaign = small_campaign(work, options.model or ROOT / "sftrl_lib" / "foundation" / "shipped" / "gp-l", 0)
        campaign.rehearse()
        print(f"uninterrupted: {campaign.seconds:.0f} s, {len(campaign.expected)} files of results")
        print(f"{campaign.kills(options.kills)} kills of {options.kills} fell on a running process; the same results")
        if not options.pipeline:
            print(f"full disk: {campaign.full_disk(20_000)}")
            for kind, outcome in campaign.flips().items():
                print(f"a flipped bit in {kind:40} {outcome}")


if __name__ == "__main__":
    main()
