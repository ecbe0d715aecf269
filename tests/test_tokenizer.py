"""The tiny models' tokenizer: nothing is lost, prompts are short, and the chat is encoded as in pretraining."""

import random

import numpy as np
import pytest
from transformers import AutoTokenizer

from sftrl_lib.foundation.documents import Turn
from sftrl_lib.foundation.encoding import IGNORED, encode
from sftrl_lib.foundation.gp_l_curriculum import conversation
from sftrl_lib.foundation.pretrain import FoundationConfig, foundation_tokenizer
from sftrl_lib.foundation.tokenizer import ASSISTANT, END, PAD, USER
from sftrl_lib.models.policy import Policy
from sftrl_lib.points import card_numbers, deal, solve
from sftrl_lib.points.prompts import FEEDBACK, expert_response, task_prompt
from sftrl_lib.virl.cities import CITIES
from sftrl_lib.virl.landmarks import landmark_names

SPECIAL = (PAD, END, USER, ASSISTANT)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def hostile_texts():
    rng = random.Random(0)
    yield from ("", " ", "\n\n", "\x00\x01\x7f", "\u202e\ufeff\u0301", "１２＋３", "\r\n\t")
    yield from ("naïve — “quotes” ½ 日本語 🂡👩‍👩‍👧",)
    yield from ("10", "110", "1010101010", "199200", "0012", "['J', 'Q'", "'K']", '"cards": [', "  ", "J,Q,K" * 50)
    yield "".join(map(chr, range(256)))
    for _ in range(300):
        points = (rng.choice((rng.randrange(32, 127), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))
                  for _ in range(rng.randrange(1, 40)))  # fmt: skip
        yield "".join(map(chr, points))


def task_texts(count=200):
    rng = np.random.default_rng(3)
    for i in range(count):
        rule = ("ten", "distinct")[i % 2]
        cards, _ = deal(rng, rule)
        formula = solve(card_numbers(cards, rule))[0]
        yield task_prompt(cards, rule), expert_response(cards, formula, rule)


def test_any_text_comes_back(tokenizer):
    texts = [*hostile_texts(), *(text for pair in task_texts(20) for text in pair)]
    for text in texts:
        assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_any_bytes_have_an_encoding(tokenizer):
    """Every byte is a token, so nothing is unknown."""
    for byte in range(256):
        text = bytes([byte]).decode("utf-8", errors="surrogateescape").encode("utf-8", errors="replace").decode()
        assert tokenizer.decode(ids_of(tokenizer, text)) == text
    assert tokenizer.unk_token is None


def test_names_with_accents_come_back(tokenizer):
    names = [next(landmark_names(random.Random(i), spec.words))[0] for spec in CITIES.values() for i in range(40)]
    assert any(not name.isascii() for name in names)
    for name in (*names, "Café Odette", "Montjuïc Grill", "x∈['left']"):
        assert tokenizer.decode(ids_of(tokenizer, name)) == name


def test_prompts_and_answers_are_short(tokenizer):
    chat = Policy(None, tokenizer)
    prompts, answers = zip(*task_texts(), strict=True)
    assert max(len(chat.prompt_ids([{"role": "user", "content": p}])) for p in prompts) <= 45
    assert max(len(ids_of(tokenizer, a)) for a in answers) <= 35
    assert max(len(chat.continuation_ids(FEEDBACK[key])) for key in ("wrong_value", "wrong_numbers", "illegal")) <= 5


def test_numbers_ranks_and_operators_are_single_tokens(tokenizer):
    for number in (*range(1, 14), 24, 100, 199):
        assert len(ids_of(tokenizer, str(number))) == 1
    variable = {"(", "13", "-", "1", ")", "*", "10", "/", "5", "=", "24"}
    pieces = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, '"formula": "(13-1)*10/5=24",'))
    assert "".join(p for p in pieces if p in variable) == "(13-1)*10/5=24"


def test_a_card_is_one_token_wherever_it_stands(tokenizer):
    """The same hand in another order is the same tokens in another order."""
    counts = {len(ids_of(tokenizer, str(cards))) for cards in (["A", "10", "K", "2"], ["K", "A", "2", "10"])}
    assert len(counts) == 1


def test_it_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.eos_token, loaded.pad_token, loaded.padding_side) == (END, PAD, "left")
    chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    assert loaded.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
    for text in [*hostile_texts(), *(text for pair in task_texts(20) for text in pair)]:
        assert ids_of(loaded, text) == ids_of(tokenizer, text)
        assert loaded.decode(ids_of(loaded, text)) == text


def test_it_is_the_same_every_time():
    first, second = (foundation_tokenizer(FoundationConfig(seed=4), documents=100) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_pretraining_encodes_chats_as_the_template_does(tokenizer):
    """`foundation.encode` on curriculum conversations against `apply_chat_template`; labels are the last answer."""
    rng = random.Random(5)
    retried = 0
    for _ in range(200):
        doc = conversation(rng, most_attempts=5)
        ids, labels = encode(doc, tokenizer)
        chat = [{"role": turn.role, "content": turn.content} for turn in doc]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        assert ids == ids_of(tokenizer, text)
        answer = [*ids_of(tokenizer, doc[-1].content), tokenizer.eos_token_id]
        assert labels == [IGNORED] * (len(ids) - len(answer)) + answer
        assert Policy(None, tokenizer).prompt_ids(chat[:-1]) == ids[: -len(answer)]
        retried += len(doc) > 2
    assert retried > 50


def test_plain_documents_have_no_control_tokens(tokenizer):
    ids, labels = encode([Turn("text", "1+2="), Turn("text", "3\n", learn=True)], tokenizer)
    assert tokenizer.decode(ids) == "1+2=3\n" and controls(tokenizer, ids) == []
    assert tokenizer.decode([i for i in labels if i != IGNORED]) == "3\n"


def test_the_assistant_mask_covers_answers(tokenizer):
    """`{% generation %}` marks what the assistant says, so that other trainers can mask prompts too."""
    chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "=2"}]
    made = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    said = [i for i, mask in zip(made["input_ids"], made["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "=2" + END


@pytest.mark.parametrize("token", SPECIAL)
def test_control_tokens_in_hostile_text(tokenizer, token):
    """Text that spells a control token can be encoded as mere text, and then comes back whole."""
    text = f"a{token}b"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert controls(tokenizer, ids) == [] and tokenizer.decode(ids) == text
    read_as_control = ids_of(tokenizer, text)
    assert controls(tokenizer, read_as_control) == [token]
    assert tokenizer.decode(read_as_control, skip_special_tokens=True) == "ab"


@pytest.mark.parametrize("token", SPECIAL)
def test_messages_cannot_forge_turns(tokenizer, token):
    """What a user or a model says never becomes a control token of the conversation."""
    chat = Policy(None, tokenizer)
    clean = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}]
    forged = [{**m, "content": f"{m['content']}{token}<{token}{token[1:]}"} for m in clean]
    assert controls(tokenizer, chat.prompt_ids(clean)) == [USER, ASSISTANT, END, USER, ASSISTANT]
    assert controls(tokenizer, chat.prompt_ids(forged)) == [USER, ASSISTANT, END, USER, ASSISTANT]
    assert controls(tokenizer, chat.continuation_ids(f"x{token}")) == [USER, ASSISTANT]


def controls(tokenizer, ids):
    return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in SPECIAL]
