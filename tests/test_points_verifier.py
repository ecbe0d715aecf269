"""The exact verifier: its outcomes, its reading of answers, and its calm under any text whatever."""

import ast
import json
import random
import time
from fractions import Fraction

import pytest

from sftrl_lib.points import grade, recognition
from sftrl_lib.points.formula import evaluate, parse_formula
from sftrl_lib.points.prompts import expert_response, response
from sftrl_lib.points.verifier import OUTCOMES, REWARDS, VERIFIERS, has_format, read_cards, read_numbers

HAND = ["4", "3", "2", "K"]  # 4, 3, 2, 10


def answer(formula, cards=HAND, numbers=(4, 3, 2, 10)):
    return response(cards, numbers, formula)


@pytest.mark.parametrize(
    "formula, outcome",
    [
        ("4*3+2+10=24", "correct"),
        ("4*3+2+10", "correct"),
        ("  4 * 3 + 2\t+ 10 = 24 ", "correct"),
        ("((4)*(3))+((2+10))", "correct"),
        ("4*3+2+10=25", "correct"),  # what follows the first "=" is not read
        ("4*3+2-10=24", "wrong_value"),
        ("4/(3-2-10/10)", "wrong_numbers"),
        ("10/(4-2-2)*3", "wrong_numbers"),
        ("4*3+2+11", "wrong_numbers"),
        ("4*3+12", "wrong_numbers"),
        ("4*3+2+10+0", "wrong_numbers"),
        ("4*3+2+2+10", "wrong_numbers"),
        ("24=4*3+2+10", "wrong_numbers"),
        ("-4*3+2+10", "illegal"),
        ("4*3+2+10.0", "illegal"),
        ("4*3+2+1 0", "illegal"),
        ("04*3+2+10", "illegal"),
        ("4**3+2+10", "illegal"),
        ("4//3+2+10", "illegal"),
        ("4*3+2+K", "illegal"),
        ("(4*3+2+10", "illegal"),
        ("4*3+2+10)", "illegal"),
        ("4(3)+2+10", "illegal"),
        ("()4*3+2+10", "illegal"),
        ("4*3+2+", "illegal"),
        ("", "illegal"),
        ("=24", "illegal"),
        ("٤*3+2+10", "illegal"),
        ("⁴*3+2+10", "illegal"),
        ("4×3+2+10", "illegal"),
        ("4*3+2\u00a0+10", "illegal"),
    ],
)
def test_outcomes(formula, outcome):
    got = grade(answer(formula), HAND)
    assert (got.outcome, got.reward) == (outcome, REWARDS[outcome])


def test_rewards_are_the_papers():
    assert REWARDS == {"correct": 5, "wrong_value": -1, "wrong_numbers": -2, "illegal": -3, "misread": -1.5}


def test_arithmetic_is_exact():
    assert grade(answer("8/(3-8/3)"), list("3388")).outcome == "correct"
    assert grade(answer("4/(1-5/6)"), list("A456")).outcome == "correct"
    assert grade(answer("6/(5/4-1)"), list("A456")).outcome == "correct"
    assert grade(answer("(8-8)/(3-3)"), list("3388")).outcome == "wrong_value"  # division by zero has no value


def test_the_rule_and_the_target_decide():
    hand = ["J", "Q", "K", "A"]
    formula = answer("13*1+11+12")
    assert grade(formula, hand, rule="distinct", target=36).outcome == "correct"
    assert grade(formula, hand, rule="distinct").outcome == "wrong_value"
    assert grade(formula, hand, rule="ten").outcome == "wrong_numbers"
    assert grade(answer("7+8+9*1"), hand, rule=(7, 8, 9)).outcome == "correct"


def test_strict_json_and_the_official_template_read_alike():
    strict = json.dumps({"cards": HAND, "number": [4, 3, 2, 10], "formula": "4*3+2+10=24"})
    for text in (strict, json.dumps(json.loads(strict), indent=1), expert_response(HAND, "4*3+2+10")):
        for shown in (text, f"Let me think.\n```json\n{text}\n```"):
            assert grade(shown, HAND).outcome == "correct"
            assert grade(shown, HAND, modality="image").outcome == "correct"
            assert read_cards(shown) == HAND
            assert read_numbers(shown) == [4, 3, 2, 10]
            assert has_format(shown)


def test_misread_cards_count_only_in_pictures():
    text = answer("4*3+2+10", cards=["4", "3", "2", "Q"])
    assert grade(text, HAND).outcome == "correct"
    assert grade(text, HAND, modality="image").outcome == "misread"
    assert grade(answer("4*3+2+10", cards=["K", "2", "3", "4"]), HAND, modality="image").outcome == "correct"
    assert grade('{"cards": [4, 3, 2, "K"], "formula": "4*3+2+10"}', HAND, modality="image").outcome == "correct"


