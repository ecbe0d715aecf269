"""The tiny models' tokenizer: numbers, cards, operators and whole template phrases are one token each.

SmolLM2's tokenizer needs 115 tokens for the paper's prompt and 60 for its answer; here both shrink to a few dozen,
which is what lets the paper's own prompts be used verbatim at this scale. Anything else is spelt in bytes, so every
text can be encoded and decoded. A stock fast tokenizer of `transformers`: `AutoTokenizer` loads it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..points.prompts import FEEDBACK, expert_response, task_prompt
from ..points.rules import RULES, deal

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
LARGEST_NUMBER = 199

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# What varies inside a template: numbers, the ranks in a list of cards, the operators of a formula, line ends.
_VARIABLE = re.compile(
    r"\d+"
    r"|(?:(?<=\[')|(?<=', '))(?:[AJQK])(?=', '|'\])"
    r"|(?<=[\d)])[-+*/=]|\((?=[\d(])|(?<=[\d)])\)"
)


def phrases(texts: Iterable[str], least: int) -> list[str]:
    """The runs of text between variable parts, ending at line ends, that occur at least `least` times."""
    counts: Counter[str] = Counter()
    for text in texts:
        for run in _VARIABLE.split(text):
            counts.update(line for line in re.findall(r"[^\n]*\n|[^\n]+", run))
    return sorted(phrase for phrase, count in counts.items() if count >= least and len(phrase) > 1)


def task_texts(deals: int = 50) -> list[str]:
    """Prompts, answers and feedback of the task itself, so that its phrases are in the vocabulary."""
    rng = np.random.default_rng(0)
    texts = list(FEEDBACK.values())
    for _ in range(deals):
        for rule in RULES:
            cards, _ = deal(rng, rule)
            texts += [task_prompt(cards, rule), expert_response(cards, "1+2+3+4", rule)]
    return texts


def build_tokenizer(texts: Iterable[str], least: int = 20) -> PreTrainedTokenizerFast:
    """A tokenizer whose phrases come from `texts`; deterministic in them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([PAD, END, USER, ASSISTANT, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END, USER, ASSISTANT])
    numbers = [str(n) for n in range(10, LARGEST_NUMBER + 1)]
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in [*numbers, *phrases(texts, least)]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def foundation_tokenizer(seed: int = 0, documents: int = 4_000) -> PreTrainedTokenizerFast:
    """The tokenizer of the text foundation model, from a sample of its curriculum and the task's own texts."""
    from .curriculum import document

    rng = random.Random(seed)
    sample = [document(rng, rng.random()) for _ in range(documents)]
    texts = ["".join(turn.content for turn in doc if turn.role == "text") for doc in sample]
    texts += [turn.content for doc in sample for turn in doc if turn.role != "text"]
    return build_tokenizer([*texts, *task_texts()])
