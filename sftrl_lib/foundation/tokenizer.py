"""The tiny models' tokenizer: numbers, cards, operators, directions, words of names, whole phrases are single tokens.

SmolLM2's tokenizer needs 115 tokens for the paper's prompt and 60 for its answer. Here both shrink to a few dozen, so
the paper's prompts can be used verbatim at this scale. Other text falls back to bytes, so every text can be encoded
and decoded. It is a stock fast tokenizer of `transformers`: `AutoTokenizer` loads it.
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
from ..virl import prompts as navigation
from ..virl.cities import CITIES, MINI_CITIES
from ..virl.city import load_city
from ..virl.landmarks import landmark_names
from ..virl.rails import SPATIAL, TO_DESTINATION, TO_INTERSECTION, TURNS, rail_builder, turn_sentence
from ..virl.schema import COMPASS
from .documents import Document
from .virl_l_curriculum import PLACE_WORDS, SPACES

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
LARGEST_NUMBER = 199

# Content is a string, or for a model with a vision encoder a list of parts.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set content = message['content'] %}"
    "{% else %}{% set content %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endset %}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ content + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Instruction numbers, and the sentences of an instruction, whole or up to the landmark's name. The text after a number
# must be one token wherever it is repeated: the model then finds it by "what followed this number last time", the first
# kind of lookup that transformers learn. With separate tokens for the number, its full stop, "turn", "left", "to face"
# and "north", the model still could not tell two sentences apart after 800,000 tokens.
_NUMBERS = [f"{number}. " for number in range(1, 13)]
_SENTENCES = [
    f"{TO_INTERSECTION}.",
    f"{TO_INTERSECTION} where ",
    f"{TO_DESTINATION} where The destination ",
    *(turn_sentence(turn, compass, first) for first in (True, False) for turn in TURNS for compass in COMPASS),
]
_DIRECTIONS = [direction for space in SPACES for direction in space]
_DIRECTION = "|".join(sorted(_DIRECTIONS, key=len, reverse=True))
# The variable parts of a template: numbers, the ranks in a list of cards, the operators of a formula, line ends;
# directions in instructions, actions and lists of directions; the names of landmarks and where they are.
_VARIABLE = re.compile(
    rf"{'|'.join(map(re.escape, _SENTENCES))}|\d+\. (?=First, turn |Turn |Move )"
    r"|\d+"
    r"|(?:(?<=\[')|(?<=', '))(?:[AJQK])(?=', '|'\])"
    r"|(?<=[\d)])[-+*/=]|\((?=[\d(])|(?<=[\d)])\)"
    rf"|(?:(?<=urn )|(?<=face )|(?<=\w\()|(?<='))(?:{_DIRECTION})(?=[ .)'])"
    r"|(?:(?<=where )|(?<=\d: )|(?<=\": \")|(?<=The destination ))"
    r"(?!The destination |Move forward )[^\n\"]+?(?= is on your )"
    rf"|(?<= is on your )(?:{'|'.join(sorted(SPATIAL, key=len, reverse=True))})"
)


def phrases(texts: Iterable[str], least: int) -> list[str]:
    """The phrases of `texts`: runs between variable parts, split at line ends, that occur at least `least` times."""
    counts: Counter[str] = Counter()
    for text in texts:
        for run in _VARIABLE.split(text):
            counts.update(line for line in re.findall(r"[^\n]*\n|[^\n]+", run))
    return sorted(phrase for phrase, count in counts.items() if count >= least and len(phrase) > 1)


def points_texts(deals: int = 50, modality: str = "text") -> list[str]:
    """Prompts, answers and feedback of GeneralPoints, so that its phrases are in the vocabulary."""
    rng = np.random.default_rng(0)
    texts = list(FEEDBACK.values())
    for _ in range(deals):
        for rule in RULES:
            cards, _ = deal(rng, rule)
            texts += [task_prompt(cards, rule, modality=modality), expert_response(cards, "1+2+3+4", rule)]
    return texts


def navigation_texts(routes: int = 40, modality: str = "text") -> list[str]:
    """Prompts, answers and feedback of navigation."""
    city = load_city("nyc")
    rails = [rail_builder(city).build(index, 0) for index in range(routes)]
    pairs = [pair for rail in rails for pair in navigation.expert_pairs(rail, modality=modality)]
    return [*navigation.FEEDBACK.values(), *(text for pair in pairs for text in pair)]


def navigation_words(names: int = 600) -> list[str]:
    """The words of landmark names in all cities, the directions, and the parts of instructions.

    A word includes the space before it. The model continues a known name by looking up its previous token, and a
    separate token " " could be followed by anything.
    """
    words: Counter[str] = Counter()
    for spec in (*CITIES.values(), *MINI_CITIES.values()):
        stream = landmark_names(random.Random(0), spec.words)
        words.update(word for _ in range(names) for word in re.findall(r" ?(?:[^\W\d]+|&)|'s", next(stream)[0]))
    frequent = {word for word, count in words.items() if count >= 5 and len(word) > 1}
    return sorted(frequent | {*_DIRECTIONS, *SPATIAL, *_SENTENCES, *_NUMBERS, *PLACE_WORDS})


def build_tokenizer(texts: Iterable[str], least: int = 20, words: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer with the phrases of `texts`, a deterministic function of them; `words` become tokens unchanged."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([PAD, END, USER, ASSISTANT, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END, USER, ASSISTANT])
    numbers = [str(n) for n in range(10, LARGEST_NUMBER + 1)]
    known = dict.fromkeys([*numbers, *words, *phrases(texts, least)])
    # The decoder would read the é in a whole token as a byte of its alphabet, so such words stay spelt in bytes.
    ambiguous = {letter for letter in alphabet if not letter.isascii()}
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in known if not ambiguous & set(token)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def document_texts(documents: Iterable[Document]) -> list[str]:
    """The texts in which phrases are counted: plain documents as a whole, conversations message by message."""
    documents = list(documents)
    texts = ["".join(turn.content for turn in doc if turn.role == "text") for doc in documents]
    return texts + [turn.content for doc in documents for turn in doc if turn.role != "text"]
