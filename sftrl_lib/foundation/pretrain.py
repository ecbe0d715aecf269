"""Pretraining of the tiny foundation models: stock `LlamaForCausalLM`s of 0.9 M parameters, and their data.

The paper takes Llama-3.2-Vision-11B as given. We train our own models, one per task, on the curricula of
`gp_l_curriculum.py` and `virl_l_curriculum.py`, in about half an hour each on two cores. `vision.py` then adds a vision
encoder, and pretraining continues on documents with pictures. Muon trains the matrices and AdamW the rest (both from
`torch.optim`): Muon reached in 100 steps what AdamW alone needed 250 for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from .. import __version__
from ..files import check_seal, seal
from ..models.checkpoint import CheckpointError, load_state, save_state
from ..models.policy import Policy, load_policy, model_folder
from ..paths import SHIPPED, build, made_models, shipped
from . import gp_l_curriculum, gp_vl_curriculum, virl_l_curriculum, virl_vl_curriculum
from .capabilities import capabilities
from .documents import Document
from .encoding import IGNORED, encode_for, pictures
from .muon import Float32Muon
from .tokenizer import (
    build_tokenizer,
    document_texts,
    navigation_texts,
    navigation_words,
    phrases,
    points_texts,
)
from .vision import VisionConfig, with_vision_encoder

CURRICULA = {
    "gp-l": gp_l_curriculum,
    "virl-l": virl_l_curriculum,
    "gp-vl": gp_vl_curriculum,
    "virl-vl": virl_vl_curriculum,
}


@dataclass(frozen=True)
class FoundationConfig:
    """Size, budget and optimiser of a foundation model."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2  # half the KV cache, because decoding is bound by reading it
    intermediate_size: int = 384
    context: int = 1024  # tokens
    steps: int = 1000  # first cycle, from single skills to conversations
    more_steps: int = 600  # second cycle, conversations; reading a stated rule in them is learnt late
    restart: float = 0.8  # learning rate at the start of the second cycle, as a share of the first one's
    tokens_per_step: int = 10_000  # padding included
    muon_lr: float = 0.02  # matrices
    adam_lr: float = 4e-3  # embeddings and norms
    warmup: int = 50  # steps
    cooldown: float = 0.6  # the learning rate falls linearly to zero over this last share of the steps
    seed: int = 0
    save_every: int = 50  # steps
    curricula: tuple[str, ...] = ("gp-l",)  # keys of `CURRICULA`, each drawn equally often
    vision: VisionConfig | None = None  # vision encoder to add to a shipped text model; None: a new text model
    habit: float = 0.0  # share of hands of cards that are told under no rule, with J, Q, K = 10; for gp-l alone

    @property
    def total_steps(self) -> int:
        return self.steps + self.more_steps

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate at `step`: warm-up, plateau, cool-down, then the shorter second cycle."""
        if step < self.steps:
            return min(1.0, (step + 1) / self.warmup, (1 - step / self.steps) / self.cooldown)
        step -= self.steps
        return self.restart * min((step + 1) / self.warmup, 1 - step / self.more_steps)


# By name; those whose folder comes with the package are the shipped ones.
FOUNDATIONS = {
    "gp-l": FoundationConfig(),
    "virl-l": FoundationConfig(curricula=("virl-l",), steps=1300, more_steps=0, tokens_per_step=4_000),
    "gp-vl": FoundationConfig(
        curricula=("gp-vl", "gp-vl", "gp-l"),
        steps=800,
        more_steps=0,
        tokens_per_step=5_000,
        vision=VisionConfig(),
    ),
    "virl-vl": FoundationConfig(
        curricula=("virl-vl",),
        steps=1000,
        more_steps=0,
        tokens_per_step=5_000,
        muon_lr=0.01,
        adam_lr=2e-3,
        vision=VisionConfig(language="virl-l"),
    ),
    # Other seeds of the text models, for the variance between foundation models; shipped once they are made, with
    # `python -m sftrl_lib.foundation.pretrain --models gp-l-1 virl-l-1`.
    "gp-l-1": FoundationConfig(seed=1),
    "virl-l-1": FoundationConfig(curricula=("virl-l",), steps=1300, more_steps=0, tokens_per_step=4_000, seed=1),
    # For the experiment "habit"; not shipped.
    "gp-l-habit-30": FoundationConfig(habit=0.3),
    "gp-l-habit-70": FoundationConfig(habit=0.7),
}
GROUP = 8  # steps whose documents are drawn and sorted together
Batch = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]  # ids, labels, the image processor's output
SHIPPED_MODELS = tuple(name for name in FOUNDATIONS if not FOUNDATIONS[name].habit)


def draw(config: FoundationConfig, rng: random.Random, progress: float) -> Document:
    """A document of one of the curricula."""
    curriculum = CURRICULA[rng.choices(config.curricula)[0]]
    habit = {"habit": config.habit} if config.habit else {}
    return curriculum.document(rng, progress, **habit)


def foundation_tokenizer(config: FoundationConfig, documents: int = 4_000) -> PreTrainedTokenizerFast:
    """The tokenizer of a foundation model, from a sample of its curricula and the tasks' own texts."""
    rng = random.Random(config.seed)
    texts = document_texts(draw(config, rng, rng.random()) for _ in range(documents))
    words: list[str] = []
    if "gp-l" in config.curricula:
        texts += points_texts()
    if "virl-l" in config.curricula:
        texts += navigation_texts()
        words = navigation_words()
    return build_tokenizer(texts, words=words)


