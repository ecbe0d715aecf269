"""What a profile's runs take on a machine, before anything starts: memory, FLOPs, hours and cost.

    python -m sftrl_lib.plan --profile paper --gpu h100-80gb --gpus 8 --price 2.5

It reads configurations and counts tokens; it loads no weights. With

    N  parameters     L  layers     h  hidden size     I  MLP size     Q, K  heads and key-value heads, times their size
    G  GPUs           D  GPUs that share a state (G with FSDP, 1 with DDP)     T  tokens learnt from at once
    s  bytes of a product's number: 2 in "mixed" and in half precision, else 4
    b  bytes of a weight that plays: s, but 4 in "mixed" unless it is that of a copy

a GPU needs

    states       16 N / D          weights, gradients and Adam's two moments, in float32
    copy         s N               whole weights for rollouts, where the states are shared
    cache        2 b K L (rows x longest conversation)     and 2 b K a picture's token in each cross-attention layer
    activations  T (24 h + s (2 Q + 2 K + 4 I))            of every layer; with checkpointing of one, and 4 T h of each
    logits       4 copies of a chunk's, in float32 (see `training.logprobs`)

or, if that is more, 6 N for the whole weights that it loads before they are shared, and the copy made of them;

and a run takes, at the paper's own account of compute (`training.compute`), with the demonstrations' lengths,

    learning     6 N a token, a third more with checkpointing     / (G x FLOP/s x MFU)
    reading      2 N a token of prompts and feedback (of answers as well, where log-probabilities are corrected)
                 / (G x FLOP/s x MFU)
    decoding     a step for each token of the longest answer reads the weights and the cache: bytes / (bytes/s x MBU)

where FLOP/s are those of bfloat16 if the weights at work are, and else of float32.

RL's updates are counted as if every attempt were used, which is what the first ones are like. MFU and MBU (the shares
of the machine's rates that are reached) are assumed, not known: 0.35 is what learning reached on two cores, see
`check`. Rates are the makers', dense. Tests are by one GPU. Not counted: starting, writing checkpoints, and waiting.
The activations count the inputs that backward passes keep, after Korthikanti et al. (arXiv 2205.05198).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import paths
from .configs import PPOConfig
from .foundation.taught import TAUGHT
from .messages import message_text
from .methods import INIT
from .profiles import PROFILES, Profile, Study, get_profile
from .runs import Run, training_runs

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GB = 1e9
CHARACTERS = 3.5  # of English and JSON to a token, where there is no tokenizer to ask
MFU, MBU = 0.35, 0.35
_CHUNK = 2**24  # logits, `training.logprobs.CHUNK`, which would load torch
_PAPER_MODEL = "Llama-3.2-11B-Vision"
_SMOLLM2 = {
    "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1_536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """One device."""

    name: str
    memory: float  # bytes
    flops: float  # a second, dense bfloat16
    flops32: float  # a second, float32 without TF32
    bandwidth: float  # bytes a second


MACHINES = {  # the makers' data sheets, SXM where there are several
    machine.name: machine
    for machine in (
        Machine("a100-40gb", 40 * GB, 312e12, 19.5e12, 1.56e12),
        Machine("a100-80gb", 80 * GB, 312e12, 19.5e12, 2.04e12),
        Machine("h100-80gb", 80 * GB, 989e12, 67e12, 3.35e12),
        Machine("h200-141gb", 141 * GB, 989e12, 67e12, 4.8e12),
        Machine("l40s-48gb", 48 * GB, 362e12, 91.6e12, 0.864e12),
    )
}


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model."""

    parameters: int
    layers: int  # of text
    hidden: int
    inner: int  # of the MLP
    queries: int
    keys: int
    vocabulary: int
    crossing: int = 0  # layers that attend to pictures
    picture: int = 0  # tokens of a picture in them
    patches: int = 0  # what a picture counts in compute, see `Policy.picture_tokens`

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Shape:
        """The shape of a model by its configuration; its parameters are counted on no device."""
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        pictures = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        with torch.device("meta"):
            model = (AutoModelForImageTextToText if pictures else AutoModelForCausalLM).from_config(config)
        text, vision = config.get_text_config(), getattr(config, "vision_config", None)
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        crossing = len(getattr(text, "cross_attention_layers", None) or ())
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            layers=text.num_hidden_layers - crossing,
            hidden=text.hidden_size,
            inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            queries=text.num_attention_heads * size,
            keys=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * size,
            vocabulary=text.vocab_size,
            crossing=crossing,
            picture=vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1) if crossing else 0,
            patches=(vision.image_size // vision.patch_size) ** 2 if crossing else 0,
        )


