"""A language model as the agent: chat messages in; token ids, log-probabilities and values out.

Works with any decoder of `transformers` whose tokenizer has a chat template, fully trained or with LoRA adapters.

With a processor it takes pictures as well, by image processors that only need Pillow. Two kinds of vision-language
models are supported: those that turn a picture into a run of image tokens in the sequence, as LLaVA does
(`LlavaForConditionalGeneration`, here with SigLIP as its vision tower), which are ordinary decoders once the picture's
features have replaced its image tokens; and Mllama, the paper's Llama-3.2-Vision, which takes pictures by cross
attention, outside the sequence (see `mllama.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..configs import LoRAConfig
from ..files import check_seal, reason
from .chat_template import ChatTemplate, Messages, check_template
from .checkpoint import CheckpointError
from .decoding import Decoding
from .mllama import crossing_layers
from .pictures import Picture
from .sources import (
    base_model,
    cannot_load,
    check_config,
    check_finite,
    check_model,
    check_tensors,
    model_folder,
    pick_device,
)

_REFERENCE, _NONE = "init", "none"  # the adapters of Init beside those that learn, or their absence
_MASKED = -1e9  # logit of a token that is never sampled; finite, because -inf * 0 in the entropy would be NaN


@dataclass(frozen=True)
class Prompt:
    """The model's input for one answer."""

    ids: list[int]
    picture: Picture | None = None  # the one whose image tokens are in `ids`