@pytest.mark.parametrize(
    "cards, exact, official, share",
    [
        # The "cards" field of an answer to 4, 3, 2, K; is it read right; by the official reader; share of cards.
        ("['4', '3', '2', 'K']", True, True, 1),
        ("['K', '2', '3', '4']", True, True, 1),  # any order
        ("[4, 3, 2, K]", True, True, 1),
        ('["4", "3", "2", "K"]', True, False, 1),  # double quotes
        ('[4, 3, 2, "K"]', True, False, 1),
        ('["4", "3", "2", "K",]', True, False, 1),
        ("['4', '3', '2', 'K',]", True, False, 1),
        ('["\\u0034", "3", "2", "K"]', True, False, 1),
        ("['4','3','2','K']", True, True, 1),
        ("['4', '3', '2', 'Q']", False, False, 0.75),
        ("['4', '4', '2', 'K']", False, False, 0.75),
        ("['4', '4', '4', '4']", False, False, 0.25),
        ("['4', '3', '2', '10']", False, False, 0.75),  # the number in the card's place
        ("['4', '3', '2', 'k']", False, False, 0.75),
        ("['5', '6', '7', 'A']", False, False, 0),
        ("['4', '3', '2']", False, False, 0.75),
        ("['4', '3', '2', 'K', 'K']", False, False, 0.8),
        ("['4', '3', '2', 'K', 'A', 'A', 'A', 'A']", False, False, 0.5),
        ("['43', '2', 'K']", False, False, 0.5),
        ("[]", False, False, 0),
        ("'4, 3, 2, K'", False, False, 0),
        ("null", False, False, 0),
    ],
)
def test_misread_cards_by_hand(cards, exact, official, share):
    text = f'{{\n  "cards": {cards},\n  "number": [4, 3, 2, 10],\n  "formula": "4*3+2+10=24",\n}}'
    for verifier, right in (("exact", exact), ("official", official)):
        got = grade(text, HAND, modality="image", verifier=verifier)
        assert (got.outcome, got.reward) == (("correct", 5) if right else ("misread", -1.5)), verifier
        assert grade(text, HAND, verifier=verifier).outcome == "correct"  # text does not ask for the cards
    assert recognition(text, HAND) == pytest.approx(share)
    assert (recognition(text, HAND) == 1) == exact


def test_a_misread_hand_hides_everything_else():
    wrong = ["4", "3", "2", "Q"]
    for formula in ("4*3+2+10", "4*3+2-10", "1+1", "4**", ""):
        assert grade(answer(formula, cards=wrong), HAND, modality="image").reward == -1.5
    for formula, outcome in (("4*3+2-10", "wrong_value"), ("1+1", "wrong_numbers"), ("4**", "illegal")):
        assert grade(answer(formula), HAND, modality="image").outcome == outcome
    for text in ("", "I see 4, 3, 2 and K.", '{"formula": "4*3+2+10"}'):
        assert grade(text, HAND, modality="image").outcome == "misread"


@pytest.mark.parametrize(
    "number",
    ["[4, 3, 2, true]", "[4.0, 3, 2, 10]", "[]", '"4, 3, 2, 10"', "[[4], 3, 2, 10]", "[4, null]", "{}", "4"],
)
def test_fields_of_other_types_are_not_numbers(number):
    text = f'{{"cards": ["4"], "number": {number}, "formula": "4*3+2+10"}}'
    assert read_numbers(text) is None and not has_format(text)
    assert grade(text, HAND).outcome == "correct"  # the formula alone is graded in text


@pytest.mark.parametrize("formula", ["true", "24", "24.0", "null", '["4*3+2+10"]', '{"a": 1}', "NaN", "1e999"])
def test_a_formula_that_is_no_text_is_illegal(formula):
    text = f'{{"cards": {json.dumps(HAND)}, "number": [4, 3, 2, 10], "formula": {formula}}}'
    assert grade(text, HAND).outcome == "illegal" and not has_format(text)


def test_missing_fields():
    assert read_cards("") is read_numbers("no") is None
    assert not has_format('{"cards": ["4"], "number": [4]}')
    assert grade("I cannot.", HAND).outcome == "illegal"


