"""A language model as the agent: chat messages in; token ids, log-probabilities and values out.

Works with any decoder of `transformers` whose tokenizer has a chat template, fully trained or with LoRA adapters.

With a processor it takes pictures as well. Supported are vision-language models that turn a picture into a run of image
tokens in the sequence, as LLaVA does: `LlavaForConditionalGeneration`, here with SigLIP as its vision tower and the
image processors that only need Pillow. Once the picture's features have replaced its image tokens, such a model is an
ordinary decoder. The paper's own Llama-3.2-Vision (Mllama) takes pictures by cross attention, outside the sequence, and
is not supported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..configs import LoRAConfig
from ..files import reason
from ..messages import Message, message_text, parts_message
from ..paths import shipped
from .checkpoint import CheckpointError

Messages = list[Message]
Picture = dict[str, torch.Tensor]  # model inputs besides the ids, e.g. {"pixel_values": (1, 3, height, width)}

_MASKED = -1e9  # logit of a token that is never sampled; finite, because -inf * 0 in the entropy would be NaN


@dataclass(frozen=True)
class Prompt:
    """The model's input for one answer."""

    ids: list[int]
    picture: Picture | None = None  # the one whose image tokens are in `ids`


def stack_pictures(pictures: Iterable[Picture | None], device: torch.device) -> Picture | None:
    """The pictures of a batch's rows, in their order, stacked along dimension 0; None if no row has one."""
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        return None
    return {name: torch.cat([picture[name] for picture in shown]).to(device) for name in shown[0]}


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

    @property
    def decoder(self) -> torch.nn.Module:
        """The model without its language-model head, including any vision tower; LoRA adapters stay active."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden size) -> (..., vocabulary), in float32. Masks the image token, which is never sampled."""
        logits = self.model.get_output_embeddings()(hidden).float()
        if self.image_token is not None:
            logits[..., self.image_token] = _MASKED
        return logits

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def parameters_count(self) -> int:
        """N of the compute formulas: parameters of the model, including the vision tower but not the critic."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def end_token(self) -> int:
        return self.tokenizer.eos_token_id

    @cached_property
    def image_token(self) -> int | None:
        """Id of the token that a picture's features replace; None for a text model."""
        return None if self.processor is None else self.processor.image_token_id

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
        text = self._rendered(messages)
        read = self.processor(text=text, images=[picture], add_special_tokens=False, return_tensors="pt")
        ids, _ = read.pop("input_ids")[0].tolist(), read.pop("attention_mask")
        return Prompt(ids, dict(read))

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Token ids of a conversation without a picture, up to where the model should answer."""
        return self.tokenizer(self._rendered(messages), add_special_tokens=False).input_ids

    def continuation_ids(self, user_message: str) -> list[int]:
        """Token ids from the end token of an answer to the next one, for a `user_message` without a picture.

        The history keeps the sampled ids: text is never decoded and encoded again.
        """
        before, after = self._around_user_message
        text = before + self._escaped(user_message) + after
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _rendered(self, messages: Messages) -> str:
        """A conversation as the chat template renders it, up to where the model should answer."""
        messages = [self._escaped_message(message) for message in messages]
        owner = self.processor or self.tokenizer
        return owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _escaped_message(self, message: Message) -> Message:
        """`message` with its text escaped; as a list of parts if there is a processor, whose template needs it."""
        role, content = message["role"], message["content"]
        if self.processor is None:
            return {"role": role, "content": self._escaped(message_text(message))}
        if isinstance(content, str):
            return parts_message(role, self._escaped(content))
        safe = ({**part, "text": self._escaped(part["text"])} if part["type"] == "text" else part for part in content)
        return {"role": role, "content": list(safe)}

    def _escaped(self, text: str) -> str:
        """`text` with every special token broken up, so that message text cannot inject turns or images."""
        for token in self._special_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _special_tokens(self) -> list[str]:
        return [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]

    @cached_property
    def _around_user_message(self) -> tuple[str, str]:
        exchange = [{"role": "user", "content": "@"}, {"role": "assistant", "content": "@"}]
        more = [*exchange, {"role": "user", "content": "%%%"}]
        text = self._rendered(more)
        end = self.tokenizer.eos_token
        before, after = text.rsplit("%%%", 1)
        return before[before.rindex(end) + len(end) :], after

    def save(self, folder: Path) -> None:
        """Write the model, the tokenizer (or processor) and the critic; all but the last load with the Auto classes."""
        if backend := getattr(self.tokenizer, "backend_tokenizer", None):
            backend.no_padding()  # a trainer leaves its padding set in the tokenizer, which would be saved
            backend.no_truncation()
        self.model.save_pretrained(folder)
        (self.processor or self.tokenizer).save_pretrained(folder)
        if self.value_head is not None:
            save_file(self.value_head.state_dict(), Path(folder) / "value_head.safetensors")


def model_folder(name: str) -> str:
    """The shipped model of that name if there is one, else `name` itself (a path or a hub name)."""
    return str(shipped(name) or name)


def base_model(source: str) -> str:
    """The base model of the adapters in a folder; `source` itself if it has none. Raises CheckpointError."""
    adapters = Path(source) / "adapter_config.json"
    if not adapters.is_file():
        return source
    try:
        return model_folder(json.loads(adapters.read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{adapters} does not name its base model ({reason(error)}).") from error


def check_model(name: str | Path) -> PreTrainedConfig:
    """The configuration of a model, without its weights. Raises CheckpointError if it is missing or not supported."""
    source = base_model(model_folder(str(name)))
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # transformers raises half a dozen kinds here
        raise CheckpointError(f"There is no model in {source!r} ({reason(error)}).") from error
    if config.model_type == "mllama":
        raise CheckpointError(
            f"{source!r} is an Mllama model, which takes pictures by cross attention, not as tokens of the sequence; "
            "choose a vision-language model such as LLaVA."
        )
    return config


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU if there is one. Raises ValueError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} is not available here ({reason(error)}); use 'cpu' or 'auto'.") from error


def load_policy(
    name: str | Path, dtype: str = "float32", device: str = "cpu", lora: LoRAConfig | None = None
) -> Policy:
    """Load a causal language model, or a vision-language model with its processor, by shipped name, folder or hub name.

    A folder of adapters is loaded with its base model; `lora` adds new adapters to a model that has none. Raises
    CheckpointError if the folder is missing or damaged, or the architecture is not supported.
    """
    source = model_folder(str(name))
    base, device = base_model(source), pick_device(device)
    head = Path(source) / "value_head.safetensors"
    pictures = check_model(source).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    try:
        architecture = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
        model = architecture.from_pretrained(base, dtype=getattr(torch, dtype))
        if base != source or lora:
            model = _with_adapters(model, source if base != source else None, lora, str(name))
        model = model.to(device)
        # Pillow's image processors: the default needs torchvision and resizes a little differently.
        processor = AutoProcessor.from_pretrained(source, backend="pil") if pictures else None
        tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(source)
        critic = ValueHead(model.config.get_text_config().hidden_size).to(device) if head.is_file() else None
        if critic is not None:
            critic.load_state_dict(load_file(head))
    except Exception as error:  # transformers raises half a dozen kinds here
        raise CheckpointError(f"Cannot load a model from {source!r} ({reason(error)}).") from error
    if not (processor or tokenizer).chat_template:
        raise CheckpointError(f"The tokenizer of {source!r} has no chat template; choose an instruction-tuned model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model.eval(), tokenizer, critic, processor)


def _with_adapters(model: PreTrainedModel, saved: str | None, lora: LoRAConfig | None, name: str) -> PreTrainedModel:
    """`model` with the adapters saved in a folder, or with new ones."""
    from peft import LoraConfig, PeftModel, get_peft_model  # takes two seconds, rarely needed

    if saved:
        return PeftModel.from_pretrained(model, saved, is_trainable=True)
    model.name_or_path = name  # saved with the adapters, instead of a local path
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)