class ValueHead(torch.nn.Module):
    """The critic: hidden state of the last prompt token -> expected return of the attempt.

    Official code: MLP 4096-1024-512-1 with ReLU on the shared backbone. Ours is the same shape scaled to the model.
    """

    def __init__(self, hidden_size: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(hidden_size, hidden_size),
                torch.nn.ReLU(),
                torch.nn.Linear(hidden_size, hidden_size // 2),
                torch.nn.ReLU(),
                torch.nn.Linear(hidden_size // 2, 1),
            )
            torch.nn.init.zeros_(self.layers[-1].weight)
            torch.nn.init.zeros_(self.layers[-1].bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden size) -> (...)."""
        return self.layers(hidden.float()).squeeze(-1)


@dataclass
class Policy:
    """A model and its tokenizer; for PPO also the critic, for pictures the processor that contains the tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    value_head: ValueHead | None = None
    processor: ProcessorMixin | None = None
    mixed: bool = False  # learn with bfloat16 products of float32 weights
    adapters: str = ""  # those of its model that speak, where it shares the model with another policy

    def precision(self) -> torch.autocast:
        """The context in which the decoder learns: in RL and in teaching head, critic and losses stay in float32.

        TRL's SFT runs the head in bfloat16 as well.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def reference(self, folder: Path) -> Policy:
        """The policy in `folder` on this one's model: with a second set of adapters, or none; no second model.

        None if `folder` is that of the weights below the adapters. It answers inside ``with
        reference.adapters_active()`` only, never learns, and is not saved.
        """
        if not (Path(folder) / "adapter_config.json").is_file():
            return replace(self, adapters=_NONE, value_head=None)
        report = self.model.load_adapter(str(folder), _REFERENCE, is_trainable=False)
        check_tensors(report._asdict(), str(folder))
        return replace(self, adapters=_REFERENCE, value_head=None)

    @contextmanager
    def adapters_active(self) -> Iterator[None]:
        """Switches its adapters in, if it shares its model; inside, no other policy of that model is to be used."""
        if not self.adapters:
            yield
            return
        if self.adapters == _NONE:
            with self.model.disable_adapter():
                yield
            return
        before, learning = self.model.active_adapter, [p for p in self.model.parameters() if p.requires_grad]
        self.model.set_adapter(self.adapters)
        try:
            yield
        finally:
            self.model.set_adapter(before)
            self.model.requires_grad_(False)  # peft lets all learn that it switches in, also what was frozen
            for parameter in learning:
                parameter.requires_grad_(True)

    def merged(self) -> Policy:
        """The policy with its adapters added to the weights below them, an ordinary model; this one is used up."""
        return replace(self, model=self.model.merge_and_unload()) if hasattr(self.model, "peft_config") else self

    @property
    def decoder(self) -> torch.nn.Module:
        """The model without its language-model head, including any vision tower; LoRA adapters stay active."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden size) -> (..., vocabulary), in float32. Masks the image token, which is never sampled."""
        logits = self.model.get_output_embeddings()(hidden).float()
        if cap := getattr(self.model.config.get_text_config(), "final_logit_softcapping", None):  # Gemma 2
            logits = cap * torch.tanh(logits / cap)
        if self.image_token is not None and self.image_token < logits.shape[-1]:  # Mllama's has no logit
            logits[..., self.image_token] = _MASKED
        return logits

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def parameters_count(self) -> int:
        """N of the compute formulas: parameters of the model, with a vision tower, without critic and reference."""
        return sum(p.numel() for name, p in self.model.named_parameters() if f".{_REFERENCE}." not in name)

    @property
    def end_token(self) -> int:
        """Id of the token that ends an answer: the tokenizer's eos, which `load_policy` has seen the template write."""
        return self.tokenizer.eos_token_id

    @cached_property
    def image_token(self) -> int | None:
        """Id of the token that a picture's features replace; None for a text model."""
        return None if self.processor is None else self.processor.image_token_id

    @property
    def crosses(self) -> bool:
        """Whether it takes pictures by cross attention, so that even the tokens before one depend on it."""
        return bool(crossing_layers(self.model.config.get_text_config()))

    @property
    def picture_tokens(self) -> int:
        """What a picture counts in compute beside its tokens in the sequence: Mllama's, the patches of a tile.

        As in the official code's account, where it is 1,600; in other models a picture is tokens of the sequence.
        """
        if not self.crosses or self.processor is None:
            return 0
        vision = self.model.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    @cached_property
    def decoding(self) -> Decoding:
        """Its decoder, kept from one rollout to the next with the memory of its cache."""
        return Decoding(self)

    def prompt(self, observation: Mapping[str, Any]) -> Prompt:
        """Encode an environment's observation: its "messages" and, if there is one, its "image".

        "image" is uint8, height x width x 3; its place in the messages becomes the picture's run of image tokens.
        Raises ValueError if the model is a text model, or unless the image has exactly one place in the messages.
        """
        messages = observation["messages"]
        contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
        places = sum(part["type"] == "image" for content in contents for part in content)
        if places != ("image" in observation):
            shown = "an image" if "image" in observation else "no image"
            raise ValueError(f"The observation has {shown}, but {places} places for one in its messages.")
        if not places:
            return Prompt(self.prompt_ids(messages))
        if self.processor is None:
            name = type(self.model).__name__
            raise ValueError(f"{name} is a text model; the image tasks need a vision-language model.")
        picture = Image.fromarray(observation["image"])
        text = self._chat.render(messages)
        read = self.processor(text=text, images=[picture], add_special_tokens=False, return_tensors="pt")
        ids, _ = read.pop("input_ids")[0].tolist(), read.pop("attention_mask")
        read.pop("cross_attention_mask", None)  # of Mllama, which is made anew for every length
        return Prompt(ids, dict(read))

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Token ids of a conversation without a picture, up to where the model should answer."""
        return self.tokenizer(self._chat.render(messages), add_special_tokens=False).input_ids

    def continuation_ids(self, user_message: str) -> list[int]:
        """Token ids from the end token of an answer to the next one, for a `user_message` without a picture.

        The history keeps the sampled ids: text is never decoded and encoded again.
        """
        return self.tokenizer(self._chat.reply(user_message), add_special_tokens=False).input_ids

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.processor)

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the model, the tokenizer (or processor) and the critic; all but the last load with the Auto classes.

        `weights`: ``model.*`` and ``value_head.*``, to be written instead of the modules' own.
        """
        given = {"model": None, "value_head": self.value_head and self.value_head.state_dict()}
        for part in {name.partition(".")[0] for name in weights or ()}:
            module = getattr(self, part)
            names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}  # tied ones once
            given[part] = {name: weights[f"{part}.{name}"] for name in sorted(names) if f"{part}.{name}" in weights}
        if backend := getattr(self.tokenizer, "backend_tokenizer", None):
            backend.no_padding()  # a trainer leaves its padding set in the tokenizer, which would be saved
            backend.no_truncation()
        own = {"selected_adapters": ["default"]} if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(folder, state_dict=given["model"], **own)
        (self.processor or self.tokenizer).save_pretrained(folder)
        if self.value_head is not None:
            save_file(given["value_head"], Path(folder) / "value_head.safetensors")


def load_policy(
    name: str | Path, dtype: str = "float32", device: str = "cpu", lora: LoRAConfig | None = None
) -> Policy:
    """Load a causal language model, or a vision-language model with its processor, by shipped name, folder or hub name.

    A folder of adapters is loaded with its base model; `lora` adds new adapters to a model that has none. `dtype` is
    torch's name of the weights' type, or "mixed": float32, learning with bfloat16 products. Code that comes with a
    model is never run. Raises CheckpointError if the model is missing, damaged or incomplete, if its architecture is
    not supported, or if its chat template is not fit to train with (see `chat_template`).
    """
    source = model_folder(str(name))
    base, device = base_model(source), pick_device(device)
    pictures = check_model(source).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    try:
        for folder in dict.fromkeys((source, base)):
            check_seal(Path(folder))
        # Pillow's image processors: the default needs torchvision and resizes a little differently.
        options = {"backend": "pil", "trust_remote_code": False}
        processor = AutoProcessor.from_pretrained(source, **options) if pictures else None
        tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        check_template(ChatTemplate(tokenizer, processor), source)
        model = _load_model(base, pictures, "float32" if dtype == "mixed" else dtype)
        if base != source or lora:
            model = _with_adapters(model, source if base != source else None, lora, str(name))
        model = model.to(device)
        critic = _load_critic(model, Path(source) / "value_head.safetensors")
        check_finite(model.named_parameters(), source)
    except CheckpointError:
        raise
    except Exception as error:  # transformers, peft and safetensors raise half a dozen kinds here
        raise cannot_load(source, error) from error
    return _ready(Policy(model.eval(), tokenizer, critic, processor, mixed=dtype == "mixed"), source)


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None) -> Policy:
    """A policy of a model that is loaded already; without a `tokenizer` (or processor), that of where it came from.

    The model stays where it is. Raises CheckpointError as `load_policy` does.
    """
    source = str(model.name_or_path)
    pictures = check_config(model.config, source).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if tokenizer is None:
        try:
            options = {"backend": "pil"} if pictures else {}
            kind = AutoProcessor if pictures else AutoTokenizer
            tokenizer = kind.from_pretrained(source, trust_remote_code=False, **options)
        except Exception as error:
            raise CheckpointError(
                f"There is no tokenizer in {source!r} ({reason(error)}); give it as tokenizer=."
            ) from error
    processor = tokenizer if isinstance(tokenizer, ProcessorMixin) else None
    tokenizer = processor.tokenizer if processor else tokenizer
    check_template(ChatTemplate(tokenizer, processor), source)
    return _ready(Policy(model, tokenizer, processor=processor), source)


