"""Teaching a pretrained model the card game or navigation under many rules, before the paper's steps begin.

How they differ:
* paper: takes Llama-3.2-Vision-11B as it is, which can follow a stated rule.
* ours: a small pretrained model learns that first, from the documents of the tiny models' curricula (`taught` says from
  which), in plain text through its own tokenizer and chat template. Held out are the same rules, action spaces, answer
  formats, hands and routes as there.

The model lies below build/models with ``record.json``: the recipe, tokens, loss, what was held out, what it could do
before and after, and by which code; a copy is kept with the results. Runs make theirs on first use; by hand:

    make foundation MODEL=smollm2-gp-l
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from torch.utils.data import DataLoader, Dataset

from .. import __version__, fingerprint, paths
from ..configs import MICRO_BATCH_TOKENS
from ..files import disk_errors, fresh_folder, replace_folder, write_atomically
from ..models.checkpoint import load_state, save_state
from ..models.policy import Policy, check_model, load_policy
from ..profiles import Profile
from ..progress import progress_bar
from .capabilities import capabilities
from .encoding import IGNORED
from .pretrain import GROUP, Batch, FoundationConfig, batch_group
from .taught import TAUGHT, Teaching, identity

HELD_OUT = {
    "gp-l": "the rule J=11, Q=12, K=13 and all that agree with it twice; the answer's three keys together; a tenth of "
    "all hands of numbers",
    "virl-l": "the action name turn_direction with compass words and with left and right; the answer's three keys "
    "together; New York, and the names of all shops",
}
WORKERS = 4  # processes that draw and encode documents while a GPU learns


def provide(profile: Profile, name: str) -> None:
    """See that the foundation model of that name is there, if it is one that is taught: teach it on first use.

    Of several processes that need it, one teaches and the others wait. Raises CheckpointError if there is no such model
    to teach, FloatingPointError where learning breaks down.
    """
    if name not in TAUGHT or is_there(name):
        return
    check_model(TAUGHT[name].base)
    work = paths.build("foundation")
    work.mkdir(parents=True, exist_ok=True)
    with (work / f".{name}.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_there(name):
            teach(TAUGHT[name], profile.device, profile.micro_batch_tokens, profile.gradient_checkpointing)


def is_there(name: str) -> bool:
    """Whether the taught model of that name is there, complete and by today's recipe."""
    folder = paths.made_models() / name
    made = fingerprint.made_with(folder) == fingerprint.plain(identity(name))
    return made and (folder / "record.json").is_file()


def teach(
    config: Teaching,
    device: str = "auto",
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
    gradient_checkpointing: bool = False,
    save_every: int = 60,
) -> Path:
    """Teach a model and put it below build/models; returns its folder.

    Goes on where an interrupted call of the same recipe has saved, every `save_every` steps. `micro_batch_tokens`, as
    in `Profile`, changes only how the gradient is computed. One that was taught by another recipe is set aside. Raises
    FloatingPointError at the first loss that is not finite.
    """
    check_model(config.base)
    target, work = paths.made_models() / config.name, paths.build("foundation") / config.name
    policy = load_policy(config.base, config.dtype, device)
    if gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    recipe = fingerprint.plain(identity(config.name))
    state = {"model": policy.model, "optimizer": optimizer}
    with disk_errors(work):
        progress = load_state(fingerprint.claim(work, recipe) / "training", state, recipe)
        if progress is None:
            before = capabilities(policy, config.curricula, config.samples)
            progress = {"step": 0, "seconds": 0.0, "tokens": 0, "learnt": 0, "losses": [], "before": before}
        bar = progress_bar(config.steps, f"teaching {config.name}", "step")
        bar.update(progress["step"])
        begun = time.monotonic() - progress["seconds"]
        workers = WORKERS if policy.device.type == "cuda" else 0
        for ids, labels, _ in batches(config, policy, progress["step"], workers):
            optimizer.param_groups[0]["lr"] = config.lr * config.lr_scale(progress["step"])
            loss = learn(policy, ids, labels, micro_batch_tokens)
            if not math.isfinite(loss):
                step = progress["step"] + 1
                raise FloatingPointError(f"Step {step}: teaching's loss is {loss}; lower lr ({config.lr:g}).")
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress["step"] += 1
            padding = (ids != policy.tokenizer.pad_token_id).flip(1).cumsum(1) == 0
            progress["tokens"] += int((~padding).sum())
            progress["learnt"] += int((labels != IGNORED).sum())
            progress["losses"].append(round(loss, 4))
            progress["seconds"] = time.monotonic() - begun
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if progress["step"] % save_every == 0 or progress["step"] == config.steps:
                save_state(work / "training", state, progress, recipe)
        bar.close()
        policy.model.eval()
        progress["after"] = capabilities(policy, config.curricula, config.samples)
        fingerprint.claim(target, recipe)
        _write(config, policy, progress, target)
    shutil.rmtree(work)  # two gigabytes
    return target


