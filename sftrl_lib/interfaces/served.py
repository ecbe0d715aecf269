"""Test a served model on the tasks: any endpoint that speaks OpenAI's chat completions, local or hosted.

    python -m sftrl_lib.interfaces.served --url http://127.0.0.1:8000/v1 --model NAME --task gp-l --episodes 200

The hands and routes, attempts, feedback, verifier and metrics are those of this project's own checkpoints. Answers are
written down as they come (answers.jsonl), so that an interrupted test goes on where it stopped, and nothing is paid for
twice. A key, if the endpoint wants one, is read from OPENAI_API_KEY and written nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..configs import check, check_number, check_whole
from ..evaluation.quick import table
from ..files import write_atomically
from ..models.rollout import Attempt, Conversation, Episode
from ..seeds import resets
from ..task import Task
from ..tasks import TASKS
from .questions import as_openai

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # HTTP statuses after which trying again may help
_LONGEST_WAIT = 60.0  # seconds between two tries


class EndpointError(RuntimeError):
    """The endpoint does not answer, or not as it should; the message says what to do."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how to ask it."""

    url: str  # up to and without /chat/completions
    model: str
    temperature: float = 1.0
    max_tokens: int = 512  # per answer
    timeout: float = 120.0  # seconds per answer
    tries: int = 6
    key: str = ""

    def __post_init__(self) -> None:
        check(self, "url", self.url.startswith(("http://", "https://")), "an address as in http://127.0.0.1:8000/v1")
        check_number(self, "temperature")
        check_number(self, "timeout", above=True)
        check_whole(self, "max_tokens", "tries")

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, int]]:
        """The model's answer and its tokens, {"prompt_tokens": ..., "completion_tokens": ...}.

        Tries again, ever later, while the endpoint is overloaded or away. Raises EndpointError.
        """
        asked = {"model": self.model, "messages": messages, "temperature": self.temperature}
        body = json.dumps({**asked, "max_tokens": self.max_tokens}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        for attempt in range(1, self.tries + 1):
            request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return _read(json.load(response))
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}: {error.read(500).decode(errors='replace').strip()}"
                if error.code not in _PASSING:
                    break
            except (OSError, ValueError) as error:  # no connection, a timeout, a broken answer
                problem = str(error)
            if attempt < self.tries:
                time.sleep(min(_LONGEST_WAIT, 2.0**attempt) * random.uniform(0.5, 1.0) * _PACE)
        raise EndpointError(f"{self.url} gives no answer of {self.model!r} ({problem}); what came so far is kept.")


_PACE = 1.0  # factor on all waits; tests wait less


def _read(reply: Any) -> tuple[str, dict[str, int]]:
    try:
        text = reply["choices"][0]["message"]["content"] or ""
        usage = reply.get("usage") or {}
        tokens = {name: int(usage.get(name, 0)) for name in ("prompt_tokens", "completion_tokens")}
        if not isinstance(text, str):
            raise TypeError(f"content is {type(text).__name__}")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {error!r}") from error
    return text, tokens