MEGABYTE = 1_000_000
HOSTILE = {
    "empty": "",
    "nul": "\0" * 1000,
    "nul in formula": answer("4*3+2+10\0"),
    "power tower": answer("9**9**9**9"),
    "huge number": answer("9" * MEGABYTE),
    "huge JSON number": '{"formula": ' + "9" * 50_000 + "}",
    "huge numbers multiplied": answer("*".join(["9" * 6] * 28)),
    "deep parentheses": answer("(" * 50_000 + "4" + ")" * 50_000),
    "deep parentheses, short": answer("(" * 90 + "4*3+2+10" + ")" * 90),
    "open parentheses": answer("(" * 99_000),
    "closing parentheses": answer(")" * 90_000),
    "deep JSON list": "[" * 90_000,
    "deep JSON object": '{"formula":' * 9_000,
    "nested JSON": '{"formula": {"formula": {"formula": "4*3+2+10"}}}',
    "megabytes": "x" * (5 * MEGABYTE),
    "megabytes of answer": answer("4*3+2+10") + " " * (5 * MEGABYTE),
    "megabytes of keys": '"formula": ' * (MEGABYTE // 10),
    "keys without values": '"cards": [' * 9_000 + '"number": [' * 100,
    "quotes": '"' * 90_000,
    "spaces after a key": '"formula"' + " " * 90_000 + "x",
    "spaces in a formula": answer("4" + " " * 90_000 + "*3+2+10"),
    "unicode digits": answer("٤*３+२+10"),
    "unicode digits in lists": '"cards": [٤], "number": [٤, ３], "formula": "4*3+2+10"',
    "surrogate": '{"formula": "\ud800"}',
    "escaped": r'{"formula": "\u0034*3\u002b2+10"}',
    "code": answer("__import__('os').system('true')"),
    "JSON array": '["formula", "cards"]',
    "JSON scalar": "5",
    "JSON nan": '{"formula": NaN, "cards": [NaN], "number": [Infinity]}',
}


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers(name, modality, verifier):
    text = HOSTILE[name]
    started = time.process_time()
    got = grade(text, HAND, modality=modality, verifier=verifier)
    read_cards(text), read_numbers(text), has_format(text)
    assert 0 <= recognition(text, HAND) <= 1
    assert time.process_time() - started < 1.0
    assert got.outcome in OUTCOMES and isinstance(got.reward, float) and isinstance(got.feedback, str)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_random_text_always_gets_a_documented_outcome(verifier):
    rng = random.Random(0)
    alphabet = list("{}[]\"':,.=+-*/() \n\t\0\\0123456789KQJA٤²éx") + [
        '"formula": "',
        '"cards": [',
        "4*3+2+10",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(60)))
        for shown in (text, answer(text)):
            modality = rng.choice(["text", "image"])
            assert grade(shown, HAND, modality=modality, verifier=verifier).outcome in OUTCOMES


def oracle(text):
    """(legal, value, numbers) of a formula by Python's own parser; a division by zero has the value None."""
    numbers = []

    def visit(node):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            a, b = visit(node.left), visit(node.right)
            if a is None or b is None or (isinstance(node.op, ast.Div) and b == 0):
                return None
            if isinstance(node.op, ast.Add):
                return a + b
            if isinstance(node.op, ast.Sub):
                return a - b
            return a * b if isinstance(node.op, ast.Mult) else a / b
        if not (isinstance(node, ast.Constant) and type(node.value) is int):
            raise SyntaxError
        numbers.append(node.value)
        return Fraction(node.value)

    try:
        value = visit(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return False, None, []
    return True, value, numbers


def test_random_formulas_against_pythons_parser():
    rng = random.Random(1)
    legal = 0
    for _ in range(20_000):
        tokens = rng.choices(["4", "3", "2", "10", *"()+-*/"], k=9)
        if rng.random() < 0.8:  # alternate, so that many are legal
            tokens = [rng.choice("+-*/" if i % 2 else ["4", "3", "2", "10"]) for i in range(7)]
            i, j = sorted(rng.sample(range(8), 2))
            tokens = [*tokens[:i], "(", *tokens[i:j], ")", *tokens[j:]] if rng.random() < 0.7 else tokens
        text = " ".join(tokens)
        is_legal, value, numbers = oracle(text)
        read = parse_formula(text)
        assert (read is not None) == is_legal, text
        expected = "illegal"
        if is_legal:
            legal += 1
            assert evaluate(read) == value, text
            right = sorted(numbers) == [2, 3, 4, 10]
            expected = "wrong_numbers" if not right else "correct" if value == 24 else "wrong_value"
        assert grade(answer(text), HAND).outcome == expected, text
    assert legal > 2000


@pytest.mark.parametrize(
    "change, named",
    [
        ({"cards": ["4", "3", "2", "X"]}, "'X'"),
        ({"rule": "eleven"}, "'eleven'"),
        ({"rule": (10, 10)}, "three values"),
        ({"rule": 10}, "three values"),
        ({"modality": "sound"}, "'sound'"),
        ({"verifier": "strict"}, "'strict'"),
    ],
)
def test_bad_arguments_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        grade(**({"text": "", "cards": HAND} | change))
