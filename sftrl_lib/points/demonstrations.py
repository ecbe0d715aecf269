"""Expert demonstrations of GeneralPoints (paper C.1), and the sub-optimal ones of Fig. 15.

The official project released data for the text task but not the script that generated it. Ours are generated:
``expert`` pairs the prompt of a training hand with one of the solver's solutions; ``suboptimal`` puts failed attempts
and the verifier's feedback in between, as in RL episodes. With pictures, examples come from the training environment
itself, with the same messages (lists of parts) and pictures as in RL and evaluation. Beside prompt and answer stand the
cards, the rule and the target, from which a reward function can grade any other answer (`interfaces/rewards.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import gymnasium
import numpy as np

from ..messages import text_message
from ..task import Example, pictured_example
from .prompts import expert_response, response, task_prompt
from .rules import Rule, card_numbers, deal, is_heldout, rule_name
from .solver import random_formula, solve
from .verifier import grade

TARGET = 24  # of all demonstrations
MOST_READ = 10  # the largest number that a failed attempt misreads a card as: 11, 12 and 13 belong to the test
MAX_MISTAKES = 5  # upper bound (exclusive) on failed attempts before the correct one


def demonstration(
    rng: np.random.Generator, kind: str = "expert", rule: str = "ten", attempts: int = MAX_MISTAKES
) -> Example:
    """One text-only example on a hand of the training split."""
    cards, _ = deal(rng, rule, hands="train")
    choice = random.Random(int(rng.integers(2**63)))
    prompt = [text_message("user", task_prompt(cards, rule))]
    if kind == "suboptimal":
        for mistake, feedback in failures(choice, cards, rule, attempts):
            prompt += [text_message("assistant", mistake), text_message("user", feedback)]
    answer = [text_message("assistant", solution(choice, cards, rule))]
    return {"prompt": prompt, "completion": answer, "cards": cards, "rule": rule_name(rule), "target": TARGET}


def pictured_demonstration(env: gymnasium.Env, rng: np.random.Generator, kind: str = "expert") -> Example:
    """One example on a hand that `env`, the training environment, deals, draws and grades."""
    observation, info = env.reset(seed=int(rng.integers(2**32)))
    choice = random.Random(int(rng.integers(2**63)))
    if kind == "suboptimal":
        for mistake, _ in failures(choice, info["cards"], env.hand_rule, env.max_attempts):
            observation, *_ = env.step(mistake)
    example = pictured_example(observation, solution(choice, info["cards"], env.hand_rule))
    return {**example, "cards": info["cards"], "rule": rule_name(env.hand_rule), "target": TARGET}


def solution(choice: random.Random, cards: list[str], rule: str | Rule) -> str:
    """The expert's answer to a hand: one of the solver's formulas."""
    return expert_response(cards, choice.choice(solve(card_numbers(cards, rule))), rule)


def failures(choice: random.Random, cards: list[str], rule: str | Rule, attempts: int) -> Iterator[tuple[str, str]]:
    """Fewer than `attempts` failed answers to a hand, each with the verifier's feedback."""
    for _ in range(choice.randrange(attempts)):
        mistake = failed_answer(choice, cards, list(card_numbers(cards, rule)))
        verdict = grade(mistake, cards, rule)
        if verdict.outcome != "correct":
            yield mistake, verdict.feedback


def failed_answer(choice: random.Random, cards: list[str], numbers: list[int]) -> str:
    """An answer in the right format that most likely fails: a random formula, a wrong number, or a broken formula."""
    read = list(numbers)
    kind = choice.choice(("value", "value", "numbers", "illegal"))
    while kind == "numbers" and (read == numbers or is_heldout(read)):
        read = list(numbers)
        read[choice.randrange(len(read))] = choice.randint(1, MOST_READ)
    formula = random_formula(read, choice)[1]
    if kind == "illegal":
        formula = formula[:-1] + choice.choice("+*/(")
    return response(cards, read, f"{formula}=24")
