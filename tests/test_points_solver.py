"""The solver against oracles that share nothing with it: float brute force, and Python's own parser."""

import ast
import random
from collections import Counter
from fractions import Fraction
from itertools import combinations, combinations_with_replacement

import pytest

from sftrl_lib.points import is_solvable, solve
from sftrl_lib.points.solver import build_table, one_formula

OPERATIONS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def value_and_numbers(formula, number=Fraction):
    """The value of a formula and the numbers in it, read by Python's parser."""
    numbers = []

    def visit(node):
        if isinstance(node, ast.BinOp):
            return OPERATIONS[type(node.op)](visit(node.left), visit(node.right))
        assert isinstance(node, ast.Constant) and type(node.value) is int, ast.dump(node)
        numbers.append(node.value)
        return number(node.value)

    return visit(ast.parse(formula, mode="eval").body), numbers


def brute_force(numbers, target):
    """Replace two numbers by a result until one is left. Floats will do: a miss is 1e-6 or more."""
    if len(numbers) == 1:
        return abs(numbers[0] - target) < 1e-9
    for i, j in combinations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        results = [a + b, a - b, b - a, a * b]
        results += [a / b] if abs(b) > 1e-9 else []
        results += [b / a] if abs(a) > 1e-9 else []
        if any(brute_force([*rest, result], target) for result in results):
            return True
    return False


@pytest.fixture(scope="module")
def table():
    return build_table()


def test_solvable_hands_are_those_that_brute_force_solves(table):
    assert len(table) == 1820
    wrong = [hand for hand, formulas in table.items() if bool(formulas) != brute_force(hand, 24)]
    assert wrong == []


def test_counts_of_solvable_hands(table):
    assert sum(bool(table[hand]) for hand in combinations_with_replacement(range(1, 11), 4)) == 566
    assert sum(bool(formulas) for formulas in table.values()) == 1362


def test_every_formula_makes_24_from_the_hand(table):
    for hand, formulas in table.items():
        assert len(set(formulas)) == len(formulas)
        for formula in formulas:
            value, numbers = value_and_numbers(formula)
            assert value == 24 and Counter(numbers) == Counter(hand), (hand, formula)


@pytest.mark.parametrize("target", [-3, 0, 1, 10, 36, 100])
def test_other_targets(target):
    for hand in combinations_with_replacement(range(1, 7), 4):
        formulas = solve(hand, target)
        assert bool(formulas) == brute_force(hand, target), hand
        for formula in formulas:
            value, numbers = value_and_numbers(formula)
            assert value == target and Counter(numbers) == Counter(hand)


def test_formulas_are_complete_and_distinct():
    """Random stand-ins for the hand's numbers tell formulas apart; brute force finds the same ones."""
    rng = random.Random(0)
    for hand in ([2, 3, 4, 10], [1, 2, 5, 8], [3, 7, 9, 13]):
        stand_in = {n: Fraction(rng.randrange(10**6, 10**7), rng.randrange(10**6, 10**7)) for n in hand}
        found = [value_and_numbers(formula, stand_in.__getitem__)[0] for formula in solve(hand)]
        expected = set()

        def search(parts, stand_in=stand_in, expected=expected):
            if len(parts) == 1:
                if parts[0][0] == 24:
                    expected.add(parts[0][1])
                return
            for i, j in combinations(range(len(parts)), 2):
                rest = [p for k, p in enumerate(parts) if k not in (i, j)]
                for (a, x), (b, y) in [(parts[i], parts[j]), (parts[j], parts[i])]:
                    search([*rest, (a + b, x + y)])
                    search([*rest, (a - b, x - y)])
                    search([*rest, (a * b, x * y)])
                    if b:
                        search([*rest, (a / b, x / y)])

        search([(Fraction(n), stand_in[n]) for n in hand])
        assert set(found) == expected


def test_known_hands():
    assert "4*3+10+2" in solve([4, 3, 2, 10]) or "10+4*3+2" in solve([4, 3, 2, 10])
    assert solve([3, 3, 8, 8]) == ("8/(3-8/3)",)
    assert solve([1, 1, 1, 1]) == () and not is_solvable([1, 1, 1, 1])
    assert solve([10, 2, 4, 3]) == solve([2, 3, 4, 10])


@pytest.mark.parametrize(
    "numbers, target",
    [([], 24), ([1, 2, 3, 4, 5], 24), ([1.5, 2, 3, 4], 24), ([-1, 2, 3, 4], 24), ([True, 2], 24)],
)
def test_bad_input_is_named(numbers, target):
    with pytest.raises(ValueError, match="whole numbers"):
        solve(numbers, target)


def test_bad_target_is_named():
    with pytest.raises(ValueError, match="target must be a whole number"):
        solve([1, 2, 3, 4], 24.5)


def makes(values, target):
    """Whether the values make the target: any two of them are combined, again and again."""
    if len(values) == 1:
        return values[0] == target
    for i, j in combinations(range(len(values)), 2):
        a, b, rest = values[i], values[j], [v for k, v in enumerate(values) if k not in (i, j)]
        results = {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
        if any(makes([*rest, result], target) for result in results):
            return True
    return False


@pytest.mark.parametrize("target", [0, 24])
def test_five_numbers_have_a_formula_exactly_if_they_make_the_target(target):
    """Small numbers, of which both halves of a split can make 0: that alone makes nothing."""
    rng = random.Random(target)
    for _ in range(25):
        hand = [rng.choice([1, 1, 1, 2, 3]) for _ in range(5)]
        assert is_solvable(hand, target) == makes([Fraction(n) for n in hand], target), hand
        if is_solvable(hand, target):
            value, numbers = value_and_numbers(one_formula(hand, target))
            assert value == target and sorted(numbers) == sorted(hand)
    with pytest.raises(ValueError, match="Nothing makes 24"):
        one_formula([1, 1, 1, 1, 1])
