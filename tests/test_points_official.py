"""The official verifier against golden values of the released code, and its stored solutions."""

import ast
import random

import pytest

from sftrl_lib.points import grade
from sftrl_lib.points.official import official_solutions
from sftrl_lib.points.prompts import response

HAND = ["4", "3", "2", "K"]  # 4, 3, 2, 10


def official(formula, cards=HAND):
    got = grade(response(cards, [], formula), cards, verifier="official")
    return got.reward, got.feedback


@pytest.mark.parametrize(
    "hand, formula, reward, message",
    [
        ("3388", "8/(3-8/3)", 0, "."),  # 23.99..: unwinnable although dealt
        ("A456", "4/(1-5/6)", 0, "."),
        ("A456", "6/(5/4-1)", 5, "Correct solution."),
        ("432K", "4*3+2+10=24", 5, "Correct solution."),
        ("432K", "4*3+2+10=7", 5, "Correct solution."),
        ("432K", "((4*3))+2+10", 5, "Correct solution."),
        ("432K", "4*3 + 2+10", -3, "illegal characters."),
        ("432K", "4*3+2+10 =24", -3, "illegal characters."),
        ("432K", "4x3+2+10", -3, "illegal characters."),
        ("432K", "4*3+2+10.0", -3, "illegal characters."),
        ("432K", "4*3+2+11", -4, "you used invalid numbers: [11], you didn't use numbers: [10]."),
        ("432K", "4*3+2+10+4", -2, "you used numbers: [4] too many times."),
        ("432K", "4*3+2", -2, "you didn't use numbers: [10]."),
        ("432K", "4*3+3+10", -4, "you used numbers: [3] too many times, you didn't use numbers: [2]."),
        ("432K", "4*3+3+11", -4, "you used invalid numbers: [11], you didn't use numbers: [2, 10]."),
        ("432K", "", -2, "you didn't use numbers: [4, 3, 2, 10]."),
        ("432K", "-4*3+2+10", -3, "invalid sequence after operator."),
        ("432K", "4**3+2+10", -3, "invalid sequence after operator."),
        ("432K", "4(3)+2+10", -6, "invalid sequence before '(', unmatched closing parenthesis."),
        ("432K", "(4*3)2+10", -3, "invalid sequence after number."),
        ("432K", "4*3+2+10)", -3, "unmatched closing parenthesis."),
        ("432K", "4*(3+2+)10", -6, "invalid sequence after ')', invalid sequence after number."),
        ("432K", "--4*3+2+10", -6, "invalid sequence after operator, invalid sequence after operator."),
        ("432K", "-4*3+2", -5, "invalid sequence after operator, you didn't use numbers: [10]."),
        ("432K", "(4*3)+(2+10", 1, "partial solution."),
        (
            "432K",
            "(4*3+2+10-",
            -1,
            "(4*3+2 is partially correct but the full formula does not match any solution.",
        ),
        (
            "432K",
            "4*3+2-10",
            -1,
            "4*3+2 is partially correct but the full formula does not match any solution.",
        ),
        (
            "432K",
            "((4*3)+2)-10",
            -1,
            "( is partially correct but the full formula does not match any solution.",
        ),
        ("KKKQ", "10*10-10-10", -1, "your formula does not match any solution."),
        ("3388", "(8-8)/(3-3)", -1, "your formula does not match any solution."),
    ],
)
def test_rewards_and_messages(hand, formula, reward, message):
    assert official(formula, list(hand)) == (reward, message)


def test_a_missing_formula_reads_none():
    got = grade("I give up.", HAND, verifier="official")
    assert (got.reward, got.outcome, got.feedback) == (-3, "illegal", "illegal characters.")


@pytest.mark.parametrize("value", ["24", "null", "true", '["4*3+2+10"]', "{}"])
def test_a_formula_that_is_no_text_is_illegal_where_the_released_code_crashes(value):
    got = grade(f'{{"formula": {value}}}', HAND, verifier="official")
    assert (got.reward, got.outcome, got.feedback) == (-3, "illegal", "illegal characters.")


def test_fields_are_found_only_with_one_space_outside_json():
    assert grade('so "formula": "4*3+2+10" it is', HAND, verifier="official").reward == 5
    assert grade('so "formula":"4*3+2+10" it is', HAND, verifier="official").reward == -3
    assert grade('{"formula":"4*3+2+10"}', HAND, verifier="official").reward == 5


