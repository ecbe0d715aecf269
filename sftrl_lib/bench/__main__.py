"""The command line of `make bench`:

    python -m sftrl_lib.bench                                   the shipped model of GP-L, on one CPU thread
    python -m sftrl_lib.bench --device cuda --model FOLDER --task gp-l --dtype bfloat16
    python -m sftrl_lib.bench --quick                           toy sizes, into results/bench_quick
    python -m sftrl_lib.bench --document                        bring the results in SPEED.md up to date

Prints a card; writes ``results/bench/NAME.json`` and ``figures/bench/NAME.{png,pdf,json}``, the machine's NAME.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from .. import paths
from ..configs import PPOConfig
from ..execution import parse_threads
from ..files import write_atomically
from ..profiles import LAPTOP
from ..profiles.study import DTYPES
from ..provenance import machine
from ..tasks import TASKS
from . import card

SPEED = paths.ROOT / "SPEED.md"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="", help="cpu (default), cuda, cuda:1, ... or auto")
    parser.add_argument("--model", default="", help="a shipped model, a folder or a hub name; default: the task's own")
    parser.add_argument("--task", default="", help="default: gp-l")
    parser.add_argument("--dtype", default="", help="of the weights: float32 (default), bfloat16 or float16")
    parser.add_argument("--threads", default="", help="default: 1")
    parser.add_argument("--name", default="", help="of the machine, in file names; default: its processor or GPU")
    parser.add_argument("--repeats", type=int, help="of every engine; default: 5")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works")
    parser.add_argument("--document", action="store_true", help="only write the results into SPEED.md")
    options = parser.parse_args(arguments)
    try:
        if options.document:
            write_atomically(SPEED, card.document(SPEED))
            return 0
        return _bench(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2


def _bench(options: argparse.Namespace) -> int:
    dtype, folder = options.dtype or "float32", "bench_quick" if options.quick else card.FOLDER
    known = [name for name in DTYPES if name != "mixed"]  # whose rate would be neither type's
    if dtype not in known:
        raise ValueError(f"DTYPE={dtype!r} is not known; use one of {', '.join(known)}.")
    task, threads = TASKS[options.task or "gp-l"], parse_threads(options.threads)
    name = options.model or task.key  # shipped models are called like their tasks
    config = next((study.ppo for study in LAPTOP.studies if study.task.key == task.key), PPOConfig())

    import torch
    from transformers.utils import logging

    from ..figures.speed import speed
    from ..figures.style import save_figure
    from ..models.policy import load_policy
    from ..models.sources import pick_device
    from .check import WrongAnswers
    from .measure import PLANS, QUICK, Bench

    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # TRL calls parts of transformers by their old names
    torch.set_num_threads(threads)
    device = pick_device(options.device or "cpu")
    gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if gpu else machine().partition(", cores:")[0]
    file = card.path(options.name or card.slug(processor), folder)
    if file.exists():
        card.read(file)  # raises if its other rows could not be kept
    plan = QUICK if options.quick else PLANS["cuda" if gpu else "cpu"]
    plan = replace(plan, repeats=plan.repeats if options.repeats is None else options.repeats)
    policy = load_policy(name, dtype, str(device))
    try:
        rows = Bench(policy, model_name(name), task, config, plan, processor, _say).run()
    except WrongAnswers as problem:
        print(f"Nothing was timed: {problem}", file=sys.stderr)
        return 1
    save_figure(speed(card.merge(rows, file)), file.stem, folder)
    print(f"\n{card.card(rows)}")
    written = (file, paths.figures(folder) / f"{file.stem}.png")
    print("written  " + "  ".join(str(path.relative_to(paths.HOME)) for path in written))
    return 0


def model_name(model: str) -> str:
    """What a model is called in results: a folder by its place below SFTRL_HOME, or by its last name."""
    folder = Path(model).resolve()
    if paths.shipped(model) or not folder.is_dir():
        return model
    return folder.relative_to(paths.HOME).as_posix() if folder.is_relative_to(paths.HOME) else folder.name


def _say(line: str) -> None:
    print(f"... {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
