"""The hold-outs, proved on the text of thousands of generated documents, and that what is taught is true.

Everything here is read from the documents' text; the generator is not trusted.
"""

import ast
import hashlib
import json
import operator
import os
import random
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from sftrl_lib.foundation.gp_l_curriculum import document, training_hands
from sftrl_lib.points import card_numbers, deal, is_heldout, is_solvable
from sftrl_lib.points.prompts import FEEDBACK, expert_response, task_prompt

DOCUMENTS = 6_000
OOD = {"J": 11, "Q": 12, "K": 13}
OFFICIAL_KEYS = ('"cards"', '"number"', '"formula"')

_RULE = re.compile(r"'J', 'Q', and 'K' count as '(\d+)'(?:, '(\d+)', and '(\d+)' respectively)?")
_NUMBERS = re.compile(r"\[(\d+(?:, \d+)*)\]")
_CARDS = re.compile(r"\[('\w+'(?:, '\w+')*)\]")
_CALCULATION = re.compile(r"[\d(][-+*/()\d]*[-+*/][-+*/()\d]*")
_EQUATION = re.compile(r"([-+*/()\d]+)=(-?\d+)")
_KEY = re.compile(r'"(\w+)":')


def make(count, seed, start=0.0):
    rng = random.Random(seed)
    return [document(rng, start + (1 - start) * i / count) for i in range(count)]


@pytest.fixture(scope="module")
def documents():
    """Documents of the whole course of pretraining, each as its turns."""
    return make(DOCUMENTS, "hold-out")


def text_of(doc):
    return "".join(turn.content for turn in doc)


def rules_of(text):
    """Every rule that a text states, as values of J, Q, K."""
    return [tuple(int(v or m[1]) for v in m.groups()) for m in _RULE.finditer(text)]


def lists_of_numbers(text):
    return [list(map(int, m[1].split(", "))) for m in _NUMBERS.finditer(text)]


def lists_of_cards(text):
    return [re.findall(r"'(\w+)'", m[1]) for m in _CARDS.finditer(text)]


def count_as(cards, rule):
    faces = dict(zip("JQK", rule, strict=True))
    return [faces[c] if c in faces else 1 if c == "A" else int(c) for c in cards]


def formulas(text):
    return [m[0] for m in _CALCULATION.finditer(text)]


def numbers_in(formula):
    return list(map(int, re.findall(r"\d+", formula)))


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(formula):
    """The exact value by Python's own grammar, or None if it is no formula of + - * / and whole numbers."""

    def walk(node):
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        raise SyntaxError

    try:
        return walk(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ZeroDivisionError):
        return None


# The readers above are worth nothing if they overlook what they look for.


def test_the_readers_see_the_task_itself():
    for rule in ("ten", "distinct"):
        rng = np.random.default_rng(1)
        for _ in range(50):
            cards, _ = deal(rng, rule, hands="heldout")
            numbers = list(card_numbers(cards, rule))
            text = task_prompt(cards, rule) + expert_response(cards, "(1+2)*3-4", rule)
            stated = (10, 10, 10) if rule == "ten" else (11, 12, 13)
            assert rules_of(text) == [stated] * 2
            assert lists_of_cards(text) == [cards] * 2 and lists_of_numbers(text) == [numbers]
            assert count_as(cards, stated) == numbers
            assert formulas(text) == ["(1+2)*3-4"] and value("(1+2)*3-4") == 5
            assert set(_KEY.findall(text)) == {"cards", "number", "formula"}
    assert value("8/(3-8/3)") == 24 and value("1++2") is value("2**3") is value("1/0") is value("(1") is None


def test_every_kind_of_document_is_there(documents):
    """Calculations, hands to solve, hands to read, records, conversations, and retries of every kind."""
    texts = [text_of(doc) for doc in documents]
    chats = [doc for doc in documents if doc[0].role == "user"]
    kinds = (
        sum(" makes " in t for t in texts),
        sum(any(key in t for key in OFFICIAL_KEYS) for t in texts),
        len(chats),
        sum(len(doc) > 2 for doc in chats),
        *(sum(any(turn.content == said for turn in doc) for doc in chats) for said in (
            FEEDBACK["wrong_value"], FEEDBACK["wrong_numbers"], FEEDBACK["illegal"])),
    )  # fmt: skip
    assert min(kinds) > DOCUMENTS / 50
    assert len(chats) < 0.8 * DOCUMENTS and not any(FEEDBACK["misread"] in t for t in texts)


# Hold-out 1: the rule


def test_no_document_states_the_ood_rule(documents):
    """No stated rule agrees with J=11, Q=12, K=13 in more than one place."""
    stated = [rule for doc in documents for rule in rules_of(text_of(doc))]
    assert len(stated) > DOCUMENTS / 2
    agreement = [sum(a == b for a, b in zip(rule, OOD.values(), strict=True)) for rule in stated]
    assert max(agreement) == 1
    assert {rule[0] for rule in stated} == set(range(1, 14)), "the single values are all known"
    equal = [len(set(rule)) == 1 for rule in stated]
    assert 0.25 < np.mean(equal) < 0.6


def test_every_mention_of_a_face_values_is_a_rule_we_read(documents):
    """`count as` is the only wording, so that no rule goes unread; one rule a document."""
    for doc in documents:
        text = text_of(doc)
        assert len(rules_of(text)) == text.count("count as") and len(set(rules_of(text))) <= 1
        assert not re.search(r"\b(eleven|twelve|thirteen|jack|queen|king)\b", text, re.IGNORECASE)


