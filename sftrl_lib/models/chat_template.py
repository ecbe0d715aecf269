"""Chat messages as text, by the model's own chat template; and whether that template is fit to train and play with.

A chat template is a program that comes with the model. jinja's sandbox keeps it from touching anything, but not from
looping for ever, from filling the memory, from ending answers with a token that nothing here would recognise, or from
writing today's date. `check_template` finds that out with a short chat, before any weights are read.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import chat_template_utils

from ..files import reason
from ..messages import Message, message_text, parts_message
from .checkpoint import CheckpointError

Messages = list[Message]
T = TypeVar("T")

LIMIT = 5.0  # seconds for the chats of `check_template`, which take milliseconds
_MEMORY = 2**30  # bytes for them, which take some thousand
_LARGEST = 10**6  # bits, letters or items of a product or power; more takes Python too long at a time to be stopped
_ANSWER, _REPLY = "&&&", "%%%"  # stand for what is said, where only what the template writes around it counts
_EXCHANGE = [{"role": "user", "content": "@"}, {"role": "assistant", "content": _ANSWER}]


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of transformers, but ``10**(10**9)`` and ``'x' * 10**10`` are errors, as long ranges are in both."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if _size(operator, left, right) > _LARGEST:
            raise OverflowError(f"the result of an operation {operator} is too large for a chat")
        return super().call_binop(context, operator, left, right)


def _size(operator: str, left: Any, right: Any) -> int:
    """About how many bits, letters or items a product or power of any two values has; 0 for what is never large."""
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    sized, times = (left, right) if isinstance(left, Sized) else (right, left)
    return len(sized) * times if isinstance(sized, Sized) and isinstance(times, int) else 0


chat_template_utils.ImmutableSandboxedEnvironment = _Sandbox  # it takes none from us


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer, or of the processor that contains it."""

    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None = None

    @property
    def source(self) -> str | None:
        """The template itself; None if there is none."""
        template = (self.processor or self.tokenizer).chat_template
        return str(template) if template else None

    def render(self, messages: Messages, answer: bool = True, **variables: str) -> str:
        """A chat as text, up to where the model should answer, or with ``answer=False`` up to its last message.

        `variables` take the place of what the template would otherwise see under these names.
        """
        messages = [self._escaped_message(message) for message in messages]
        owner = self.processor or self.tokenizer
        return owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer, **variables)

    def reply(self, text: str) -> str:
        """What follows the end token of an answer up to the next one, if a user message `text` stands between them."""
        before, after = self._around_reply
        return before + self._escaped(text) + after

    @cached_property
    def _around_reply(self) -> tuple[str, str]:
        return self.around_reply()

    def around_reply(self) -> tuple[str, str]:
        """What the template writes from an answer's end token to the user's reply, and from there to the next answer.

        Raises CheckpointError unless it writes the tokenizer's end token (``eos_token``) after an answer, both in the
        middle of a chat, where rollouts go on after it, and at its end, where SFT teaches it.
        """
        name, end = self.tokenizer.name_or_path, self.tokenizer.eos_token
        before, _, after = self.render([*_EXCHANGE, {"role": "user", "content": _REPLY}]).rpartition(_REPLY)
        inside, last = (text.rpartition(_ANSWER) for text in (before, self.render(_EXCHANGE, answer=False)))
        if not inside[1] or not last[1]:
            raise CheckpointError(
                f"The chat template of {name!r} leaves out messages of the user or the model; choose a model whose "
                "template writes them all."
            )
        tails = inside[2], last[2]
        if end is None or not all(end in tail for tail in tails):
            written = [token for token in self._special_tokens if all(token in tail for tail in tails)]
            if not written:
                raise CheckpointError(
                    f"The chat template of {name!r} has no token that ends every answer (the tokenizer's eos_token is "
                    f"{end!r}), so the model could not learn to stop; choose an instruction-tuned model that has one."
                )
            instead = min(written, key=tails[0].index)
            raise CheckpointError(
                f"The chat template of {name!r} ends an answer with {instead!r}, but the tokenizer's eos_token is "
                f'{end!r}; set "eos_token": "{instead}" in the tokenizer_config.json of its folder.'
            )
        return tails[0].rpartition(end)[2], after

    def asks_for_the_date(self) -> bool:
        """Whether a chat gets today's date from `strftime_now`, the only clock that templates have."""
        if "strftime_now" not in (self.source or ""):
            return False
        try:
            self.render(_EXCHANGE, strftime_now="no clock")
        except TypeError:  # the template has called it
            return True
        return False

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


def check_template(template: ChatTemplate, name: str) -> None:
    """Try the chat template of the model `name`, and warn if its chats contain today's date.

    Raises CheckpointError if there is no template, or it fails, does not end, or ends answers with another token than
    the tokenizer's.
    """
    if not template.source:
        raise CheckpointError(f"The tokenizer of {name!r} has no chat template; choose an instruction-tuned model.")
    try:
        _, dated = _limited(lambda: (template.around_reply(), template.asks_for_the_date()), LIMIT)
    except CheckpointError:
        raise
    except TimeoutError as error:
        raise CheckpointError(
            f"The chat template of {name!r} does not finish a chat of three short messages in {LIMIT:g} seconds; take "
            "its endless loop out, or choose another model."
        ) from error
    except Exception as error:  # jinja's own, and whatever Python raises inside a template
        raise CheckpointError(
            f"The chat template of {name!r} fails ({reason(error)}); correct it, or choose another model."
        ) from error
    if dated:
        # Without the name, so that the snapshots of a run, which all have this template, warn once.
        warnings.warn(
            "The chat template of this model writes today's date, so prompts and results change from day to day; to "
            "pin the date, put a fixed one such as '26 Jul 2024' in place of strftime_now(...) in the template.",
            stacklevel=2,
        )


def _limited(call: Callable[[], T], seconds: float) -> T:
    """What `call` returns or raises; TimeoutError if that takes longer than `seconds`.

    In a thread, which is then stopped: an alarm only works in the main thread on Unix, and a child process would have
    to import transformers first.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # also the SystemExit from below
            outcome.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    try:
        with _memory_limit(_MEMORY):
            thread.start()
            return outcome.result(seconds)
    except TimeoutError:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        raise


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    """Inside the block this process may grow by `more` bytes, beyond which is a MemoryError; only Linux can do that."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limits = {pages * resource.getpagesize() + more, before, most} - {resource.RLIM_INFINITY}
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
