"""The processes that train one branch together, one on each GPU: what they share out, add up, and write once.

``accelerate launch`` starts them (DDP, FSDP or DeepSpeed, by its configuration file); without it there is one process
alone, and nothing here does anything.

How they differ:
* official code: every process plays and learns from 256 attempts of its own, normalises their advantages among
  themselves, and gradients are averaged, so that the result depends on the number of processes.
* ours: an update is the same whatever the number of processes, up to rounding. Episodes are shared out by their number
  in the update, so the same seeds are played; advantages are normalised over all of them; minibatches are drawn from
  all rows; losses are divided by the tokens and attempts of the whole minibatch and gradients are added up.

Where weights are in shards (FSDP), every process keeps a whole copy for rollouts, in bfloat16 if the policy is
mixed, which follows the learner after each update. ``PPOConfig.importance_cap`` corrects what the two disagree about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn.utils import clip_grad_norm_

from ..configs import PPOConfig
from ..files import check_seal, fresh_folder, reason, replace_folder
from ..models.checkpoint import CheckpointError, State, load_progress, load_state, restore, save_progress, save_state
from ..models.policy import Policy
from ..models.vllm import VLLMDecoding, vllm_policy

if TYPE_CHECKING:
    from accelerate import Accelerator

_COLLECTIVE_TIMEOUT = timedelta(hours=3)  # one process makes the data while the others wait
T = TypeVar("T")
Weights = dict[str, torch.Tensor]


class Learner(torch.nn.Module):
    """A policy's model and critic as the one module that wrappers (DDP, FSDP, ZeRO) ask for.

    They act where a module is called, so whatever computes a loss is called through it.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model, self.value_head = policy.model, policy.value_head
        self._no_split_modules = policy.model._no_split_modules  # FSDP's units, as accelerate finds them

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)`, which uses the modules inside."""
        return function(*args)


class Processes:
    """The processes that train a branch, seen from one of them; one process alone without an accelerator."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.rank = accelerator.process_index if accelerator else 0
        self.count = accelerator.num_processes if accelerator else 1
        self._learner: torch.nn.Module | None = None
        self._copy: Policy | None = None

    # What each of them does

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and draws bars."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of `items`: every so many-th."""
        return list(items[self.rank :: self.count])

    def gather(self, own: Sequence[T]) -> list[T]:
        """The items of all processes, in the order in which `share` dealt them; small ones, for they are pickled."""
        if self.count == 1:
            return list(own)
        parts: list[list[T]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(parts, list(own))
        return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]

    def total(self, *numbers: float) -> list[float]:
        """The sums of numbers over all processes, in float64."""
        return self._reduced(numbers, "SUM")

    def most(self, number: int) -> int:
        """The largest number of any process."""
        return int(self._reduced([number], "MAX")[0])

    def _reduced(self, numbers: Sequence[float], how: str) -> list[float]:
        if self.count == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, how))
        return tensor.tolist()

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The block runs in the main process, then in the others: what it makes on the disk is made once."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    # Learning

    def prepare(
        self, policy: Policy, optimizer: torch.optim.Optimizer, config: PPOConfig, engine: str = "ours"
    ) -> torch.optim.Optimizer:
        """Make `policy` learn in all processes; returns the optimizer to use instead.

        `engine` is to play. Raises ValueError for one that is not installed.
        """
        if self.accelerator is None and engine == "ours":
            return optimizer
        if self.accelerator is None:
            self._copy = vllm_policy(policy, _accelerator(policy.device.type), config.max_new_tokens)
            return optimizer
        # A new one: TRL's trainer leaves another state behind. DDP must know if weights may be unused, as those of a
        # vision tower are where no row has a picture.
        self.accelerator = _accelerator(self.accelerator.device.type, unused=policy.processor is not None)
        if self._fsdp and engine == "ours":
            dtype = torch.bfloat16 if policy.mixed else policy.model.dtype
            # Weight by weight: a GPU has no room for two whole models in float32.
            lower = {
                id(p): torch.nn.Parameter(p.detach().to(dtype, copy=True), False) for p in policy.model.parameters()
            }
            model = deepcopy(policy.model, lower).eval()
            self._copy = replace(policy, model=model, value_head=deepcopy(policy.value_head), mixed=False)
        if self._deepspeed:  # it clips by itself, and asks how large micro-batches are
            settings = {"gradient_clipping": config.max_grad_norm, "train_micro_batch_size_per_gpu": 1}
            self.accelerator.deepspeed_plugin.deepspeed_config.update(settings)
        self._learner, optimizer = self.accelerator.prepare(Learner(policy), optimizer)
        if engine != "ours":
            self._copy = vllm_policy(policy, self.accelerator, config.max_new_tokens)
        return optimizer

    @property
    def _fsdp(self) -> bool:
        return self.accelerator is not None and self.accelerator.distributed_type == "FSDP"

    @property
    def _deepspeed(self) -> bool:
        return self.accelerator is not None and self.accelerator.distributed_type == "DEEPSPEED"

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)`, through the learner if there are several processes; all of them must call it as often."""
        return self._learner(function, *args) if self._learner is not None else function(*args)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch: gradients are exchanged after the `last` one alone.

        Shards are exchanged after each: FSDP would otherwise keep whole gradients on every GPU in the meantime.
        """
        if self._learner is None:
            yield
            return
        self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed looks at it
        with nullcontext() if last or self._fsdp else self.accelerator.no_sync(self._learner):
            yield

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss, this process's share, within its `micro_batch`."""
        if self._learner is None:
            loss.backward()
        else:
            self.accelerator.backward(loss * self.count)  # gradients are averaged, and we want their sum

    def clip(self, parameters: Sequence[torch.nn.Parameter], most: float) -> float:
        """Clip the gradient's norm, and return what it was; DeepSpeed has done so, for all parameters at once."""
        if self._deepspeed:
            return float(self.accelerator.clip_grad_norm_(parameters, most))
        norm = clip_grad_norm_(parameters, most)
        return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()

    # Weights

    def actor(self, policy: Policy) -> Policy:
        """The policy to play with: `policy` itself, or its whole copy where its weights are in shards or vLLM plays."""
        return self._copy or policy

    @torch.no_grad()
    def sync_actor(self, policy: Policy) -> None:
        """Bring the copy up to date, one tensor at a time."""
        if self._copy is None:
            return
        if isinstance(self._copy.decoding, VLLMDecoding):
            self._copy.decoding.generation.sync_weights()
            return
        for new, old in ((self._copy.model, policy.model), (self._copy.value_head, policy.value_head)):
            for target, source in zip(new.parameters(), old.parameters(), strict=True):
                target.copy_(source.full_tensor())

    def whole_weights(self) -> Weights | None:
        """The learner's weights on the main process, to be saved; None if its modules have them. All must call it."""
        return self.accelerator.get_state_dict(self._learner) if self._fsdp and self._learner is not None else None

    # Checkpoints

    def save(self, folder: Path, state: State, progress: dict[str, Any], config: dict[str, Any]) -> None:
        """`save_state`, once; each process its own shard where the state is in shards."""
        if not (self._fsdp or self._deepspeed):
            if self.main:
                save_state(folder, state, progress, config)
        else:
            fresh = fresh_folder(folder) if self.main else folder.with_name(f".{folder.name}.writing")
            self.wait()
            self.accelerator.save_state(str(fresh))
            self.wait()
            if self.main:
                save_progress(fresh, progress, {**config, "processes": self.count})
                replace_folder(fresh, folder, deep=True)
        self.wait()

    def load(self, folder: Path, state: State, config: dict[str, Any]) -> dict[str, Any] | None:
        """`load_state` in every process. Raises CheckpointError as it does, and for another number of shards."""
        if not (self._fsdp or self._deepspeed):
            with self.main_first():  # which may have to put back what a kill left half replaced
                return load_state(folder, state, config)
        with self.main_first():
            found = restore(folder)
        if not found:
            return None
        progress = load_progress(folder, {**config, "processes": self.count})
        try:
            check_seal(folder)
            self.accelerator.load_state(str(folder))
        except Exception as error:  # accelerate and torch raise many kinds
            message = f"The checkpoint {folder} is damaged ({reason(error)}); remove it to start over."
            raise CheckpointError(message) from error
        return progress


