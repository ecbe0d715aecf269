"""The bench itself: check the engines against each other, then time them in turns, and write down what came out.

All engines run in one process, on the same weights, episodes, stop rule and threads, in the order A B C A B C ..., so
that a machine that slows down slows them all. Every repeat does the same work: its spread is the machine's. A number is
the median of the repeats. Memory is read in a round of its own, before.

A result is a list of rows, one for each engine and number of episodes side by side. Every row holds all that it depends
on, so that those of several models and devices can stand in one file (see `card.py`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace

import gymnasium
import psutil
import torch

from ..configs import MICRO_BATCH_TOKENS, PPOConfig, Protocol, check_whole
from ..models.policy import Policy, ValueHead
from ..provenance import origin
from ..task import Task
from .card import PHASES, Row
from .check import compare
from .engines import TRL, Engine, NotMeasured, hf, official, ours
from .limits import Limits, Shape, Work, measure_limits, timed, useful
from .phases import still_optimizer, update


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repeats: int = 5
    official: int = 8  # episodes, one after another
    batches: tuple[int, ...] = (32, 64, 128, 256)  # of HF's generate: the fastest is timed, and TRL at that size
    sizes: tuple[int, ...] = (256,)  # episodes side by side in our engine
    checked: int = 32  # episodes on which the engines are compared
    update: int = 128  # episodes of a PPO update
    updates: int = 3
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # that an update learns from at once
    matrix: int = 2048  # rows and columns of the matrix product that gives the limit
    buffer: int = 2**28  # bytes of the sum that gives the limit

    def __post_init__(self) -> None:
        check_whole(self, "repeats", "official", "checked", "update", "updates", "micro_batch_tokens")
        check_whole(self, "matrix", "buffer")


PLANS = {
    "cpu": Plan(),
    "cuda": Plan(
        official=1,
        batches=(1024, 4096),
        sizes=(1024, 4096),
        update=256,
        micro_batch_tokens=65_536,
        matrix=8192,
        buffer=2**30,
    ),
}
# Toy sizes, to see that it works: the numbers mean nothing.
QUICK = Plan(
    repeats=2, official=1, batches=(2, 3), sizes=(4,), checked=3, update=4, updates=1, matrix=128, buffer=2**20
)


@dataclass
class Timing:
    """One engine at one size, and how it did."""

    name: str
    engine: Engine
    envs: Sequence[gymnasium.Env]
    n: int  # episodes side by side
    policy: Policy  # of its own: the weights are shared, what our engine keeps between rollouts is not
    memory: int = 0  # bytes, at most, beyond what there was before
    repeats: list[tuple[Work, float]] = field(default_factory=list)  # useful work, seconds

    @property
    def rates(self) -> list[float]:
        """Tokens sampled per second, in each repeat."""
        return [work.tokens / seconds for work, seconds in self.repeats]


@dataclass
class Bench:
    """One policy on one task; it gets a critic if it has none, for the values that PPO's rollouts give."""

    policy: Policy
    model: str  # its name in the rows
    task: Task
    config: PPOConfig
    plan: Plan
    processor: str  # or GPU, that computes
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        plan, config = self.plan, self.config
        most = max(*plan.sizes, *plan.batches, plan.official, plan.checked, plan.update)
        self.envs = [self.task.training_env(config.attempts) for _ in range(most)]
        self.how = Protocol(most, config.attempts, config.temperature, config.max_new_tokens)
        self.device, self.shape = self.policy.device, Shape.of(self.policy)
        self.dtype = self.policy.model.get_output_embeddings().weight.dtype
        if self.policy.value_head is None:
            width = self.policy.model.config.get_text_config().hidden_size
            self.policy.value_head = ValueHead(width).to(self.device)

    def run(self) -> list[Row]:
        """One row for each engine and size. Raises WrongAnswers if our engine is wrong."""
        load = os.getloadavg()[0]
        agreement = compare(self.policy, self.envs[: self.plan.checked], self.how)
        self.say(f"{agreement.answers} greedy answers agree; log-probabilities within {agreement.logprob_error:.1e}")
        timings = self._first_round()
        limits = self._time(timings)
        shared = {
            "processor": self.processor,
            "model": self.model,
            "parameters": self.policy.parameters_count,
            "task": self.task.key,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "protocol": {name: value for name, value in asdict(self.how).items() if name != "episodes"},
            "load_before": load,
            "limits": asdict(limits),
            "agreement": asdict(agreement),
            "update": self._update(),
            "made": origin(),
        }
        return [row(timing, limits) | shared for timing in timings]

    def _first_round(self) -> list[Timing]:
        """Every engine once, for its memory and to get it going; those that ran here, HF at its best size only."""
        found = [self._first("official", official, 1, self.plan.official)]
        tried = [self._first("hf", hf, n) for n in self.plan.batches]
        if best := max(filter(None, tried), key=lambda timing: timing.rates[0], default=None):
            found += [best, self._first("trl", TRL(self.policy, self.how), best.n)]
        found += [self._first("ours", ours, n) for n in self.plan.sizes]
        return [timing for timing in found if timing]

    def _first(self, name: str, engine: Engine, n: int, episodes: int | None = None) -> Timing | None:
        """An engine's first run; None, with a word why, if it cannot run here."""
        timing = Timing(name, engine, self.envs[: episodes or n], n, replace(self.policy))
        try:
            engine(timing.policy, timing.envs[:1], self.how)  # loads what is loaded on first use
            with peak_memory(self.device) as peak:
                self._run(timing)
        except (NotMeasured, torch.OutOfMemoryError) as error:
            self.say(f"{name}, {n} side by side: not measured ({str(error).splitlines()[0]})")
            return None
        timing.memory = peak[0]
        self.say(f"{name}, {n} side by side: {timing.rates[0]:,.0f} tokens a second in its first run")
        return timing

    def _time(self, timings: Sequence[Timing]) -> Limits:
        """All repeats of all engines, in turns; and the machine's limits, measured between them."""
        limits = Limits(0.0, 0.0)
        for timing in timings:
            timing.repeats.clear()
        for repeat in range(self.plan.repeats):
            limits = limits.best(measure_limits(self.device, self.dtype, self.plan.matrix, self.plan.buffer))
            for timing in timings:
                self._run(timing)
            rates = ", ".join(f"{timing.name} {timing.rates[-1]:,.0f}" for timing in timings)
            self.say(f"repeat {repeat + 1} of {self.plan.repeats}, tokens a second: {rates}")
        return limits

    def _run(self, timing: Timing) -> None:
        played, seconds = timed(lambda: timing.engine(timing.policy, timing.envs, self.how), self.device)
        timing.repeats.append((useful(played, self.shape), seconds))

    def _update(self) -> Row | None:
        """The phases of a PPO update: medians, in seconds. None if it does not fit into the GPU's memory."""
        envs, optimizer = self.envs[: self.plan.update], still_optimizer(self.policy, self.config)
        options = envs, self.how, self.config, self.task.answer_key, self.plan.micro_batch_tokens
        try:
            with peak_memory(self.device) as peak:
                repeats = [update(self.policy, optimizer, *options) for _ in range(self.plan.updates)]
        except torch.OutOfMemoryError as error:
            self.say(f"PPO update of {len(envs)} episodes: not measured ({str(error).splitlines()[0]})")
            return None
        seconds = {phase: statistics.median(repeat[phase] for repeat in repeats) for phase in PHASES}
        return {"episodes": len(envs), "repeats": len(repeats), "seconds": seconds, "memory_gb": peak[0] / 1e9}


