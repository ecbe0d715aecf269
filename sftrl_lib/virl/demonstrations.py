"""Expert demonstrations of navigation (paper C.1): every position of every training route, with the expert's answer."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium

from ..task import Example, pictured_example, text_example
from .prompts import expert_pairs, expert_response
from .rails import rail_builder


def text_walk(env: gymnasium.Env, route: int, seed: int) -> Iterator[Example]:
    """The expert's answers along a route, from the prompts alone."""
    for prompt, answer in expert_pairs(rail_builder(env.city).build(route, seed), env.actions):
        yield text_example(prompt, answer)


def pictured_walk(env: gymnasium.Env, route: int, seed: int) -> Iterator[Example]:
    """The expert's answers along a route of `env`; street views are drawn only when their example is requested."""
    observation, info = env.reset(seed=seed, options={"route": route})
    over = False
    while not over:
        answer = expert_response(*(info[f"expert_{key}"] for key in ("observation", "instruction", "action")))
        yield pictured_example(observation, answer)
        observation, _, over, _, info = env.step(answer)
