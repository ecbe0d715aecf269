"""Testing checkpoints as the paper does: sampled, several attempts with feedback (section 5, C.3).

How they differ:
* paper / official code: 234 hands, one seed, ID hands drawn from the training distribution, temperature unstated.
* ours: 1,000 hands at the ends and 250 along the curves, several seeds, the rollout temperature; ID as theirs, plus
  hands held out of all training. All checkpoints of a seed meet the same hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from ..models.policy import Policy
from ..points.rules import card_numbers
from ..points.verifier import has_format, read_numbers
from ..profiles import EvaluationConfig
from ..training.rollout import Episode, rollout

# What each split changes with respect to training, as keyword arguments of the environment.
SPLITS: dict[str, dict[str, Any]] = {
    "id": {"rule": "ten", "hands": "train"},
    "heldout": {"rule": "ten", "hands": "heldout"},
    "rule_ood": {"rule": "distinct", "deal": "face"},
}
_HANDS, _SAMPLING = 1, 2  # separate the random streams of the hands and of the sampling


@dataclass(frozen=True)
class Protocol:
    """One way of testing: how many episodes, how many attempts each, at which temperature."""

    episodes: int
    attempts: int
    temperature: float
    max_new_tokens: int
    batch_size: int


def protocol(config: EvaluationConfig, end: bool = True, **changes: Any) -> Protocol:
    """The paper's protocol at the end of a branch, or along its curve; `changes` replaces single fields."""
    paper = Protocol(
        config.episodes_end if end else config.episodes_curve,
        config.attempts,
        config.temperature,
        config.max_new_tokens,
        config.batch_size,
    )
    return replace(paper, **changes)


def play(policy: Policy, split: str, how: Protocol, seed: int, description: str = "") -> list[Episode]:
    """Play `how.episodes` hands of `split`. The hands depend on (split, seed) alone, so checkpoints are paired.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; use one of {', '.join(SPLITS)}.")
    stream = [seed, list(SPLITS).index(split)]
    hands = np.random.SeedSequence([_HANDS, *stream]).generate_state(how.episodes)
    generator = torch.Generator(policy.device).manual_seed(
        int(np.random.SeedSequence([_SAMPLING, *stream]).generate_state(1)[0])
    )
    make = {"max_attempts": how.attempts, "disable_env_checker": True, **SPLITS[split]}
    size = min(how.batch_size, how.episodes)
    envs = [gymnasium.make("sftrl/GeneralPoints-v0", **make).unwrapped for _ in range(size)]
    episodes: list[Episode] = []
    with tqdm(total=how.episodes, desc=description or split, unit="hand", mininterval=10, leave=False) as bar:
        for start in range(0, how.episodes, size):
            resets = [{"seed": int(s)} for s in hands[start : start + size]]
            episodes += rollout(
                policy,
                envs[: len(resets)],
                resets,
                how.temperature,
                how.max_new_tokens,
                generator,
                bar.update,
            )
    return episodes


def measure(episodes: Sequence[Episode]) -> dict[str, tuple[float, int]]:
    """Metrics of a set of episodes: name -> (value, number of episodes).

    success: at least one attempt is correct (the paper's metric). first_attempt: the first one is. recognition: in
    the first attempt the model's own "number" field holds the numbers that the stated rule gives its cards (in any
    order). training_rule: it holds those of the training rule instead (only where the two differ for some hand).
    format: the first attempt has all three fields.
    """
    first = [episode.attempts[0] for episode in episodes]
    read = [sorted(read_numbers(a.text) or ()) for a in first]
    stated = [sorted(episode.info["numbers"]) for episode in episodes]
    trained = [sorted(card_numbers(episode.info["cards"], SPLITS["id"]["rule"])) for episode in episodes]
    metrics = {
        "success": [episode.terminated for episode in episodes],
        "first_attempt": [a.outcome == "correct" for a in first],
        "recognition": [ours == theirs for ours, theirs in zip(read, stated, strict=True)],
        "format": [has_format(a.text) for a in first],
    }
    if stated != trained:
        metrics["training_rule"] = [ours == theirs for ours, theirs in zip(read, trained, strict=True)]
    return {name: (float(np.mean(values)), len(episodes)) for name, values in metrics.items()}


def transcript(episode: Episode, policy: Policy, number: int) -> dict[str, Any]:
    """An episode as it can be shown: the prompt, then each answer with its outcome and the verifier's feedback."""
    turns = []
    for conversation in episode.conversations:
        shown = 0
        for attempt in conversation.attempts:
            before = policy.tokenizer.decode(conversation.ids[shown : attempt.start], skip_special_tokens=True)
            turns.append(
                {
                    "prompt": before,
                    "output": attempt.text,
                    "outcome": attempt.outcome,
                    "reward": attempt.reward,
                }
            )
            shown = attempt.end
    return {
        "episode": number,
        "cards": list(episode.info["cards"]),
        "numbers": list(map(int, episode.info["numbers"])),
        "success": episode.terminated,
        "turns": turns,
    }
