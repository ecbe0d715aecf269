from .rules import RANKS, RULES, Rule, card_numbers, deal, is_heldout
from .solver import is_solvable, solve
from .verifier import Grade, grade

__all__ = [
    "RANKS",
    "RULES",
    "Grade",
    "Rule",
    "card_numbers",
    "deal",
    "grade",
    "is_heldout",
    "is_solvable",
    "solve",
]