def row(timing: Timing, limits: Limits) -> Row:
    """What was measured of one engine at one size."""
    rates, works = timing.rates, [work for work, _ in timing.repeats]
    least = [limits.seconds(work) for work in works]
    return {
        "engine": timing.name,
        "n": timing.n,
        "episodes": len(timing.envs),
        "repeats": len(rates),
        "tokens": works[0].tokens,
        "attempts": works[0].attempts,
        "useful_flops": works[0].flops,
        "useful_bytes": works[0].bytes,
        "seconds": [seconds for _, seconds in timing.repeats],
        "tokens_per_s": statistics.median(rates),
        "tokens_per_s_low": min(rates),
        "tokens_per_s_high": max(rates),
        "attempts_per_s": statistics.median(work.attempts / seconds for work, seconds in timing.repeats),
        "limit_tokens_per_s": works[0].tokens / least[0],
        "limited_by": limits.bound(works[0]),
        "share_of_limit": statistics.median(
            best / seconds for best, (_, seconds) in zip(least, timing.repeats, strict=True)
        ),
        "memory_gb": timing.memory / 1e9,
    }


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """A list that holds, after the block, the most memory that was in use in it beyond what was before, in bytes.

    On a GPU what torch has allocated; on a CPU this process's resident memory, looked at a hundred times a second.
    """
    found: list[int] = []
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device) - before)
        return
    with suppress(AttributeError, OSError):  # glibc keeps what earlier engines have freed, and would hide the growth
        ctypes.CDLL(None).malloc_trim(0)
    process, done = psutil.Process(), threading.Event()
    before = seen = process.memory_info().rss

    def watch() -> None:
        nonlocal seen
        while not done.wait(0.01):
            seen = max(seen, process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
    found.append(max(seen, process.memory_info().rss) - before)
