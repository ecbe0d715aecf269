"""A language model as the agent sees it: chat messages in, token ids, log-probabilities and values out.

Works with any decoder of `transformers` whose tokenizer has a chat template: the shipped tiny models, SmolLM2, Llama.

With a processor it sees pictures as well. The vision-language models served are those whose picture is a run of image
tokens in the sequence, as in LLaVA: `LlavaForConditionalGeneration`, here with SigLIP as its vision tower and the image
processors that need Pillow only. Such a model is a decoder like any other once the picture's features have taken the
places of its tokens. The paper's own Llama-3.2-Vision (Mllama) reads pictures by cross attention, beside the sequence,
and is not served.
"""

from __future__ import annotations

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

from ..messages import Message, message_text, parts_message
from ..paths import SHIPPED
from .checkpoint import CheckpointError, reason

Messages = list[Message]
Picture = dict[str, torch.Tensor]  # what the model takes beside the ids, e.g. {"pixel_values": (1, 3, height, width)}

_NEVER = -1e9  # logit of a token that is never said; finite, because an entropy multiplies it by its probability of 0


@dataclass(frozen=True)
class Prompt:
    """What the model reads before it answers."""

    ids: list[int]
    picture: Picture | None = None  # of the one picture whose image tokens are among the ids


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
    """A model, its tokenizer and, for PPO, its critic; for pictures, the processor that the tokenizer is part of."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    value_head: ValueHead | None = None
    processor: ProcessorMixin | None = None

    @property
    def decoder(self) -> torch.nn.Module:
        """The model without its language-model head, with its vision tower if it has one; LoRA adapters stay active."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden size) -> (..., vocabulary), in float32. The image token is never said: it has no picture."""
        logits = self.model.get_output_embeddings()(hidden).float()
        if self.image_token is not None:
            logits[..., self.image_token] = _NEVER
        return logits

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def parameters_count(self) -> int:
        """N of the compute formulas: parameters of the model, vision tower included, without the critic."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def end_token(self) -> int:
        return self.tokenizer.eos_token_id

    @cached_property
    def image_token(self) -> int | None:
        """Id of the token in whose places the features of a picture are put; None for a text model."""
        return None if self.processor is None else self.processor.image_token_id

    def prompt(self, observation: Mapping[str, Any]) -> Prompt:
        """An environment's observation, ready for the model: its "messages" and, where there is one, its "image".

        "image" is uint8, height x width x 3; its place in the messages becomes the picture's run of image tokens.
        Raises ValueError if the model cannot see it, or if it has not exactly one place in the messages.
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
        """Token ids of a conversation without a picture that ends where the model should answer."""
        return self.tokenizer(self._rendered(messages), add_special_tokens=False).input_ids

    def continuation_ids(self, user_message: str) -> list[int]:
        """Token ids that follow the end token of an answer when the user says `user_message`, which has no picture.

        History keeps the ids that were sampled: text is never decoded and encoded again on the way.
        """
        before, after = self._around_user_message
        text = before + self._harmless(user_message) + after
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _rendered(self, messages: Messages) -> str:
        """The chat template's text of a conversation, up to where the model should answer."""
        messages = [self._harmless_message(message) for message in messages]
        speaker = self.processor or self.tokenizer
        return speaker.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _harmless_message(self, message: Message) -> Message:
        """`message` without control tokens in its text; in parts if there is a processor, whose template wants them."""
        role, content = message["role"], message["content"]
        if self.processor is None:
            return {"role": role, "content": self._harmless(message_text(message))}
        if isinstance(content, str):
            return parts_message(role, self._harmless(content))
        safe = ({**part, "text": self._harmless(part["text"])} if part["type"] == "text" else part for part in content)
        return {"role": role, "content": list(safe)}

    def _harmless(self, text: str) -> str:
        """`text` with every control token taken apart: what is said in a chat must not forge its turns or pictures."""
        for token in self._control_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _control_tokens(self) -> list[str]:
        return [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]

    @cached_property
    def _around_user_message(self) -> tuple[str, str]:
        said = [{"role": "user", "content": "@"}, {"role": "assistant", "content": "@"}]
        more = [*said, {"role": "user", "content": "%%%"}]
        text = self._rendered(more)
        end = self.tokenizer.eos_token
        before, after = text.rsplit("%%%", 1)
        return before[before.rindex(end) + len(end) :], after

    def save(self, folder: Path) -> None:
        """Write the model, the tokenizer (or processor) and the critic; all but the last load with the Auto classes."""
        if backend := getattr(self.tokenizer, "backend_tokenizer", None):
            backend.no_padding()  # a trainer's last batch leaves its padding in the tokenizer, and so in its file
            backend.no_truncation()
        self.model.save_pretrained(folder)
        (self.processor or self.tokenizer).save_pretrained(folder)
        if self.value_head is not None:
            save_file(self.value_head.state_dict(), Path(folder) / "value_head.safetensors")


def model_folder(name: str) -> str:
    """The shipped model of that name if there is one, else `name` itself (a path or a hub name)."""
    return str(SHIPPED / name) if (SHIPPED / name).is_dir() else name


def check_model(name: str | Path) -> PreTrainedConfig:
    """The configuration of a model, which alone is read. Raises CheckpointError if there is none that can be used."""
    source = model_folder(str(name))
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # transformers raises half a dozen kinds here
        raise CheckpointError(f"There is no model in {source!r} ({reason(error)}).") from error
    if config.model_type == "mllama":
        raise CheckpointError(
            f"{source!r} is an Mllama, which reads pictures by cross attention and not as tokens of the sequence; "
            "choose a vision-language model such as LLaVA."
        )
    return config


def load_policy(name: str | Path, dtype: str = "float32", device: str = "cpu") -> Policy:
    """Load a causal language model, or a vision-language model with its processor, by shipped name, folder or hub name.

    Raises CheckpointError if the folder is missing or damaged, or its kind of model is not served.
    """
    source = model_folder(str(name))
    head = Path(source) / "value_head.safetensors"
    pictures = check_model(source).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    try:
        architecture = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
        model = architecture.from_pretrained(source, dtype=getattr(torch, dtype)).to(device)
        # Pillow's image processors: torchvision's, the default, are another dependency and resize a little differently.
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