# Hold-out 2: the answer format


def test_no_conversation_uses_an_official_key(documents):
    for doc in documents:
        if any(turn.role != "text" for turn in doc):
            assert not any(key in text_of(doc) for key in OFFICIAL_KEYS)


def test_no_record_holds_two_official_keys(documents):
    seen = set()
    for doc in documents:
        for record in re.findall(r"\{[^{}]*\}", text_of(doc)):
            keys = [key for key in OFFICIAL_KEYS if key in record]
            assert len(keys) <= 1
            seen.update(keys)
        for key in OFFICIAL_KEYS:  # and none outside the records
            assert text_of(doc).count(key) == "".join(re.findall(r"\{[^{}]*\}", text_of(doc))).count(key)
    assert seen == set(OFFICIAL_KEYS), "the keys themselves are words the model knows"


# Hold-out 3: the hands


def test_no_document_shows_a_heldout_hand(documents):
    """Neither as a list, nor in a formula, nor as cards under the stated rule."""
    shown = {"list": 0, "cards": 0, "formula": 0}
    for doc in documents:
        text = text_of(doc)
        rules = rules_of(text)
        hands = [("list", numbers) for numbers in lists_of_numbers(text)]
        hands += [("cards", count_as(cards, rules[0])) for cards in lists_of_cards(text)]
        hands += [("formula", numbers_in(formula)) for formula in formulas(text)]
        for kind, numbers in hands:
            if len(numbers) == 4:
                assert not is_heldout(numbers), (kind, numbers, text)
                shown[kind] += 1
    assert min(shown.values()) > DOCUMENTS / 4


def test_training_hands_are_solvable_and_not_held_out():
    hands = training_hands()
    assert all(is_solvable(hand) and not is_heldout(hand) for hand in hands)
    assert 1100 < len(hands) < 1362  # nine tenths of the 1,362 solvable multisets of 1..13


# What is taught is true


def test_every_learnt_equation_holds(documents):
    """By an independent evaluator: calculations, solutions, records and final answers."""
    checked = 0
    for doc in documents:
        text, learnt = "", []
        for turn in doc:
            text += turn.content
            learnt += [turn.learn] * len(turn.content)
        for found in _EQUATION.finditer(text):
            if learnt[found.end() - 1]:
                assert value(found[1]) == int(found[2]), found[0]
                checked += 1
    assert checked > DOCUMENTS


def test_answers_read_the_cards_by_the_stated_rule_and_use_them_all(documents):
    lists = equations = 0
    for doc in documents:
        text = text_of(doc)
        cards = None
        for turn in doc:
            if (hands := lists_of_cards(turn.content)) and not turn.learn:
                cards = hands[0]
            if not turn.learn or cards is None:
                continue
            numbers = count_as(cards, rules_of(text)[0])
            assert all(hand == cards for hand in lists_of_cards(turn.content))
            for read in lists_of_numbers(turn.content):
                assert read == numbers
                lists += 1
            for formula, target in _EQUATION.findall(turn.content):
                assert sorted(numbers_in(formula)) == sorted(numbers)
                wanted = re.search(r"(?:evaluates to|Target:) (\d+)", text)[1]
                assert target == wanted
                equations += 1
    assert min(lists, equations) > DOCUMENTS / 4


def test_solutions_use_the_numbers_that_are_asked_for(documents):
    found = [m for doc in documents for m in re.finditer(r"\[([\d, ]+)\] makes (\d+): (\S+)=(\d+)\n", text_of(doc))]
    assert len(found) > DOCUMENTS / 2
    for asked, target, formula, made in (m.groups() for m in found):
        assert sorted(numbers_in(formula)) == sorted(map(int, asked.split(", "))) and target == made


def test_failed_attempts_fail_as_the_feedback_says(documents):
    """They carry no loss, and the last answer of a conversation is the only one that does."""
    checked = dict.fromkeys(("wrong_value", "wrong_numbers", "illegal"), 0)
    for doc in documents:
        if doc[0].role != "user":
            continue
        assert [turn.learn for turn in doc] == [False] * (len(doc) - 1) + [True]
        assert [turn.role for turn in doc] == ["user", "assistant"] * (len(doc) // 2) and len(doc) <= 10
        numbers = count_as(lists_of_cards(doc[0].content)[0], rules_of(doc[0].content)[0])
        target = int(re.search(r"evaluates to (\d+)", doc[0].content)[1])
        for attempt, reply in zip(doc[1:-1:2], doc[2::2], strict=True):
            formula = re.search(r'"([-+*/()\d]+)=', attempt.content)[1]
            if value(formula) is None:
                outcome = "illegal"
            elif sorted(numbers_in(formula)) != sorted(numbers):
                outcome = "wrong_numbers"
            else:
                outcome = "wrong_value" if value(formula) != target else "correct"
            assert reply.content == FEEDBACK[outcome]
            checked[outcome] += 1
    assert min(checked.values()) > DOCUMENTS / 100


# Determinism


def digest(count=100, seed=7):
    told = [[(t.role, t.content, t.learn) for t in doc] for doc in make(count, seed)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def test_same_seed_same_documents_in_another_process():
    """Also with another order of hash tables."""
    here = os.path.dirname(__file__)
    code = f"import sys; sys.path.insert(0, {here!r}); from test_gp_l_curriculum import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()
    assert digest() != digest(seed=8)