@dataclass(frozen=True)
class Lengths:
    """Mean lengths of a task's demonstrations, in tokens, and how many positions an episode has."""

    prompt: float
    answer: float
    feedback: float
    positions: float
    counted: bool  # by the model's tokenizer, or from characters

    def asked(self, attempts: int) -> float:
        """Tokens of a prompt and of the feedback between so many attempts."""
        return self.prompt + (attempts - 1) * self.feedback

    def conversation(self, attempts: int) -> float:
        """Tokens of a prompt with so many attempts and the feedback between them."""
        return self.asked(attempts) + attempts * self.answer


@dataclass(frozen=True)
class Memory:
    """Bytes that one GPU needs."""

    states: float
    copy: float
    cache: float
    activations: float
    logits: float
    loading: float = 0.0  # before the rest, in its place

    @property
    def total(self) -> float:
        return max(self.states + self.copy + self.cache + self.activations + self.logits, self.loading)


@dataclass(frozen=True)
class Estimate:
    """What one run takes on a machine."""

    run: Run
    flops: float  # by the paper's account, from where the run starts
    steps: int  # optimiser steps of SFT, or updates of RL
    learning: float  # hours on all GPUs
    reading: float
    decoding: float
    tests: float  # hours on one GPU

    @property
    def hours(self) -> float:
        """On all GPUs, tests aside."""
        return self.learning + self.reading + self.decoding