@pytest.mark.parametrize(
    "cards, text, reward",
    [
        # Unquoted integers, strict JSON and double quotes are misread although right; single quotes pass.
        (["2", "3", "4", "10"], '"cards": [2, 3, 4, 10], "formula": "4*3+2+10",', -1.5),
        (["2", "3", "4", "10"], '{"cards": ["2", "3", "4", "10"], "formula": "4*3+2+10"}', -1.5),
        (["2", "3", "4", "10"], "\"cards\": ['2', '3', '4', '10'], \"formula\": \"4*3+2+10\",", 5),
        (["2", "3", "4", "10"], '"cards": ["2", "3", "4", "10"], "formula": "4*3+2+10",', -1.5),
        (HAND, '"cards": [4, 3, 2, K], "formula": "4*3+2+10",', 5),
        (HAND, '"cards": [K, 2, 3, 4], "formula": "4*3+2+10",', 5),  # any order
        (HAND, '"cards": [4, 3, 2, Q], "formula": "4*3+2+10",', -1.5),
        (HAND, '"formula": "4*3+2+10",', -1.5),
        (HAND, '"cards": [4, 3, 2, K], "number": [9, 9, 9, 9], "formula": "4*3+2+11",', -4),
    ],
)
def test_recognition_in_pictures(cards, text, reward):
    got = grade(text, cards, modality="image", verifier="official")
    assert got.reward == reward
    assert (got.outcome == "misread") == (reward == -1.5)
    if reward == -1.5:
        assert got.feedback == "you recognized wrong cards"  # no full stop, unlike the others


@pytest.mark.parametrize(
    "formula, outcome",
    [
        ("4*3+2+10", "correct"),
        ("4*3+2-10", "wrong_value"),
        ("(4*3)+(2+10", "wrong_value"),
        ("4*3+2+11", "wrong_numbers"),
        ("-4*3+2", "illegal"),
        ("4 *3+2+10", "illegal"),
    ],
)
def test_outcome_words(formula, outcome):
    assert grade(response(HAND, [], formula), HAND, verifier="official").outcome == outcome


def test_stored_solutions():
    stored = official_solutions((2, 3, 4, 10))
    assert len(stored) == 94  # as counted on the released solver
    assert {"4*3+2+10", "(4*3)+2+10", "(4*3)+(2+10)", "4*3+(2+10)"} <= set(stored)
    assert "((4*3)+2)+10" not in stored  # nested parentheses are never stored
    assert "8/(3-8/3)" in official_solutions((3, 3, 8, 8))


def python_value(text):
    """What Python itself makes of a formula (floats and all); None where it raises."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return None
    allowed = ast.Expression | ast.BinOp | ast.Constant | ast.Add | ast.Sub | ast.Mult | ast.Div
    assert all(isinstance(node, allowed) for node in ast.walk(tree))

    def visit(node):
        if isinstance(node, ast.Constant):
            return node.value
        a, b = visit(node.left), visit(node.right)
        operation = type(node.op).__name__
        return {"Add": a + b, "Sub": a - b, "Mult": a * b}[operation] if operation != "Div" else a / b

    try:
        return visit(tree.body)
    except ZeroDivisionError:
        return None


def test_floating_point_is_pythons():
    """Random legal formulas: +5 exactly where Python's own arithmetic says 24."""
    rng = random.Random(0)
    hands = [("3388", (3, 3, 8, 8)), ("A456", (1, 4, 5, 6)), ("2357", (2, 3, 5, 7)), ("432K", (4, 3, 2, 10))]
    for _ in range(4000):
        hand, numbers = rng.choice(hands)
        a, b, c, d = map(str, rng.sample(numbers, 4))
        o, p, q = rng.choices("+-*/", k=3)
        shapes = [f"{a}{o}{b}{p}{c}{q}{d}", f"{a}{o}({b}{p}{c}{q}{d})", f"({a}{o}{b}){p}({c}{q}{d})"]
        text = rng.choice([*shapes, f"{a}{o}({b}{p}({c}{q}{d}))", f"(({a}{o}{b}){p}{c}){q}{d}"])
        assert (official(text, list(hand))[0] == 5) == (python_value(text) == 24), text
