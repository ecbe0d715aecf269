"""Expert demonstrations of navigation (paper C.1): the expert's answer at a position of a training route."""

from __future__ import annotations

import gymnasium
import numpy as np

from ..task import Example, pictured_example, text_example
from .prompts import expert_response
from .rails import rail_builder


def demonstration(env: gymnasium.Env, route: int, rng: np.random.Generator) -> Example:
    """The expert's answer at a random position of a route, on a new rail; `env` is the training environment."""
    seed = int(rng.integers(2**31))
    position = int(rng.integers(len(rail_builder(env.city).build(route, seed))))
    observation, info = env.reset(seed=seed, options={"route": route, "position": position})
    answer = expert_response(*(info[f"expert_{key}"] for key in ("observation", "instruction", "action")))
    columns = {"action": info["expert_action"], "actions": env.actions}
    if env.modality == "image":
        return pictured_example(observation, answer) | columns
    return text_example(observation["messages"][0]["content"], answer) | columns