class Answers:
    """The answers so far, by (split, episode), in a file to which every answer is added as it comes."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.texts: dict[tuple[str, int], list[str]] = {}
        self.tokens = {"prompt_tokens": 0, "completion_tokens": 0}
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
        for line in written.splitlines():
            try:
                self._count(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill cut off: its answer is asked for again
        if written and not written.endswith("\n"):
            path.write_text(written + "\n", encoding="utf-8")

    def add(self, split: str, episode: int, text: str, tokens: Mapping[str, int]) -> None:
        row = {"split": split, "episode": episode, "answer": text, **tokens}
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            self._count(row)

    def _count(self, row: Mapping[str, Any]) -> None:
        self.texts.setdefault((row["split"], row["episode"]), []).append(str(row["answer"]))
        for name in self.tokens:
            self.tokens[name] += row[name]


def play(
    endpoint: Endpoint,
    task: Task,
    split: str,
    count: int,
    attempts: int,
    answers: Answers,
    seed: int = 0,
    at_once: int = 8,
) -> list[Episode]:
    """Play `count` hands or routes of a split, `at_once` of them at a time; those of `evaluation.episodes.play`.

    Answers that are known are not asked for again. Raises EndpointError, and ValueError for an unknown split.
    """
    arguments, starts = task.split(split), resets(task, split, seed, count)
    known = {number: list(answers.texts.get((split, number), ())) for number in range(count)}

    def one(number: int) -> Episode:
        env, said = task.make_env(arguments, attempts), iter(known[number])
        observation, info = env.reset(**starts[number])
        episode = Episode([Conversation([])], info)
        first = observation["messages"][0]
        while not (episode.terminated or episode.truncated):
            text = next(said, None)
            if text is None:
                text, tokens = endpoint.answer(as_openai(observation["messages"], observation.get("image")))
                answers.add(split, number, text, tokens)
            if observation["messages"][0] != first:  # a prompt that was rewritten: the next question
                first = observation["messages"][0]
                episode.conversations.append(Conversation([]))
            observation, reward, episode.terminated, episode.truncated, info = env.step(text)
            attempt = Attempt(0, 0, [], 0.0, text, float(reward), info["outcome"], info["feedback"])
            episode.conversations[-1].attempts.append(attempt)
        return episode

    pool = ThreadPoolExecutor(at_once)
    try:
        return list(tqdm(pool.map(one, range(count)), total=count, desc=f"{task.label} {split}", unit=task.unit))
    finally:
        pool.shutdown(cancel_futures=True)


def main(arguments: list[str] | None = None) -> int:
    """Test a served model; prints the table and writes it beside the answers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", required=True, help="as in http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="gp-l", help=", ".join(TASKS))
    parser.add_argument("--splits", nargs="*", help="default: all of the task")
    parser.add_argument("--episodes", type=int, default=200, help="per split")
    parser.add_argument("--attempts", type=int, default=0, help="per question; default: the paper's, 5 or 2")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=512, help="per answer")
    parser.add_argument("--at-once", type=int, default=8, help="requests at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the hands or routes")
    parser.add_argument("--prices", nargs=2, type=float, default=(0.0, 0.0), help="per million tokens read, written")
    parser.add_argument("--folder", type=Path, default=Path("served"), help="for answers.jsonl and metrics.csv")
    options = parser.parse_args(arguments)
    try:
        key = os.environ.get("OPENAI_API_KEY", "")
        endpoint = Endpoint(options.url, options.model, options.temperature, options.max_tokens, key=key)
        task = TASKS[options.task]
        options.attempts = options.attempts or task.attempts
        for split in options.splits or ():
            task.split(split)
        return _test(endpoint, task, options)
    except (EndpointError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _test(endpoint: Endpoint, task: Task, options: argparse.Namespace) -> int:
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": endpoint.model, "task": task.key, "temperature": endpoint.temperature, "seed": options.seed,
        "max_tokens": endpoint.max_tokens, "attempts": options.attempts,
    }  # fmt: skip
    record = options.folder / "settings.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{options.folder} holds another test ({record.name} says which); choose another --folder.")
    write_atomically(record, json.dumps(settings, indent=1))
    answers, tables = Answers(options.folder / "answers.jsonl"), []
    for split in options.splits or task.splits:
        how = options.episodes, options.attempts, answers, options.seed, options.at_once
        episodes = play(endpoint, task, split, *how)
        tables.append(table(task, split, endpoint.model, episodes, options.attempts))
        write_atomically(options.folder / "metrics.csv", pd.concat(tables).to_csv(index=False))
    found = pd.concat(tables)
    print(found.pivot_table(index="metric", columns="split", values="value", sort=False).round(3).to_string())
    read, written = answers.tokens.values()
    cost = (read * options.prices[0] + written * options.prices[1]) / 1e6
    print(f"{read:,} tokens read, {written:,} written" + (f", {cost:.2f} to pay" if cost else ""))
    print(f"Written: {options.folder / 'metrics.csv'} and the answers beside it.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
