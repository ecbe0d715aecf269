"""Questions with the expert's answers as JSON lines, for frameworks that take a file of prompts.

    python -m sftrl_lib.interfaces.export --task gp-l --split rule_ood -n 1000 --out points.jsonl

A line holds `prompt` (OpenAI's messages; pictures as PNG in base64), `answer`, what a reward needs (GeneralPoints:
`cards`, `rule`, `target`; navigation: `action`, `actions`), and `info`, from which `interfaces.questions.Play` makes
the question again. The split `train` is the training environment; the others are the tests' own hands and routes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..files import write_atomically
from ..task import Task
from ..tasks import TASKS
from .questions import TRAIN, as_openai, questions


def lines(task: Task, split: str = TRAIN, count: int = 1_000, seed: int = 0) -> list[str]:
    """The questions of `interfaces.questions.questions`, each as one line of JSON."""
    found = []
    for row in questions(task, split, count, seed):
        prompt = as_openai(row["prompt"], row.pop("image", None))
        found.append(json.dumps({**row, "prompt": prompt}))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.interfaces.export", description=__doc__.split("\n\n")[0])
    parser.add_argument("--task", default="gp-l", help=", ".join(TASKS))
    parser.add_argument("--split", default=TRAIN, help=f"{TRAIN} (default), or one of the task's tests")
    parser.add_argument("-n", type=int, default=1_000, help="number of questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file to write; default: standard output")
    options = parser.parse_args(arguments)
    try:
        text = "".join(f"{line}\n" for line in lines(TASKS[options.task], options.split, options.n, options.seed))
        if options.out is None:
            sys.stdout.write(text)
        else:
            write_atomically(options.out, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
