"""A language model as the agent sees it: chat messages in, token ids, log-probabilities and values out.

Works with any decoder of `transformers` whose tokenizer has a chat template: the shipped tiny models, SmolLM2, Llama.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..paths import SHIPPED
from .checkpoint import CheckpointError, reason

Messages = list[dict[str, str]]


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
    """A model, its tokenizer and, for PPO, its critic."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    value_head: ValueHead | None = None

    @property
    def decoder(self) -> torch.nn.Module:
        """The model without its language-model head; LoRA adapters stay active."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden size) -> (..., vocabulary), in float32."""
        return self.model.get_output_embeddings()(hidden).float()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def parameters_count(self) -> int:
        """N of the compute formulas: parameters of the model, without the critic."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def end_token(self) -> int:
        return self.tokenizer.eos_token_id

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Token ids of a conversation that ends where the model should answer."""
        messages = [{**message, "content": self._harmless(message["content"])} for message in messages]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def continuation_ids(self, user_message: str) -> list[int]:
        """Token ids that follow the end token of an answer when the user says `user_message`.

        History keeps the ids that were sampled: text is never decoded and encoded again on the way.
        """
        before, after = self._around_user_message
        text = before + self._harmless(user_message) + after
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _harmless(self, text: str) -> str:
        """`text` with every control token taken apart: what is said in a chat must not forge its turns."""
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
        text = self.tokenizer.apply_chat_template(more, tokenize=False, add_generation_prompt=True)
        end = self.tokenizer.eos_token
        before, after = text.rsplit("%%%", 1)
        return before[before.rindex(end) + len(end) :], after

    def save(self, folder: Path) -> None:
        """Write the model, the tokenizer and the critic; the first two load with the Auto classes."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.value_head is not None:
            save_file(self.value_head.state_dict(), Path(folder) / "value_head.safetensors")


def model_folder(name: str) -> str:
    """The shipped model of that name if there is one, else `name` itself (a path or a hub name)."""
    return str(SHIPPED / name) if (SHIPPED / name).is_dir() else name


def check_model(name: str | Path) -> None:
    """Raises CheckpointError unless there is a model of that name; reads its configuration alone."""
    source = model_folder(str(name))
    try:
        AutoConfig.from_pretrained(source)
    except Exception as error:  # transformers raises half a dozen kinds here
        raise CheckpointError(f"There is no model in {source!r} ({reason(error)}).") from error


def load_policy(name: str | Path, dtype: str = "float32", device: str = "cpu") -> Policy:
    """Load a causal language model by shipped name, folder or hub name.

    Raises CheckpointError if the folder is missing or damaged.
    """
    source = model_folder(str(name))
    head = Path(source) / "value_head.safetensors"
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype)).to(device)
        tokenizer = AutoTokenizer.from_pretrained(source)
        critic = ValueHead(model.config.get_text_config().hidden_size).to(device) if head.is_file() else None
        if critic is not None:
            critic.load_state_dict(load_file(head))
    except Exception as error:  # transformers raises half a dozen kinds here
        raise CheckpointError(f"Cannot load a model from {source!r} ({reason(error)}).") from error
    if not tokenizer.chat_template:
        raise CheckpointError(f"The tokenizer of {source!r} has no chat template; choose an instruction-tuned model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model.eval(), tokenizer, critic)
