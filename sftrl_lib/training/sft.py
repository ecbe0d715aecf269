"""Supervised fine-tuning with TRL's `SFTTrainer` (paper C.1-C.2).

How they differ:
* paper / official code: full fine-tuning, batch 128, lr 1e-6, warm-up 3 %, cosine asked for but overridden by a
  constant rate, loss on the assistant's tokens. The released vision path silently trains without images.
* ours: the same with TRL's trainer; batch 64, a larger rate for a smaller model, cosine; loss on the answer only.
  Demonstrations with a column of images go through TRL's own collator for them, which renders the chat and reads the
  pictures batch by batch; `tests/test_pictures_training.py` proves that they reach the loss. For Mllama, where that
  collator fails, `mllama_collator` does. ``pictures="dropped"`` does on purpose what the released path does: the image
  tokens stay in the prompt, the pictures are left out.
* ``loss="dft"`` is TRL's; ``kl_coef`` adds the exact KL(policy || Init) at the answer's tokens. The forward pass of
  Init is not counted as training compute, as PPO's KL is not.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from ..configs import SFTConfig
from ..files import flush, reason, seal, write_atomically
from ..models.checkpoint import damaged_file
from ..models.policy import Policy
from ..models.sources import check_tensors
from ..progress import progress_bar
from .branch import Branch
from .collators import IGNORED, mllama_collator, without_pictures
from .data import LEARNT
from .finite import check_number, check_weights
from .snapshots import write_snapshot
from .tracking import chosen

_VISION = ("vision_tower", "vision_model")  # in LLaVA, in Mllama
PARTS = {  # `SFTConfig.frozen` -> the frozen parts of the model (paper Fig. 16)
    "none": (),
    "vision": _VISION,
    "vision+adapter": (*_VISION, "multi_modal_projector"),
}
_WRITTEN = {"trainer_state.json", "scheduler.pt"}  # in each checkpoint of TRL's, and one of each of these:
_OPTIMIZERS = {"optimizer.pt", "optimizer_0", "latest"}  # whole, FSDP's shards, DeepSpeed's
_RANDOM = {"rng_state.pth", "rng_state_0.pth"}  # of one process, of the first of several
_SHARDS = {"pytorch_model_fsdp_0", "latest"}  # weights in shards
LENGTH = "length"  # column: tokens of an example with a picture, for batches of similar length


class _Snapshots(TrainerCallback):
    """Writes the snapshots of a branch while TRL trains it; seals TRL's own checkpoints and sees them to the disk."""

    def __init__(self, branch: Branch, trainer: _Trainer, steps: set[int]) -> None:
        self.branch, self.trainer, self.steps = branch, trainer, steps

    def on_step_end(self, args, state, control, **kwargs):
        branch = self.branch
        if state.global_step in self.steps:
            branch.compute.trained_tokens = trained_tokens(branch, state)
            weights = self.trainer.whole_weights()
            if branch.processes.main:
                write_snapshot(branch.policy, branch.folder, state.global_step, branch.compute, weights)

    def on_save(self, args, state, control, **kwargs):
        self.branch.processes.wait()
        if self.branch.processes.main:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            seal(checkpoint)
            flush(checkpoint)


