"""Pretraining of the tiny foundation models: stock `LlamaForCausalLM`s of 0.9 M parameters, and what they see.

The paper takes Llama-3.2-Vision-11B as given; we train ours, on the curricula of `points_curriculum.py` and
`navigation_curriculum.py`, one model a task, in about half an hour on two cores; `vision.py` then gives them eyes, and
they go on with documents that show pictures. Matrices are trained by Muon, the rest by AdamW (both from
`torch.optim`): Muon reached in 100 steps what AdamW alone needed 250 for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from .. import __version__
from ..paths import SHIPPED, build
from ..points.formula import evaluate as formula_value
from ..points.formula import parse_formula
from ..points.rules import RULES
from ..virl.rails import TURNS
from . import cards_curriculum, navigation_curriculum, points_curriculum, streets_curriculum
from .checkpoint import CheckpointError, load_state, save_state
from .documents import Document
from .policy import Policy, load_policy, model_folder
from .tokenizer import (
    ASSISTANT,
    END,
    USER,
    build_tokenizer,
    document_texts,
    navigation_texts,
    navigation_words,
    phrases,
    points_texts,
)
from .vision import IMAGE, VisionConfig, with_eyes

IGNORED = -100  # the label of a token without loss
CURRICULA = {
    "general_points": points_curriculum.document,
    "navigation": navigation_curriculum.document,
    "cards": cards_curriculum.document,
    "streets": streets_curriculum.document,
}


@dataclass(frozen=True)
class FoundationConfig:
    """Size, budget and optimiser of a foundation model."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2  # half the KV cache: decoding is bound by reading it
    intermediate_size: int = 384
    context: int = 1024  # tokens
    steps: int = 1000  # first cycle: from single skills to conversations
    more_steps: int = 600  # second cycle: conversations; reading a stated rule in them comes late
    restart: float = 0.8  # learning rate at the start of the second cycle, as a share of the first one's
    tokens_per_step: int = 10_000  # padding included
    muon_lr: float = 0.02  # matrices
    adam_lr: float = 4e-3  # embeddings and norms
    warmup: int = 50  # steps
    cooldown: float = 0.6  # the learning rate falls linearly to zero over this last share of the steps
    seed: int = 0
    save_every: int = 50  # steps
    tasks: tuple[str, ...] = ("general_points",)  # `CURRICULA` it reads, in equal numbers of documents
    vision: VisionConfig | None = None  # the eyes of a vision-language model; its language half is not new then

    @property
    def total_steps(self) -> int:
        return self.steps + self.more_steps

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate at `step`: warm-up, plateau, cool-down, then the shorter second cycle."""
        if step < self.steps:
            return min(1.0, (step + 1) / self.warmup, (1 - step / self.steps) / self.cooldown)
        step -= self.steps
        return self.restart * min((step + 1) / self.warmup, 1 - step / self.more_steps)


# The shipped models.
FOUNDATIONS = {
    "text": FoundationConfig(),
    "navigation": FoundationConfig(tasks=("navigation",), steps=1300, more_steps=0, tokens_per_step=4_000),
    "cards": FoundationConfig(
        tasks=("cards", "cards", "general_points"),
        steps=800,
        more_steps=0,
        tokens_per_step=5_000,
        vision=VisionConfig(),
    ),
    "streets": FoundationConfig(
        tasks=("streets", "streets", "navigation"),
        steps=600,
        more_steps=0,
        tokens_per_step=5_000,
        muon_lr=0.01,
        adam_lr=2e-3,
        vision=VisionConfig(language="navigation"),
    ),
}


def draw(config: FoundationConfig, rng: random.Random, progress: float) -> Document:
    """A document of one of the tasks' curricula."""
    return CURRICULA[rng.choices(config.tasks)[0]](rng, progress)


def foundation_tokenizer(config: FoundationConfig, documents: int = 4_000) -> PreTrainedTokenizerFast:
    """The tokenizer of a foundation model, from a sample of its curricula and the tasks' own texts."""
    rng = random.Random(config.seed)
    texts = document_texts(draw(config, rng, rng.random()) for _ in range(documents))
    words: list[str] = []
    if "general_points" in config.tasks:
        texts += points_texts()
    if "navigation" in config.tasks:
        texts += navigation_texts()
        words = navigation_words()
    return build_tokenizer(texts, words=words)


