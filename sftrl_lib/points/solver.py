"""Every formula that makes the target from four numbers, in exact rational arithmetic.

How they differ:
* official code: brute force over permutations, operators and seven bracketings with float ``eval``, 0.2 s per
  hand; lists formulas that differ only in brackets separately, and its float comparison rejects 8/(3-8/3).
* ours: meet in the middle on `Fraction` values, memoised by multiset: about 0.2 ms per new hand, a dictionary
  look-up per known one. Formulas that differ only in the order of a sum or a product, or in redundant brackets,
  are one formula, written with the larger operands first and without redundant brackets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement

# A formula is a tree in canonical form: ("n", number), ("+", plus, minus) for a sum or ("*", over, under) for
# a product, where the last two hold sorted tuples of (value, tree).
Tree = tuple


def _parts(tree: Tree, value: Fraction, operator: str) -> tuple[tuple, tuple]:
    """The (positive, negative) operands of `tree` as a sum or product."""
    return (tree[1], tree[2]) if tree[0] == operator else (((value, tree),), ())


def _join(operator: str, left: Tree, a: Fraction, right: Tree, b: Fraction, inverse: bool) -> Tree:
    """left + right, left - right, left * right or left / right, flattened and sorted."""
    over, under = _parts(left, a, operator)
    more_over, more_under = _parts(right, b, operator)
    if inverse:
        more_over, more_under = more_under, more_over
    largest_first = sorted(over + more_over, key=_order), sorted(under + more_under, key=_order)
    return operator, tuple(largest_first[0]), tuple(largest_first[1])


def _order(part: tuple[Fraction, Tree]) -> tuple:
    return -part[0], render(part[1])


@lru_cache(maxsize=200_000)
def render(tree: Tree) -> str:
    """The formula as text, without spaces and without redundant brackets."""
    if tree[0] == "n":
        return str(tree[1])
    operator, over, under = tree
    inverse = "-" if operator == "+" else "/"

    def operand(part: Tree) -> str:
        bracket = operator == "*" and part[0] == "+"
        return f"({render(part)})" if bracket else render(part)

    text = operator.join(operand(part) for _, part in over)
    return text + "".join(inverse + operand(part) for _, part in under)


def _combine(a: Fraction, left: Tree, b: Fraction, right: Tree) -> Iterator[tuple[Fraction, Tree]]:
    """All results of one operation between two formulas, in either order."""
    yield a + b, _join("+", left, a, right, b, False)
    yield a - b, _join("+", left, a, right, b, True)
    yield b - a, _join("+", right, b, left, a, True)
    yield a * b, _join("*", left, a, right, b, False)
    if b:
        yield a / b, _join("*", left, a, right, b, True)
    if a:
        yield b / a, _join("*", right, b, left, a, True)


def _splits(numbers: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to split a sorted multiset into two non-empty multisets, each pair once."""
    found = set()
    for mask in range(1, 2 ** len(numbers) - 1):
        left = tuple(n for i, n in enumerate(numbers) if mask >> i & 1)
        right = tuple(n for i, n in enumerate(numbers) if not mask >> i & 1)
        found.add(min((left, right), (right, left)))
    return found


@lru_cache(maxsize=50_000)
def _formulas(numbers: tuple[int, ...]) -> dict[Fraction, frozenset[Tree]]:
    """Every value that `numbers` (sorted) can make, with the formulas that make it."""
    if len(numbers) == 1:
        return {Fraction(numbers[0]): frozenset([("n", numbers[0])])}
    values: dict[Fraction, set[Tree]] = {}
    for left, right in _splits(numbers):
        for a, lefts in _formulas(left).items():
            for b, rights in _formulas(right).items():
                for x in lefts:
                    for y in rights:
                        for value, tree in _combine(a, x, b, y):
                            values.setdefault(value, set()).add(tree)
    return {value: frozenset(trees) for value, trees in values.items()}


def _wanted(a: Fraction, target: int | Fraction) -> set[Fraction]:
    """The values b for which some operation between a and b makes the target; all would do if both are 0."""
    wanted = {target - a, a - target, target + a}
    if a:
        wanted |= {target * a, Fraction(target) / a}
    if a and target:
        wanted.add(a / target)
    return wanted