class _Bar(TrainerCallback):
    """The training bar, in place of TRL's, which stays when it is done and prints a table."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress_bar(state.max_steps, f"SFT seed {args.seed}", "step", shown=state.is_world_process_zero)
        self.bar.update(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class _FiniteWeights(TrainerCallback):
    """Stops at a weight that is not finite, before it gets into a snapshot or a checkpoint."""

    def __init__(self, config: SFTConfig) -> None:
        self.config = config

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        check_weights(model, "SFT", self.config)


class _EpochLengths(LengthGroupedSampler):
    """Batches of examples of similar length, in an order that depends only on the seed and the epoch.

    transformers gives its own sampler no generator, so a resumed run would draw another order.
    """

    epoch = 0

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        self.generator.manual_seed(self.seed + 1_000_003 * self.epoch)
        return super().__iter__()


class _Trainer(SFTTrainer):
    """TRL's trainer, but an interrupted run gives the same result (`tests/test_interrupted_training.py`).

    And it stops at a loss or gradient that is not finite, where transformers logs a loss of 0 and trains on.
    """

    def __init__(self, *args, config: SFTConfig, policy: Policy, reference: Policy | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config, self.policy, self.reference = config, policy, reference
        if config.pictures == "dropped":
            self.data_collator = without_pictures(self.data_collator)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.config.kl_coef:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        wanted = inputs.pop("labels")[:, 1:]
        answers = wanted != IGNORED
        log_p = _log_probabilities(self.policy, inputs, answers)
        with torch.no_grad(), self.reference.adapters_active():
            log_init = _log_probabilities(self.reference, inputs, answers)
        loss = -log_p.gather(-1, wanted[answers][:, None]).mean()
        return loss + self.config.kl_coef * (log_p.exp() * (log_p - log_init)).sum(-1).mean()

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        check_number(loss.item(), "SFT's loss", self.config)
        return loss

    def _get_grad_norm(self, *args, **kwargs):
        norm = super()._get_grad_norm(*args, **kwargs)
        check_number(float(norm), "SFT's gradient", self.config)
        return norm

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Load the weights as they are loaded everywhere else. Raises CheckpointError unless they are this model's.

        transformers reads the file with ``strict=False``. The names in a saved LLaVA are not those of the module, so
        nothing would be loaded and training would silently continue from its initial weights.
        """
        source = str(resume_from_checkpoint)
        if self.in_shards:  # accelerate reads them, and is strict
            super()._load_from_checkpoint(source, model)
            return
        if hasattr(self.model, "peft_config"):  # adapters alone
            loaded = self.model.load_adapter(source, self.model.active_adapter, is_trainable=True)
            check_tensors(loaded._asdict(), source)
            return
        options = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # `check_tensors` refuses them
        saved, report = type(self.model).from_pretrained(source, dtype=self.model.dtype, **options)
        check_tensors(report, source)
        self.model.load_state_dict(saved.state_dict())

    @property
    def in_shards(self) -> bool:
        """Whether its checkpoints are those of FSDP or DeepSpeed."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def whole_weights(self) -> dict[str, torch.Tensor] | None:
        """The weights on the main process, as ``model.*``, where they are in shards; else None. All must call it."""
        if not self.is_fsdp_enabled:
            return None
        weights = self.accelerator.get_state_dict(self.model_wrapped)
        return {f"model.{name}": weight for name, weight in weights.items()}

    def train_to(self, steps: int, checkpoint: Path | None) -> None:
        """Train to `steps`, from a checkpoint if there is one; one at the last step is only loaded."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else TrainerState()
        if state.global_step < steps:
            try:
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            except FloatingPointError as error:
                raise FloatingPointError(f"Step {self.state.global_step + 1}: {error}") from None
        else:  # transformers would train one more step
            self._load_from_checkpoint(str(checkpoint))
            self.state = state

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        return _EpochLengths(sampler.batch_size, sampler.lengths, self.args.seed)