@dataclass(frozen=True)
class Planner:
    """A profile on a machine; `shared`: whether GPUs share the states (FSDP) or each has its own (DDP)."""

    profile: Profile
    machine: Machine
    gpus: int = 1
    shared: bool = True
    mfu: float = MFU
    mbu: float = MBU

    @property
    def size(self) -> int:
        """Bytes of a product's number."""
        return 4 if self.profile.dtype == "float32" else 2

    @property
    def copied(self) -> bool:
        """Whether rollouts are played by a copy of the weights, because those are in shards."""
        return self.shared and self.gpus > 1

    def playing(self, copied: bool) -> int:
        """Bytes of a weight that plays."""
        return 4 if self.profile.dtype == "mixed" and not copied else self.size

    def rate(self, size: int) -> float:
        """FLOPs a second of one GPU with numbers of so many bytes."""
        return self.mfu * (self.machine.flops if size == 2 else self.machine.flops32)

    def memory(self, study: Study, shape: Shape, lengths: Lengths) -> Memory:
        """What RL of a study needs on each GPU at its peak; SFT needs less."""
        profile, config, divided = self.profile, study.ppo, self.gpus if self.shared else 1
        rows = min(profile.rollout_batch, math.ceil(config.episodes / self.gpus))
        slots = lengths.conversation(config.attempts) + config.max_new_tokens
        pictures = shape.crossing * shape.picture if study.task.modality == "image" else 0
        tokens = max(profile.micro_batch_tokens, slots)
        layer = tokens * (24 * shape.hidden + self.size * (2 * shape.queries + 2 * shape.keys + 4 * shape.inner))
        layers = shape.layers + shape.crossing
        kept = layer + 4 * tokens * shape.hidden * layers if profile.gradient_checkpointing else layer * layers
        return Memory(
            states=16 * shape.parameters / divided,
            copy=self.size * shape.parameters if self.copied else 0.0,
            cache=2 * self.playing(self.copied) * shape.keys * rows * (shape.layers * slots + pictures),
            activations=kept,
            logits=4 * 4 * min(_CHUNK, tokens * shape.vocabulary),
            loading=6 * shape.parameters if self.copied else 0.0,
        )

    def estimate(self, run: Run, shape: Shape, lengths: Lengths) -> Estimate:
        """What a run takes."""
        config, n, budget = run.config, shape.parameters, run.study.fork_flops
        more = 4 / 3 if self.profile.gradient_checkpointing else 1.0
        rate, tests = self.gpus * self.rate(self.size), self.tests(run, shape, lengths)
        if not isinstance(config, PPOConfig):
            step = 6 * n * config.batch_size * (lengths.prompt + lengths.answer)
            budget = run.study.init_steps * step if run.method is INIT else budget
            return Estimate(run, budget, math.ceil(budget / step), budget * more / rate / 3600, 0.0, 0.0, tests)
        read = config.episodes * lengths.positions * lengths.conversation(config.attempts)
        trained = config.epochs * read
        updates = math.ceil(budget / (6 * n * trained + 2 * n * read))
        asked = config.episodes * lengths.positions * lengths.asked(config.attempts)
        again = read if config.importance_cap else 0.0
        episodes, size = math.ceil(config.episodes / self.gpus), self.playing(self.copied)
        decoding = self._decoding(shape, lengths, episodes, config.attempts, size)
        reading = 2 * n * asked / (self.gpus * self.rate(size)) + 2 * n * again / rate
        seconds = 6 * n * trained * more / rate, reading, decoding
        return Estimate(run, budget, updates, *(updates * s / 3600 for s in seconds), tests)

    def _decoding(self, shape: Shape, lengths: Lengths, episodes: int, attempts: int, size: int) -> float:
        """Seconds in which one GPU samples the answers of so many episodes, by weights of so many bytes."""
        rows = min(self.profile.rollout_batch, episodes)
        cache = 2 * size * shape.keys * shape.layers * rows * lengths.conversation(attempts)
        read = (size * shape.parameters + cache) / (self.machine.bandwidth * self.mbu)
        step = max(read, 2 * shape.parameters * rows / self.rate(size))
        return math.ceil(episodes / rows) * lengths.positions * attempts * lengths.answer * step

    def tests(self, run: Run, shape: Shape, lengths: Lengths) -> float:
        """Hours in which one GPU tests a run's checkpoints on all splits, greedy decoding beside them."""
        study, splits = run.study, len(run.splits)
        asked, end = study.evaluation, study.evaluation.episodes_end + study.evaluation.episodes_greedy
        episodes = splits * (end + (run.checkpoints - 1) * asked.episodes_curve)
        read = episodes * lengths.positions * lengths.asked(asked.attempts)
        size = self.playing(copied=False)
        reading = 2 * shape.parameters * read / self.rate(size)
        return (reading + self._decoding(shape, lengths, episodes, asked.attempts, size)) / 3600


def config_of(model: str) -> PreTrainedConfig:
    """The configuration of a model by name, folder or hub name; of a taught one that of its base.

    The paper's and SmolLM2's are known without a download. Raises CheckpointError if any other is not there.
    """
    from transformers import LlamaConfig, MllamaConfig

    from .models.sources import check_model

    model = _base(model)
    if model == "smollm2" and not paths.named_model(model):
        return LlamaConfig(**_SMOLLM2)
    if _PAPER_MODEL in model and not Path(model).is_dir():
        return MllamaConfig(vision_config={"image_size": 560})  # else transformers' defaults are the 11 B's
    return check_model(model)


def _base(model: str) -> str:
    return TAUGHT[model].base if model in TAUGHT else model


def parameters_of(model: str) -> int:
    """How many parameters a model has. Raises CheckpointError as `config_of`."""
    return Shape.of(config_of(model)).parameters