@lru_cache(maxsize=100_000)
def _solve(numbers: tuple[int, ...], target: int) -> tuple[str, ...]:
    if len(numbers) < 2:
        return tuple(render(tree) for tree in _formulas(numbers).get(Fraction(target), ()))
    found: set[str] = set()
    for left, right in _splits(numbers):
        partners = _formulas(right)
        for a, lefts in _formulas(left).items():
            for b in partners if not a and not target else _wanted(a, target) & partners.keys():
                for x in lefts:
                    for y in partners[b]:
                        found.update(render(t) for value, t in _combine(a, x, b, y) if value == target)
    return tuple(sorted(found, key=lambda text: (len(text), text)))


def solve(numbers: Sequence[int], target: int = 24) -> tuple[str, ...]:
    """Every distinct formula that makes `target` from all of `numbers`, shortest first; may be empty.

    Formulas that differ only in the order of operands or in redundant brackets count as one. Exact arithmetic, no
    unary minus. Raises ValueError unless there are one to four whole numbers of at least 0 and a whole target.
    """
    if not 1 <= len(numbers) <= 4 or any(isinstance(n, bool) or n != int(n) or n < 0 for n in numbers):
        raise ValueError(f"solve() takes one to four whole numbers of at least 0, got {list(numbers)!r}.")
    if isinstance(target, bool) or int(target) != target:
        raise ValueError(f"The target must be a whole number, got {target!r}.")
    return _solve(tuple(sorted(int(n) for n in numbers)), int(target))


def random_formula(numbers: Sequence[int], rng: random.Random) -> tuple[Fraction, str]:
    """The value and text of a random formula that uses all of `numbers` once, in the form of `solve`."""
    parts: list[tuple[Fraction, Tree]] = [(Fraction(n), ("n", n)) for n in numbers]
    while len(parts) > 1:
        a, left = parts.pop(rng.randrange(len(parts)))
        b, right = parts.pop(rng.randrange(len(parts)))
        operator, inverse = rng.choice("+*"), rng.random() < 0.5 and bool(b)
        value = (a - b if inverse else a + b) if operator == "+" else (a / b if inverse else a * b)
        parts.append((value, _join(operator, left, a, right, b, inverse)))
    value, tree = parts[0]
    return value, render(tree)


def is_solvable(numbers: Sequence[int], target: int = 24) -> bool:
    """Whether some formula makes `target` from all of `numbers`; five of them at most."""
    if len(numbers) != 5:
        return bool(solve(numbers, target))
    return next(_meetings(tuple(sorted(numbers)), Fraction(target)), None) is not None


def one_formula(numbers: Sequence[int], target: int = 24) -> str:
    """The first formula of `solve`; for five numbers any one. Raises ValueError if nothing makes `target`."""
    if not is_solvable(numbers, target):
        raise ValueError(f"Nothing makes {target} from {list(numbers)!r}.")
    if len(numbers) != 5:
        return solve(numbers, target)[0]
    return render(_make(tuple(sorted(numbers)), Fraction(target)))


def _make(numbers: tuple[int, ...], value: Fraction) -> Tree:
    """One of the formulas that make `value`, which some do."""
    if len(numbers) == 1:
        return "n", numbers[0]
    left, a, right, b = next(_meetings(numbers, value))
    return next(tree for result, tree in _combine(a, _make(left, a), b, _make(right, b)) if result == value)


def _meetings(numbers: tuple[int, ...], value: Fraction) -> Iterator[tuple[tuple, Fraction, tuple, Fraction]]:
    """Every split of the numbers with a value of each part of which one operation makes `value`."""
    for left, right in sorted(_splits(numbers)):
        for a in sorted(_values(left)):
            partners = _values(right) if not a and not value else _wanted(a, value) & _values(right)
            yield from ((left, a, right, b) for b in sorted(partners))


@lru_cache(maxsize=50_000)
def _values(numbers: tuple[int, ...]) -> frozenset[Fraction]:
    """Every value that `numbers` (sorted) can make."""
    if len(numbers) == 1:
        return frozenset([Fraction(numbers[0])])
    found: set[Fraction] = set()
    for left, right in _splits(numbers):
        for a in _values(left):
            for b in _values(right):
                found |= {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
    return frozenset(found)


def build_table(target: int = 24, largest: int = 13) -> dict[tuple[int, ...], tuple[str, ...]]:
    """The solutions of every multiset of four numbers 1..largest (1,820 for 13, in a few seconds)."""
    return {hand: solve(hand, target) for hand in combinations_with_replacement(range(1, largest + 1), 4)}