def tokens_per_picture(policy: Policy) -> int:
    """Into how many tokens the model turns a picture; 0 for a text model."""
    vision = getattr(policy.model.config, "vision_config", None)
    return (vision.image_size // vision.patch_size) ** 2 if vision else 0


def pictures(doc: Document) -> list[np.ndarray]:
    """What a document shows, in order."""
    return [turn.picture for turn in doc if turn.picture is not None]


def encode(doc: Document, tokenizer: PreTrainedTokenizerFast, image_tokens: int = 0) -> tuple[list[int], list[int]]:
    """(token ids, labels) of a document; tokens of turns that are not to be learnt have the label -100."""
    role_token = {role: tokenizer.convert_tokens_to_ids(t) for role, t in (("user", USER), ("assistant", ASSISTANT))}
    end = tokenizer.convert_tokens_to_ids(END)
    ids: list[int] = []
    labels: list[int] = []
    encoded = tokenizer([turn.content for turn in doc], add_special_tokens=False).input_ids
    for turn, tokens in zip(doc, encoded, strict=True):
        if turn.role in role_token:
            ids.append(role_token[turn.role])
            labels.append(IGNORED)
        if turn.picture is not None:
            ids += [tokenizer.convert_tokens_to_ids(IMAGE)] * image_tokens
            labels += [IGNORED] * image_tokens
        if turn.role == "assistant":
            tokens = [*tokens, end]
        ids += tokens
        labels += tokens if turn.learn else [IGNORED] * len(tokens)
    return ids, labels


def batches(
    config: FoundationConfig, policy: Policy, first_step: int = 0, group: int = 8
) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]:
    """Yields (ids, labels), each (rows, tokens) and right-padded, and the pictures in them, from `first_step` on.

    Documents of `group` steps are sorted by length and cut into batches of equal padded size, so that little of a
    batch is padding and every step costs the same. A group depends on the seed and its number alone.
    """
    for number in range(first_step // group, -(-config.total_steps // group)):
        rng = random.Random(f"{config.seed}/{number}")
        rows, cut, progress = [], [], min(1.0, number * group / config.steps)
        size = 0
        while size < group * config.tokens_per_step:
            doc = draw(config, rng, progress)
            rows.append((*encode(doc, policy.tokenizer, tokens_per_picture(policy)), pictures(doc)))
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
        for index, batch in enumerate(cut[:group]):
            if first_step <= number * group + index < config.total_steps:
                shown = [picture for *_, row in batch for picture in row]
                seen = policy.processor.image_processor(shown, return_tensors="pt") if shown else {}
                yield *pad_right([row[:2] for row in batch], policy.tokenizer.pad_token_id), dict(seen)


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
    """Mean cross-entropy over the labelled tokens. Logits are computed at those positions only.

    Right padding needs no attention mask: no real token attends to what follows it.
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
    """Where pretraining begins: a new model, or a text model with new eyes."""
    if config.vision:
        rng = random.Random(config.seed)
        texts = document_texts(draw(config, rng, rng.random()) for _ in range(1_000))
        texts += navigation_texts(modality="image") if "streets" in config.tasks else points_texts(modality="image")
        return with_eyes(config.vision, phrases(texts, least=20), config.seed)
    tokenizer = foundation_tokenizer(config)
    return Policy(new_model(config, tokenizer), tokenizer)


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` whose Newton-Schulz iteration is computed in float32, all matrices of a shape at once.

    PyTorch's is fixed to bfloat16, matrix by matrix: 8 times as slow on a CPU, and then half of a training step.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                updates = []
                for matrix in matrices:
                    average = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                    average.lerp_(matrix.grad, 1 - group["momentum"])
                    updates.append(matrix.grad.lerp(average, group["momentum"]) if group["nesterov"] else average)
                orthogonal = newton_schulz(torch.stack(updates), group["ns_coefficients"], group["ns_steps"])
                scale = group["lr"] * max(1.0, matrices[0].shape[0] / matrices[0].shape[1]) ** 0.5
                for matrix, update in zip(matrices, orthogonal, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def newton_schulz(matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """(n, rows, columns) -> the same with all singular values near one; see `torch.optim.Muon`."""
    a, b, c = coefficients
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


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

    Continues from ``folder/training`` if a run of the same configuration was interrupted.
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
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def read_record(name: str) -> dict:
    """How a shipped foundation model was made. Raises CheckpointError if there is no record of it."""
    path = Path(model_folder(name)) / "record.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} has no readable record of how it was made ({error}).") from error


@torch.no_grad()
def capabilities(policy: Policy, tasks: tuple[str, ...], samples: int = 256, seed: int = 1_000_000) -> dict[str, float]:
    """Share of right greedy answers on fresh documents, and on what pretraining holds out in a known format.

    An answer is right if it is what the document says or, where several formulas will do, if it makes the target.
    """
    rng = random.Random(seed)
    relative = navigation_curriculum.ActionSpace(navigation_curriculum.OFFICIAL_TURN, "forward()", "stop()", TURNS)

    def held_out(here: navigation_curriculum.Situation) -> navigation_curriculum.Situation:
        return replace(here, space=relative)

    kinds = {
        "general_points": {
            "calculation": points_curriculum.calculation,
            "reading cards, random rules": points_curriculum.reading,
            "making 24 or another target": points_curriculum.making,
            "conversation, random rules": points_curriculum.conversation,
            "conversation after failures": lambda r: points_curriculum.conversation(r, most_attempts=5),
            "conversation, rule 11/12/13": lambda r: points_curriculum.conversation(r, rule=RULES["distinct"]),
        },
        "navigation": {
            "turning, any action space": navigation_curriculum.turning,
            "reciting an instruction": navigation_curriculum.reciting,
            "conversation, any action space": navigation_curriculum.conversation,
            "conversation after a failure": lambda r: navigation_curriculum.conversation(r, most_attempts=2),
            "conversation, turn_direction(left)": lambda r: navigation_curriculum.conversation(
                r, here=held_out(navigation_curriculum.random_situation(r))
            ),
        },
        "streets": {
            "looking": streets_curriculum.looking,
            "looking, Hong Kong": lambda r: streets_curriculum.looking(r, "hong_kong"),
            "street views, any action space": streets_curriculum.conversation,
            "street views, turn_direction(left)": lambda r: navigation_curriculum.conversation(
                r, here=held_out(streets_curriculum.random_situation(r))
            ),
            "street views, Hong Kong": lambda r: streets_curriculum.conversation(r, look="hong_kong"),
        },
        "cards": {
            "reading a picture": cards_curriculum.reading,
            "reading a picture of red cards": lambda r: cards_curriculum.reading(r, "red"),
            "picture, random rules": cards_curriculum.conversation,
            "picture, rule 11/12/13": lambda r: cards_curriculum.conversation(r, rule=RULES["distinct"]),
        },
    }
    scores = {}
    for name, kind in [item for task in dict.fromkeys(tasks) for item in kinds[task].items()]:
        prompts, answers, shown = [], [], []
        for _ in range(samples):
            doc = kind(rng)
            ids, labels = encode(doc, policy.tokenizer, tokens_per_picture(policy))
            shown += pictures(doc)[:1]  # what comes before the first answer
            first = next(i for i, label in enumerate(labels) if label != IGNORED)
            last = next((i for i in range(first, len(ids)) if labels[i] == IGNORED), len(ids))
            prompts.append(ids[:first])
            answers.append(policy.tokenizer.decode(ids[first:last], skip_special_tokens=True))
        said = greedy(policy, prompts, max(len(policy.tokenizer(a).input_ids) for a in answers) + 1, shown)
        right = [is_right(text, first_line(answer)) for text, answer in zip(said, answers, strict=True)]
        scores[name] = sum(right) / samples
    return scores


def greedy(policy: Policy, prompts: list[list[int]], tokens: int, shown: list[np.ndarray]) -> list[str]:
    """Greedy continuations of left-padded prompts about pictures, cut at a line end unless they are JSON."""
    padded = policy.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(policy.device)
    seen = policy.processor.image_processor(shown, return_tensors="pt") if shown else {}
    said = policy.model.generate(**padded, **seen, max_new_tokens=tokens, do_sample=False)
    texts = policy.tokenizer.batch_decode(said[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
    return [first_line(text) for text in texts]


def first_line(text: str) -> str:
    """The first line of an answer; all of it where it is JSON."""
    return text if text.startswith("{") else text.split("\n")[0] + "\n"


_NUMBER = re.compile(r'(?<=": ")\d+\. ')  # of an instruction, which answers may tell or not
_EQUATION = re.compile(r"([-+*/()\d]+)=(\d+)")


def is_right(text: str, expected: str) -> bool:
    """Whether `text` equals `expected`, up to an instruction's number or a formula of the same numbers and value."""
    text, expected = _NUMBER.sub("", text), _NUMBER.sub("", expected)
    ours, theirs = _EQUATION.search(text), _EQUATION.search(expected)
    if not ours or not theirs:
        return text == expected
    same_frame = _EQUATION.sub("", text) == _EQUATION.sub("", expected) and ours[2] == theirs[2]
    tokens = parse_formula(ours[1])
    if not same_frame or tokens is None:
        return False
    numbers = sorted(re.findall(r"\d+", ours[1]))
    return numbers == sorted(re.findall(r"\d+", theirs[1])) and formula_value(tokens) == int(theirs[2])


def main() -> None:
    """``make foundation``: train the shipped text models again."""
    parser = argparse.ArgumentParser(description="Train the tiny text foundation models and ship them.")
    parser.add_argument("--models", nargs="+", choices=list(FOUNDATIONS), default=list(FOUNDATIONS), help="which")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="where the models go")
    parser.add_argument("--work", type=Path, default=build("foundation"), help="checkpoints, to resume from")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    for name in options.models:
        pretrain(FOUNDATIONS[name], options.work / name)
        ship(options.work / name, options.folder / name)


def ship(work: Path, folder: Path) -> None:
    """Copy a finished model to `folder` with its capability table; weights are kept in float32."""
    policy = load_policy(work)
    record = json.loads((work / "record.json").read_text())
    record["capabilities"] = capabilities(policy, tuple(record["config"]["tasks"]))
    record["versions"] = {
        "sftrl_lib": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    policy.save(folder)
    (folder / "record.json").write_text(json.dumps(record))
    for name, score in record["capabilities"].items():
        print(f"{name:32} {100 * score:5.1f} %")
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
