"""What the machine could do at best: its measured rates, and the useful work in the episodes that were played.

Useful work is the same whichever engine does it: every token of an episode's history is read once, every token of an
answer is sampled once. Padding, rows that have ended their answer, and reading a history again are not useful. With

    N  weights of the decoder's matrix products (no embedding)       H  weights of the output layer
    L  layers    Q, K  heads and key-value heads, times their size   s  bytes of a number

a token at position p (it attends to p + 1 tokens) and an answer's token take

    FLOPs = 2 N + 4 L Q (p + 1)   per token read      + 2 H   per token sampled
    bytes = 2 L K s               per token read: its own keys and values are written

and a forward pass over one or more new tokens of an episode, up to position p, has to read

    bytes = 2 L K s (p + 1)       the keys and values before it: of a prompt at once, of an answer token by token
    bytes = (N + H) s             the weights: once for all episodes, so as often as the longest one has passes

The limit is a roofline: seconds = max(FLOPs / matrix rate, bytes / read rate), both rates measured in the same run with
the same threads and dtype. Nothing that ran on this machine could be faster, short of doing less work. A vision tower's
work and the sampling are left out, so the limit is a little too high for models with pictures, and the share too low.

Sources: PaLM (arXiv 2204.02311, appendix B) counts 6 N + 12 L Q T for a token of training at context T; a third of it,
without the backward pass, is ours, with the tokens that the causal mask lets through for T. The roofline is that of
Williams, Waterman and Patterson (2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..models.policy import Policy
from ..models.rollout import shared_prefix
from .engines import Played


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model."""

    body: int  # N
    head: int  # H
    layers: int  # L
    queries: int  # Q
    keys: int  # K
    size: int  # s

    @classmethod
    def of(cls, policy: Policy) -> Shape:
        """The shape of a policy's language model, LoRA adapters included."""
        config = policy.model.config.get_text_config()
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        parts = [part for part in policy.decoder.get_decoder().modules() if not isinstance(part, torch.nn.Embedding)]
        weights = [weight for part in parts for weight in part.parameters(recurse=False) if weight.dim() == 2]
        return cls(
            body=sum(weight.numel() for weight in weights),
            head=policy.model.get_output_embeddings().weight.numel(),
            layers=config.num_hidden_layers,
            queries=config.num_attention_heads * head_size,
            keys=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head_size,
            size=policy.model.get_output_embeddings().weight.element_size(),
        )


@dataclass(frozen=True)
class Work:
    """The useful work in a number of episodes."""

    tokens: int  # sampled
    attempts: int  # graded
    flops: int
    bytes: int


def useful(played: Played, shape: Shape) -> Work:
    """The useful work in `played`, by the formulas above."""
    flops = bytes_ = tokens = attempts = longest = 0
    for episode in played:
        known: list[int] = []  # the tokens whose keys and values are there
        passes = 0
        for turn in episode:
            start, prompt, end = shared_prefix(known, turn.prompt[:-1]), len(turn.prompt), len(turn.prompt)
            end += len(turn.answer) - 1  # the last token of an answer belongs to what is read next
            read, seen = end - start, _sum(start, end)
            flops += 2 * shape.body * read + 4 * shape.layers * shape.queries * seen
            flops += 2 * shape.head * len(turn.answer)
            attended = prompt + _sum(prompt, end)  # once over the prompt, then once for each token
            bytes_ += 2 * shape.layers * shape.keys * shape.size * (read + attended)
            passes += len(turn.answer)
            tokens += len(turn.answer)
            known = [*turn.prompt, *turn.answer[:-1]]
        attempts += len(episode)
        longest = max(longest, passes)
    return Work(tokens, attempts, flops, bytes_ + longest * (shape.body + shape.head) * shape.size)


def _sum(start: int, end: int) -> int:
    """Of p + 1 for the positions p from `start` to below `end`."""
    return (end * (end + 1) - start * (start + 1)) // 2


@dataclass(frozen=True)
class Limits:
    """The machine's own rates."""

    flops_per_s: float
    bytes_per_s: float

    def seconds(self, work: Work) -> float:
        """The least time in which this machine could do `work`."""
        return max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)

    def bound(self, work: Work) -> str:
        """What limits `work` on this machine: "arithmetic" or "memory"."""
        return "arithmetic" if work.flops * self.bytes_per_s > work.bytes * self.flops_per_s else "memory"

    def best(self, other: Limits) -> Limits:
        """The better of two measurements of the same machine: a limit is what it has reached once."""
        return Limits(max(self.flops_per_s, other.flops_per_s), max(self.bytes_per_s, other.bytes_per_s))


@torch.no_grad()
def measure_limits(device: torch.device, dtype: torch.dtype, matrix: int, buffer: int, seconds: float = 0.3) -> Limits:
    """The best rates of a product of two `matrix` x `matrix` matrices and of a sum over `buffer` bytes.

    Each is repeated for `seconds`. The buffer should be larger than the caches.
    """
    one, other = (torch.randn(matrix, matrix, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(one)
    numbers = torch.ones(buffer // 4, device=device)
    matrices = _shortest(lambda: torch.mm(one, other, out=product), device, seconds)
    reading = _shortest(numbers.sum, device, seconds)
    return Limits(2 * matrix**3 / matrices, numbers.nbytes / reading)


def _shortest(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The shortest time that a call took; it is called for `seconds`, at least twice."""
    call()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(timed(call, device)[1])
    return min(times)


def timed(call: Callable[[], object], device: torch.device) -> tuple[object, float]:
    """What a call returns, and how long it took, in seconds; all that the device still had to do counts."""
    synchronise(device)
    start = time.perf_counter()
    result = call()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