def lengths_of(study: Study, examples: int = 64) -> Lengths:
    """Lengths of a task's demonstrations by the model's tokenizer, or from their characters where it is not there."""
    from transformers import AutoTokenizer

    from .models.sources import model_folder

    task = study.task
    found = list(islice(task.demonstrations("expert", np.random.default_rng(0)), examples))
    env = task.training_env(2)
    env.reset(seed=0)
    feedback = message_text(env.step("")[0]["messages"][-1])
    texts = ["\n".join(map(message_text, e[part])) for part in ("prompt", "completion") for e in found] + [feedback]
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder(_base(study.foundation)), local_files_only=True)
        counts = [len(ids) for ids in tokenizer(texts).input_ids]
    except (OSError, ValueError):  # CheckpointError is one
        tokenizer, counts = None, [len(text) / CHARACTERS for text in texts]
    *counts, feedback = counts
    prompt, answer = np.array(counts, float).reshape(2, -1).mean(1)
    rails = [env.reset(seed=seed)[1].get("rail") for seed in range(8)]
    positions = float(np.mean([len(rail.points) if rail is not None else 1 for rail in rails]))
    return Lengths(float(prompt), float(answer), float(feedback), positions, tokenizer is not None)


def plan(planner: Planner, seeds: Sequence[int] = ()) -> Iterator[tuple[Study, Memory, Lengths, list[Estimate]]]:
    """For each study its memory, its lengths and the estimates of its runs, the Inits that they start from first."""
    profile = planner.profile
    main, others = profile.chosen_seeds(tuple(seeds))
    shapes: dict[str, Shape] = {}
    for study in profile.studies:
        if study.foundation not in shapes:
            shapes[study.foundation] = Shape.of(config_of(study.foundation))
        shape, lengths = shapes[study.foundation], lengths_of(study)
        counted = replace(lengths, prompt=lengths.prompt + shape.patches * (study.task.modality == "image"))
        runs = [
            run
            for experiment in study.experiments
            for seed in (main if experiment.all_seeds else others)
            for run in training_runs(profile, study, experiment, seed)
        ]
        inits = {run.init.name: run.init for run in runs if run.start}
        estimates = [planner.estimate(run, shape, counted) for run in (*inits.values(), *runs)]
        yield study, planner.memory(study, shape, lengths), counted, estimates


def report(planner: Planner, price: float | None = None, seeds: Sequence[int] = ()) -> str:
    """The plan as text; `price` is that of a GPU for an hour."""
    machine, gpus = planner.machine, planner.gpus
    how = "states shared (FSDP)" if planner.shared and gpus > 1 else "states on every GPU (DDP)"
    lines = [f"Profile {planner.profile.name} on {gpus} x {machine.name}, {how}; assumed: MFU {planner.mfu:g}, "
             f"MBU {planner.mbu:g}"]  # fmt: skip
    total = 0.0
    for study, memory, lengths, estimates in plan(planner, seeds):
        source = "counted" if lengths.counted else "estimated from characters"
        fits = "fits" if memory.total < 0.9 * machine.memory else "DOES NOT FIT"
        parts = ", ".join(f"{name} {size / GB:.1f}" for name, size in asdict(memory).items() if size)
        lines += [
            "",
            f"{study.task.label}: {study.foundation}",
            f"  tokens ({source}): prompt {lengths.prompt:.0f}, answer {lengths.answer:.0f}; positions of an episode "
            f"{lengths.positions:.1f}",
            f"  memory on each GPU: {memory.total / GB:.1f} of {machine.memory / GB:.0f} GB, {fits} ({parts})",
            f"  {'run':52} {'FLOPs':>8} {'steps':>7} {'learn':>7} {'read':>7} {'decode':>7} {'tests':>7} GPU-hours",
        ]
        for e in estimates:
            spent = gpus * e.hours + e.tests
            total += spent
            hours = " ".join(f"{h:7.2f}" for h in (e.learning, e.reading, e.decoding, e.tests))
            lines.append(f"  {e.run.name:52} {e.flops:8.1e} {e.steps:7d} {hours} {spent:9.1f}")
    cost = f", {total * price:,.0f} at {price:g} an hour" if price is not None else "; PRICE= of one gives the cost"
    return "\n".join(
        [*lines, "", f"In all {total:,.1f} GPU-hours{cost}. Hours are on all GPUs, those of tests on one."]
    )