def batches(
    config: FoundationConfig, policy: Policy, first_step: int = 0, group: int = GROUP
) -> Iterator[Batch]:
    """Yield (ids, labels, the image processor's output) from `first_step` on.

    ids and labels are (rows, tokens), right-padded; without pictures the last item is {}. The documents of `group`
    steps are sorted by length and cut into batches of equal size, so that there is little padding and every step costs
    the same. A group depends only on the seed and its number.
    """
    for number in range(first_step // group, -(-config.total_steps // group)):
        for index, batch in enumerate(batch_group(config, policy, number, group)):
            if first_step <= number * group + index < config.total_steps:
                yield batch


def batch_group(config: FoundationConfig, policy: Policy, number: int, group: int) -> list[Batch]:
    """The batches of steps ``number * group`` up to ``(number + 1) * group``; see `batches`."""
    rng = random.Random(f"{config.seed}/{number}")
    rows, cut, progress = [], [], min(1.0, number * group / config.steps)
    size = 0
    while size < group * config.tokens_per_step:
        doc = draw(config, rng, progress)
        rows.append((*encode_for(policy, doc), pictures(doc)))
        size += len(rows[-1][0])
    rows.sort(key=lambda row: len(row[0]))
    per_batch = size / group
    filled, batch = 0, []
    for row in rows:
        batch.append(row)
        filled += len(row[0])
        if filled >= per_batch * (len(cut) + 1) - 1e-6 or row is rows[-1]:
            cut.append(batch)
            batch = []
    rng.shuffle(cut)
    found = []
    for batch in cut[:group]:
        shown = [picture for *_, row in batch for picture in row]
        seen = policy.processor.image_processor(shown, return_tensors="pt") if shown else {}
        found.append((*pad_right([row[:2] for row in batch], policy.tokenizer.pad_token_id), dict(seen)))
    return found


def pad_right(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack (ids, labels) pairs of different lengths into two (rows, longest) tensors."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (row_ids, row_labels) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        labels[i, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels


def answer_loss(
    model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, seen: dict[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """Mean cross-entropy over the labelled tokens; logits are computed at those positions only.

    `ids` and `labels` are (rows, tokens), `seen` is the image processor's output. Right padding needs no attention mask
    because no real token attends to what follows it.
    """
    hidden = model.model(input_ids=ids, use_cache=False, **(seen or {})).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def new_model(config: FoundationConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model for `tokenizer`'s vocabulary."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def untrained(config: FoundationConfig) -> Policy:
    """The model at the start of pretraining: a new text model, or a shipped one with a new vision encoder."""
    if config.vision:
        rng = random.Random(config.seed)
        texts = document_texts(draw(config, rng, rng.random()) for _ in range(1_000))
        texts += navigation_texts(modality="image") if "virl-vl" in config.curricula else points_texts(modality="image")
        return with_vision_encoder(config.vision, phrases(texts, least=20), config.seed)
    tokenizer = foundation_tokenizer(config)
    return Policy(new_model(config, tokenizer), tokenizer)


def optimizers(model: PreTrainedModel, config: FoundationConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    return [
        Float32Muon(matrices, lr=config.muon_lr, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pretrain(config: FoundationConfig, folder: Path) -> Path:
    """Train a foundation model and save it to `folder` with the Auto classes' files and ``record.json``.

    Continues from ``folder/training`` if a run of the same configuration was interrupted. Raises FloatingPointError at
    the first loss that is not finite; the last checkpoint stays.
    """
    policy = untrained(config)
    model = policy.model
    optims = optimizers(model, config)
    state = {"model": model, **{f"optimizer{i}": o for i, o in enumerate(optims)}}
    progress = load_state(folder / "training", state, asdict(config)) or {
        "step": 0,
        "seconds": 0.0,
        "losses": [],
    }
    bar = tqdm(total=config.total_steps, initial=progress["step"], desc="pretraining", unit="step", mininterval=5)
    started = time.monotonic() - progress["seconds"]
    for ids, labels, seen in batches(config, policy, progress["step"]):
        step = progress["step"]
        scale = config.lr_scale(step)
        for optim, lr in zip(optims, (config.muon_lr, config.adam_lr), strict=True):
            for group in optim.param_groups:
                group["lr"] = lr * scale
        loss = answer_loss(model, ids, labels, seen)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"Step {step + 1}: pretraining's loss is {loss.item()};"
                f" lower muon_lr ({config.muon_lr:g}) or adam_lr ({config.adam_lr:g})."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        progress["step"] += 1
        progress["losses"].append(round(loss.item(), 4))
        bar.update()
        if progress["step"] % config.save_every == 0 or progress["step"] == config.total_steps:
            progress["seconds"] = time.monotonic() - started
            recent = progress["losses"][-config.save_every :]
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.3f}")
            save_state(folder / "training", state, progress, asdict(config))
    bar.close()
    policy.save(folder)
    record = {"config": asdict(config), "parameters": model.num_parameters(), "losses": progress["losses"]}
    record["minutes"] = round(progress["seconds"] / 60, 1)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def read_record(name: str) -> dict:
    """The training record of a shipped foundation model. Raises CheckpointError if it is missing or unreadable."""
    path = Path(model_folder(name)) / "record.json"
    try:
        check_seal(path.parent, path.name)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} has no readable record of how it was made ({error}).") from error


def main() -> None:
    """``make foundation``: train the shipped models again."""
    parser = argparse.ArgumentParser(description="Train the tiny foundation models and ship them.")
    known = [name for name in FOUNDATIONS if shipped(name)]
    parser.add_argument("--models", nargs="+", choices=list(FOUNDATIONS), default=known, help="default: those shipped")
    parser.add_argument("--folder", type=Path, help="where the models go; default: where they are looked for by name")
    parser.add_argument("--work", type=Path, default=build("foundation"), help="checkpoints, to resume from")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    for name in options.models:
        pretrain(FOUNDATIONS[name], options.work / name)
        ship(options.work / name, (options.folder or _place(name)) / name)


def _place(name: str) -> Path:
    return SHIPPED if name in SHIPPED_MODELS else made_models()


def ship(work: Path, folder: Path) -> None:
    """Copy a finished model to `folder` with its capability table; weights are kept in float32."""
    policy = load_policy(work)
    record = json.loads((work / "record.json").read_text(encoding="utf-8"))
    record["capabilities"] = capabilities(policy, tuple(record["config"]["curricula"]))
    record["versions"] = {
        "sftrl_lib": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    policy.save(folder)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    seal(folder)
    for name, score in record["capabilities"].items():
        print(f"{name:32} {100 * score:5.1f} %")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