ALONE = Processes()


def launched(device: str = "auto") -> Processes:
    """The processes that ``accelerate launch`` started, or this one alone.

    Raises ValueError if DeepSpeed is asked for and not installed, for ZeRO-3, and for FSDP of version 1, which knows no
    two groups of parameters.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not several and not any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED")):
        return Processes()
    from accelerate.utils import is_deepspeed_available

    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and not is_deepspeed_available():
        raise ValueError("The configuration asks for DeepSpeed, which is not installed: pip install deepspeed")
    accelerator = _accelerator(device)
    if accelerator.distributed_type == "FSDP" and not accelerator.is_fsdp2:
        raise ValueError("FSDP of version 1 is not supported; set fsdp_version: 2 in the configuration file.")
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:  # it takes weights apart as they are loaded
        raise ValueError("ZeRO-3 is not supported; share the weights with FSDP (cluster/fsdp.yaml), or use ZeRO-2.")
    return Processes(accelerator)


def _accelerator(device: str, unused: bool = False) -> Accelerator:
    """A new one, without autocast over everything: `Policy.precision` says what is to be in bfloat16."""
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # as TRL's trainer does, or FSDP would be forgotten
    patience = InitProcessGroupKwargs(timeout=_COLLECTIVE_TIMEOUT)
    replicas = DistributedDataParallelKwargs(find_unused_parameters=unused)
    return Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[patience, replicas])