def _ready(policy: Policy, source: str) -> Policy:
    """The policy, with a token for padding. Raises CheckpointError if its logits are not those of the model."""
    if policy.tokenizer.pad_token_id is None:
        policy.tokenizer.pad_token = policy.tokenizer.eos_token
    _check_logits(policy, source)
    return policy


@torch.no_grad()
def _check_logits(policy: Policy, source: str) -> None:
    """Raises CheckpointError if the model does more to its last hidden states than `Policy.logits` does."""
    ids = torch.tensor([[policy.end_token] * 4], device=policy.device)
    expected = policy.model(input_ids=ids, use_cache=False).logits.float()
    found = policy.logits(policy.decoder(input_ids=ids, use_cache=False).last_hidden_state)
    if policy.image_token is not None and policy.image_token < expected.shape[-1]:
        expected[..., policy.image_token] = found[..., policy.image_token]
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        raise CheckpointError(
            f"{type(policy.model).__name__} in {source!r} scales or shifts its logits in a way that is not known here; "
            "choose another architecture."
        )


def _load_model(source: str, pictures: bool, dtype: str) -> PreTrainedModel:
    """The model itself, complete."""
    architecture = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    try:
        model, report = architecture.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_tensors` refuses them, by name
        )
    except Exception as error:
        raise cannot_load(source, error) from error
    check_tensors(report, source)
    return model


def _load_critic(model: PreTrainedModel, file: Path) -> ValueHead | None:
    """The critic saved beside a model; None if there is none."""
    if not file.is_file():
        return None
    critic = ValueHead(model.config.get_text_config().hidden_size)
    critic.load_state_dict(load_file(file))
    check_finite(critic.named_parameters(), str(file.parent))
    return critic.to(model.device)


def _with_adapters(model: PreTrainedModel, saved: str | None, lora: LoRAConfig | None, name: str) -> PreTrainedModel:
    """`model` with the adapters saved in a folder, or with new ones."""
    from peft import LoraConfig, PeftConfig, get_peft_model  # takes two seconds, rarely needed

    if saved:
        config = PeftConfig.from_pretrained(saved)
        config.inference_mode = False
        model.name_or_path = config.base_model_name_or_path  # saved with the adapters, instead of a local path
        adapted = get_peft_model(model, config)
        report = adapted.load_adapter(saved, adapted.active_adapter, is_trainable=True)
        check_tensors(report._asdict(), saved)
        return adapted
    model.name_or_path = name
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng(devices=[]):  # the same adapters at every start, whatever was drawn before
            torch.manual_seed(0)
            return get_peft_model(model, config)
    except ValueError as error:
        raise CheckpointError(f"Cannot add adapters to {name!r} ({reason(error)}); change {lora}.") from error