def _log_probabilities(policy: Policy, inputs: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
    """(answer tokens, vocabulary); `answers`, (rows, length - 1), marks the tokens before theirs."""
    hidden = policy.decoder(**inputs, use_cache=False).last_hidden_state[:, :-1]
    return torch.log_softmax(policy.logits(hidden[answers]), dim=-1)


def last_complete(training: Path) -> Path | None:
    """The newest of the trainer's own checkpoints that is whole, if there is one.

    Newer ones, which a kill or a power cut has left in pieces or a disk has changed, are removed with a message.
    """
    steps = (path.name.removeprefix("checkpoint-") for path in training.glob("checkpoint-*/"))
    torn, whole = {}, None
    for step in sorted(map(int, filter(str.isdecimal, steps)), reverse=True):
        checkpoint = training / f"checkpoint-{step}"
        problem = _problem(checkpoint)
        if problem is None:
            whole = checkpoint
            break
        torn[checkpoint] = problem
    then = f"goes on from {whole.name}" if whole else "starts over"
    for checkpoint, problem in torn.items():
        print(f"{checkpoint} is not whole ({problem}); SFT {then}.")
        shutil.rmtree(checkpoint)
    return whole


def _problem(checkpoint: Path) -> str | None:
    """Why one of the trainer's checkpoints cannot be resumed from; transformers would leave out what is missing."""
    if damaged := damaged_file(checkpoint):
        path, why = damaged
        return f"{path.name}: {reason(why)}"
    names, needed = {path.name for path in checkpoint.iterdir()}, set(_WRITTEN)
    needed |= {sorted(some)[-1] for some in (_OPTIMIZERS, _RANDOM) if not some & names}
    for index in checkpoint.glob("*.safetensors.index.json"):  # of weights in several files
        needed |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    if missing := sorted(needed - names):
        return f"no {missing[0]}"
    if not names & {"config.json", "adapter_config.json", *_SHARDS}:
        return "no config.json"
    if not names & _SHARDS and not any(name.endswith(".safetensors") for name in names):
        return "no weights"
    try:
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except TypeError as error:
        return f"trainer_state.json: {reason(error)}"
    return None


@contextmanager
def frozen(policy: Policy, what: str) -> Iterator[None]:
    """Freeze the parts of the model called `what` inside the block.

    Raises ValueError for a name that is not a key of `PARTS`, and for parts that the model does not have.
    """
    if what not in PARTS:
        raise ValueError(f"frozen={what!r} is not known; use one of {', '.join(map(repr, PARTS))}.")
    if PARTS[what] and policy.processor is None:
        raise ValueError(f"frozen={what!r} needs a vision-language model; {type(policy.model).__name__} has no vision.")
    parts = [getattr(policy.decoder, name) for name in PARTS[what] if hasattr(policy.decoder, name)]
    learning = [p for part in parts for p in part.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def trained_tokens(branch: Branch, state: TrainerState) -> int:
    """D_SFT so far, with what pictures count beside their tokens in the sequence."""
    pictured = "images" in branch.data.column_names and branch.config.pictures == "shown"
    pictures = state.global_step * branch.config.batch_size if pictured else 0
    return int(state.num_input_tokens_seen) + branch.policy.picture_tokens * pictures


def example_lengths(policy: Policy, dataset: Dataset) -> list[int]:
    """Number of tokens of every example, prompt, answer and the image tokens of its picture together.

    All pictures of a dataset get the same number of tokens, so only the first one is counted.
    """
    pictured = "images" in dataset.column_names
    processor = policy.processor if pictured else policy.tokenizer
    chats = dataset.select_columns(["prompt", "completion"])
    texts = [processor.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in chats]
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
    shown = "images" in dataset.column_names and config.pictures == "shown"
    tokens = tokens_per_example(policy, dataset) + policy.picture_tokens * shown
    per_step = 6 * policy.parameters_count * config.batch_size * tokens
    return max(1, round(flops / per_step))


def train(branch: Branch, save_every: int = 100) -> None:
    """Continue with SFT for what is left of the branch's budget; see `Branch` for what it writes.

    Raises ValueError if pictures are to be dropped from data that has none.
    """
    if branch.config.pictures == "dropped" and "images" not in branch.data.column_names:
        raise ValueError(f"pictures='dropped' needs demonstrations with pictures; {branch.task.label} has none.")
    steps = steps_for(branch.policy, branch.data, branch.config, branch.budget - branch.compute.fork_flops)
    train_steps(branch, steps, save_every=save_every)


def train_steps(
    branch: Branch, steps: int, schedule: str = "cosine", save_every: int = 100
) -> dict[str, torch.Tensor] | None:
    """SFT for `steps` steps, with a schedule of transformers'.

    Writes ``step-NNNNN`` at `branch.checkpoints` equal shares of the steps (none if that is 0), ``log.json`` at the
    end, and resumes from the trainer's own checkpoints in ``training``, one every `save_every` steps. Returns the whole
    weights at the end (``model.*``) where the policy's own are in shards, else None. Raises FloatingPointError at the
    first loss, gradient or weight that is not finite; the last checkpoint stays. Raises ValueError for what several
    processes cannot do.
    """
    policy, config, compute, processes = branch.policy, branch.config, branch.compute, branch.processes
    if config.batch_size % processes.count:
        raise ValueError(f"{processes.count} processes cannot share SFTConfig.batch_size = {config.batch_size}.")
    if config.kl_coef and processes.count > 1:
        raise ValueError("SFTConfig.kl_coef works with one process only; train this run without accelerate launch.")
    before = compute.flops
    snapshots_at = {math.ceil(steps * (i + 1) / branch.checkpoints) for i in range(branch.checkpoints)}
    training = branch.folder / "training"
    dataset = branch.data.select_columns([name for name in branch.data.column_names if name in LEARNT])
    pictured = "images" in dataset.column_names
    with warnings.catch_warnings():
        # The new name is not known to all versions of transformers that this runs with.
        warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated")
        arguments = TRLConfig(
            output_dir=str(training),
            max_steps=steps,
            per_device_train_batch_size=config.batch_size // processes.count,
            learning_rate=config.lr,
            lr_scheduler_type=schedule,
            warmup_steps=config.warmup,
            weight_decay=0.0,
            adam_beta1=config.adam_betas[0],
            adam_beta2=config.adam_betas[1],
            adam_epsilon=config.adam_eps,
            max_length=None,
            train_sampling_strategy="group_by_length" if config.group_by_length else "random",
            length_column_name=LENGTH,
            remove_unused_columns=not pictured,  # TRL would drop the lengths, and its collator reads the pictures
            seed=branch.seed,
            data_seed=branch.seed,
            bf16=policy.mixed,  # autocast; the weights have the profile's dtype
            use_cpu=policy.device.type == "cpu",
            gradient_checkpointing=False,  # the model has it already where the profile says so
            include_num_input_tokens_seen="non_padding",
            save_steps=save_every,
            save_total_limit=2,
            logging_steps=max(1, steps // 50),
            logging_nan_inf_filter=False,  # which would log 0 in place of NaN
            report_to=chosen() or "none",
            run_name=branch.folder.name,
            loss_type=config.loss,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            dataset_num_proc=None,
        )
    if arguments.n_gpu > 1:  # transformers would multiply the batch by the GPUs that it sees
        arguments._n_gpu = 1
    if pictured and config.group_by_length:
        dataset = dataset.add_column(LENGTH, example_lengths(policy, dataset))
    with frozen(policy, config.frozen):
        trainer = _Trainer(
            model=policy.model,
            args=arguments,
            train_dataset=dataset,
            processing_class=policy.processor if pictured else policy.tokenizer,
            data_collator=mllama_collator(policy.processor) if pictured and policy.crosses else None,
            callbacks=[_FiniteWeights(config), _Bar()],
            config=config,
            policy=policy,
            reference=branch.reference,
        )
        trainer.remove_callback(PrinterCallback)  # which disable_tqdm puts in place of the bar
        trainer.add_callback(_Snapshots(branch, trainer, snapshots_at))
        with processes.main_first():
            checkpoint = last_complete(training)
            if checkpoint and checkpoint.name == f"checkpoint-{steps}" and trainer.in_shards:
                shutil.rmtree(
                    checkpoint
                )  # transformers reads shards only to train on, so its last steps are done again
                checkpoint = last_complete(training)
        trainer.train_to(steps, checkpoint)
    compute.trained_tokens = trained_tokens(branch, trainer.state)
    per_step = (compute.flops - before) / steps
    history = [
        {"step": e["step"], "flops": before + per_step * e["step"], "loss": float(e["loss"])}
        for e in trainer.state.log_history
        if "loss" in e
    ]
    if processes.main:
        write_atomically(branch.folder / "log.json", json.dumps(history))
    policy.model.eval()
    return trainer.whole_weights()