def measured_machine(file: Path) -> Machine:
    """This machine by its bench's own record (`make bench`). Raises ValueError if the record has none of a CPU."""
    limits = _cpu_row(file)["limits"]
    return Machine(file.stem, math.inf, limits["flops_per_s"], limits["flops_per_s"], limits["bytes_per_s"])


def _cpu_row(file: Path) -> dict[str, Any]:
    """The first row of a CPU."""
    for row in json.loads(file.read_text(encoding="utf-8")):
        if row["device"] == "cpu":
            return row
    raise ValueError(f"{file} has no row of a CPU; make bench writes one.")


def check(file: Path) -> dict[str, tuple[float, float]]:
    """The formulas beside what `make bench` has measured of one PPO update: name -> (estimated, measured).

    Seconds of learning, reading and decoding, and bytes beyond weights and optimiser.
    """
    row, machine = _cpu_row(file), measured_machine(file)
    study = PROFILES["laptop"].study(row["task"])
    config = replace(study.ppo, episodes=row["update"]["episodes"])
    # the bench plays all episodes side by side, and learns from them once
    study = replace(study, ppo=config, foundation=row["model"])
    profile = replace(PROFILES["laptop"], name="checked", studies=(study,), rollout_batch=config.episodes)
    planner = Planner(profile, machine)
    shape, lengths = Shape.of(config_of(row["model"])), lengths_of(study)
    estimate = planner.estimate(Run(profile, row["task"], "rl"), shape, lengths)
    memory = planner.memory(study, shape, lengths)
    measured, hours = row["update"]["seconds"], 3600 / estimate.steps
    return {
        "learning": (estimate.learning * hours, measured["learning"]),
        "reading": (estimate.reading * hours, measured["reading"]),
        "decoding": (estimate.decoding * hours, measured["decoding"]),
        "memory": (memory.cache + memory.activations + memory.logits, row["update"]["memory_gb"] * GB),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="paper", help="default: paper")
    parser.add_argument("--gpu", default="h100-80gb", help=f"one of {', '.join(MACHINES)}, or a record of make bench")
    parser.add_argument("--gpus", type=int, default=8, help="default: 8")
    parser.add_argument("--ddp", action="store_true", help="every GPU has all states, in place of a share (FSDP)")
    parser.add_argument("--mfu", type=float, default=MFU, help=f"share of the FLOP/s that is reached; default: {MFU}")
    parser.add_argument("--mbu", type=float, default=MBU, help=f"share of the bytes/s that is reached; default: {MBU}")
    parser.add_argument("--seeds", default="", help='as in "0 1 2"; default: those of the profile')
    parser.add_argument("--price", type=float, help="of one GPU for an hour, in any currency")
    parser.add_argument("--check", type=Path, help="a record of make bench: the formulas beside what it measured")
    given = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # or it would ask for what it has no need of
    try:
        if given.check:
            for name, (estimated, measured) in check(given.check).items():
                print(f"{name:9} estimated {estimated:10.3g}   measured {measured:10.3g}")
            return 0
        machine = MACHINES.get(given.gpu) or (Path(given.gpu).is_file() and measured_machine(Path(given.gpu)))
        if not machine:
            raise ValueError(f"GPU={given.gpu!r} is not known; use one of {', '.join(MACHINES)}.")
        if given.gpus < 1 or not 0 < given.mfu <= 1 or not 0 < given.mbu <= 1:
            raise ValueError("GPUS is a whole number from 1; MFU and MBU are shares above 0, to 1.")
        planner = Planner(get_profile(given.profile), machine, given.gpus, not given.ddp, given.mfu, given.mbu)
        print(report(planner, given.price, [int(seed) for seed in given.seeds.split()]))
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
