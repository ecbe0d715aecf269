"""CUDA graphs: a sequence of small operations recorded once and launched as one.

On a GPU the decoding step of a small model is bound by launches, not by arithmetic. A graph reads and writes fixed
addresses, so inputs are copied in, outputs are copied out, and everything else that it touches (weights, cache) must be
updated in place. Elsewhere the function is simply called, so that the path around it can be tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

Function = Callable[..., tuple[torch.Tensor, ...]]
_WARM_UP = 2  # calls before recording: libraries allocate their workspaces in the first one


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


class Graphs:
    """Recorded functions by key; those of one key take inputs of the same shapes and dtypes."""

    def __init__(self) -> None:
        self._recorded: dict[Hashable, _Recorded] = {}
        self._stream: torch.cuda.Stream | None = None  # on which all are recorded
        self._pool = None  # memory that all of them share: what one leaves there is copied out before the next one runs

    def __call__(self, key: Hashable, function: Function, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`function(*inputs)`, which must not wait for the device, and must give the same when called again."""
        if inputs[0].device.type != "cuda":
            return function(*inputs)
        if key not in self._recorded:
            self._recorded[key] = self._record(function, inputs)
        recorded = self._recorded[key]
        for static, given in zip(recorded.inputs, inputs, strict=True):
            static.copy_(given)
        recorded.graph.replay()
        return tuple(output.clone() for output in recorded.outputs)

    def _record(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> _Recorded:
        static = tuple(given.clone() for given in inputs)
        self._stream = self._stream or torch.cuda.Stream()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                function(*static)
            # Not the context `torch.cuda.graph`, which empties the allocator first: too slow for many small graphs.
            stream.synchronize()
            graph.capture_begin(pool=self._pool)
            outputs = function(*static)
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return _Recorded(graph, static, outputs)
