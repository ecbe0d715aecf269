from .rules import RANKS, RULES, SUITS, Rule, card_numbers, deal, deal_suits, is_heldout
from .solver import is_solvable, solve
from .verifier import Grade, grade, recognition

__all__ = [
    "RANKS",
    "RULES",
    "SUITS",
    "Grade",
    "Rule",
    "card_numbers",
    "deal",
    "deal_suits",
    "grade",
    "is_heldout",
    "is_solvable",
    "recognition",
    "solve",
]