class _Groups(Dataset):
    """The batches of every group of steps, drawn when they are asked for."""

    def __init__(self, documents: FoundationConfig, policy: Policy) -> None:
        self.documents, self.policy = documents, policy

    def __len__(self) -> int:
        return -(-self.documents.total_steps // GROUP)

    def __getitem__(self, number: int) -> list[Batch]:
        return batch_group(self.documents, self.policy, number, GROUP)


def batches(config: Teaching, policy: Policy, first_step: int = 0, workers: int = 0) -> Iterator[Batch]:
    """As `pretrain.batches`, the same whatever the number of `workers`, other processes that draw and encode."""
    documents = FoundationConfig(
        steps=config.steps, more_steps=0, tokens_per_step=config.tokens_per_step, seed=config.seed,
        curricula=config.curricula,
    )  # fmt: skip
    groups = _Groups(documents, policy)
    due = range(first_step // GROUP, len(groups))
    forked = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
    for number, group in zip(due, DataLoader(groups, batch_size=None, sampler=due, **forked), strict=True):
        for index in range(GROUP):
            if first_step <= number * GROUP + index < config.steps:
                yield group[index % len(group)]  # fewer where a document is longer than a step


def learn(policy: Policy, ids: torch.Tensor, labels: torch.Tensor, micro_batch_tokens: int) -> float:
    """Add the gradient of the mean cross-entropy over the labelled tokens, and return that mean.

    `ids` and `labels` are (rows, tokens), padded on the right. Rows are learnt from a few at a time, of at most
    `micro_batch_tokens` tokens together, which changes nothing but rounding.
    """
    policy.model.train()
    count = int((labels[:, 1:] != IGNORED).sum())
    rows = max(1, micro_batch_tokens // ids.shape[1])
    total = torch.zeros((), device=policy.device)
    for part, wanted in zip(ids.split(rows), labels[:, 1:].split(rows), strict=True):
        part, wanted = part.to(policy.device), wanted.to(policy.device)
        with policy.precision():
            hidden = policy.decoder(input_ids=part, use_cache=False).last_hidden_state[:, :-1]
        learnt = wanted != IGNORED
        logits = policy.logits(hidden[learnt])
        loss = torch.nn.functional.cross_entropy(logits, wanted[learnt], reduction="sum") / count
        loss.backward()
        total += loss.detach()
    return total.item()


def _write(config: Teaching, policy: Policy, progress: dict, target: Path) -> None:
    """The finished model with its record; it appears only when both are complete."""
    record = {
        "config": asdict(config),
        "parameters": policy.parameters_count,
        "tokens": progress["tokens"],
        "tokens_learnt": progress["learnt"],
        "held_out": [HELD_OUT[curriculum] for curriculum in config.curricula],
        "capabilities": {"before": progress["before"], "after": progress["after"]},
        "minutes": round(progress["seconds"] / 60, 1),
        "device": torch.cuda.get_device_name() if policy.device.type == "cuda" else policy.device.type,
        "code": fingerprint.library(),
        "versions": {
            "sftrl_lib": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "losses": progress["losses"],
    }
    fresh = fresh_folder(target)
    policy.save(fresh)
    (fresh / "record.json").write_text(json.dumps(record), encoding="utf-8")
    (fresh / fingerprint.MADE_WITH).write_bytes((target / fingerprint.MADE_WITH).read_bytes())
    replace_folder(fresh, target)


def keep_records(profile: Profile) -> None:
    """Copy the records of the models that a profile's studies start from to its results, which are committed."""
    for name in {study.foundation for study in profile.studies} & TAUGHT.keys():
        record = paths.made_models() / name / "record.json"
        if record.is_file():
            write_atomically(paths.results(profile.name) / f"{name}.json", record.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """``make foundation MODEL=smollm2-gp-l``: teach models by name; those that are there stay."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="+", choices=list(TAUGHT), help="of the taught models")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="learnt from at once")
    options = parser.parse_args(arguments)
    for name in options.names:
        if not is_there(name):
            teach(TAUGHT[name], options.device, options.micro_batch_tokens)
        record = json.loads((paths.made_models() / name / "record.json").read_text(encoding="utf-8"))
        print(f"{paths.made_models() / name}: taught {record['tokens']:,} tokens in {record['minutes']:g} minutes")
        for kind, after in record["capabilities"]["after"].items():
            print(f"{kind:36} {100 * record['capabilities']['before'][kind]:5.1f} % before {100 * after:5.1f} % after")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
