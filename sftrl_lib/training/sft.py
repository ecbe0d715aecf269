"""Supervised fine-tuning with TRL's `SFTTrainer` (paper C.1-C.2).

How they differ:
* paper / official code: full fine-tuning, batch 128, lr 1e-6, warm-up 3 %, cosine asked for but overridden by a
  constant rate, loss on the assistant's tokens. The released vision path silently trains without images.
* ours: the same with TRL's trainer; batch 64, a larger rate for a smaller model, cosine; loss on the answer only.
  Demonstrations with a column of images go through TRL's own collator for them, which renders the chat and reads the
  pictures batch by batch; `tests/test_pictures_training.py` proves that they reach the loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from ..models.policy import Policy
from ..profiles import SFTConfig
from .compute import Compute
from .snapshots import write_snapshot

FROZEN = {  # what does not learn -> the parts of the model, by their names in LLaVA (paper Fig. 16)
    "none": (),
    "vision": ("vision_tower",),
    "vision+adapter": ("vision_tower", "multi_modal_projector"),
}
LENGTH = "length"  # column of the tokens of an example with a picture, from which batches of like length are made


class _Snapshots(TrainerCallback):
    """Writes the snapshots of a branch while TRL trains it."""

    def __init__(self, policy: Policy, folder: Path, compute: Compute, steps: set[int]) -> None:
        self.policy, self.folder, self.compute, self.steps = policy, folder, compute, steps

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.steps:
            self.compute.trained_tokens = int(state.num_input_tokens_seen)
            write_snapshot(self.policy, self.folder, state.global_step, self.compute)


def last_complete(training: Path) -> str | None:
    """The newest of the trainer's own checkpoints that was written to its end, if there is one."""
    complete = [path.parent for path in training.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None


@contextmanager
def frozen(policy: Policy, what: str) -> Iterator[None]:
    """The parts of the model called `what` do not learn inside the block; afterwards whatever learnt learns again.

    Raises ValueError for a name that is not a key of `FROZEN`, and for parts that the model does not have.
    """
    if what not in FROZEN:
        raise ValueError(f"frozen={what!r} is not known; use one of {', '.join(map(repr, FROZEN))}.")
    if FROZEN[what] and policy.processor is None:
        raise ValueError(f"frozen={what!r} needs a vision-language model; {type(policy.model).__name__} has no vision.")
    parts = [getattr(policy.decoder, name) for name in FROZEN[what]]
    learning = [p for part in parts for p in part.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def example_lengths(policy: Policy, dataset: Dataset) -> list[int]:
    """Number of tokens of every example, prompt, answer and the image tokens of its picture together.

    A processor makes all pictures of a data set equally large, so the first one is counted for all.
    """
    pictured = "images" in dataset.column_names
    speaker = policy.processor if pictured else policy.tokenizer
    chats = dataset.select_columns(["prompt", "completion"])
    texts = [speaker.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in chats]
    lengths = [len(ids) for ids in policy.tokenizer(texts, add_special_tokens=False).input_ids]
    if not pictured:
        return lengths
    ids = policy.processor(text=texts[:1], images=dataset[0]["images"], add_special_tokens=False).input_ids[0]
    return [length + len(ids) - lengths[0] for length in lengths]


def tokens_per_example(policy: Policy, dataset: Dataset) -> float:
    """Mean number of tokens of an example, prompt and answer together."""
    return sum(example_lengths(policy, dataset)) / len(dataset)


def steps_for(policy: Policy, dataset: Dataset, config: SFTConfig, flops: float) -> int:
    """How many steps cost `flops` of training compute."""
    per_step = 6 * policy.parameters_count * config.batch_size * tokens_per_example(policy, dataset)
    return max(1, round(flops / per_step))


def train_sft(
    policy: Policy,
    dataset: Dataset,
    config: SFTConfig,
    compute: Compute,
    steps: int,
    checkpoints: int,
    folder: Path,
    seed: int,
    schedule: str = "cosine",
    save_every: int = 100,
) -> Policy:
    """Fine-tune `policy` in place for `steps` steps and return it.

    Writes ``folder/step-NNNNN`` at `checkpoints` equal shares of the steps and continues an interrupted run from
    the trainer's own checkpoints in ``folder/training``.
    """
    at = {math.ceil(steps * (i + 1) / checkpoints) for i in range(checkpoints)}
    training = folder / "training"
    device = policy.device.type
    pictured = "images" in dataset.column_names
    arguments = TRLConfig(
        output_dir=str(training),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.lr,
        lr_scheduler_type=schedule,
        warmup_steps=config.warmup,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.98,
        adam_epsilon=1e-7,
        max_length=None,
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
        length_column_name=LENGTH,
        remove_unused_columns=not pictured,  # TRL would drop the lengths, and leaves reading pictures to its collator
        seed=seed,
        data_seed=seed,
        bf16=False,
        use_cpu=device == "cpu",
        gradient_checkpointing=False,
        include_num_input_tokens_seen="non_padding",
        save_steps=save_every,
        save_total_limit=2,
        logging_steps=max(1, steps // 50),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        dataset_num_proc=None,
    )
    if pictured and config.group_by_length:
        dataset = dataset.add_column(LENGTH, example_lengths(policy, dataset))
    with frozen(policy, config.frozen):
        trainer = SFTTrainer(
            model=policy.model,
            args=arguments,
            train_dataset=dataset,
            processing_class=policy.processor if pictured else policy.tokenizer,
            callbacks=[_Snapshots(policy, folder, compute, at)],
        )
        trainer.remove_callback(PrinterCallback)  # which disable_tqdm puts in the place of the bar
        trainer.train(resume_from_checkpoint=last_complete(training))
    compute.trained_tokens = int(trainer.state.num_input_tokens_seen)
    per_step = (compute.flops - compute.init_flops) / steps
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    history = [
        {"step": e["step"], "flops": compute.init_flops + per_step * e["step"], "loss": float(e["loss"])} for e in log
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.json").write_text(json.dumps(history))
    policy.model.eval()
    return policy
