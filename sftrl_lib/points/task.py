"""GeneralPoints as a task: GP-L and GP-VL, their splits, demonstrations, metrics and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from PIL.Image import Image, fromarray

from ..messages import message_text
from ..task import Example, Metrics, Reading, Task, Words, in_turn, mean
from .cards import UNTIDY, draw_hand
from .demonstrations import MAX_MISTAKES, demonstration, pictured_demonstration
from .prompts import response
from .rules import Rule, as_rule, card_numbers, deal_numbers, is_heldout, puzzles, rule_name, vary
from .solver import one_formula
from .verifier import REWARDS, has_format, read_numbers, recognition

if TYPE_CHECKING:
    from ..models.rollout import Episode

PICTURE_SIZE = (360, 720)  # height, width in pixels of a hand in a figure


@dataclass(frozen=True)
class PointsTask(Task):
    """GeneralPoints in one modality."""

    def demonstrations(self, kind: str, rng: np.random.Generator) -> Iterator[Example]:
        """Endless examples on fresh training hands; see `demonstrations.py`."""
        env = self.training_env(MAX_MISTAKES) if self.modality == "image" else None
        while True:
            if env:
                yield pictured_demonstration(env, rng, kind)
            else:
                shares = {name: self.training.get(name, 0.0) for name in ("diversity", "spelt_out")}
                yield demonstration(rng, kind, vary(as_rule(self.training["rule"]), rng, **shares))

    def expert(self, env: gymnasium.Env, info: Mapping[str, Any]) -> str:
        """One of the solver's formulas, with the numbers that score."""
        return response(info["cards"], info["numbers"], f"{one_formula(info['numbers'], env.target)}={env.target}")

    def columns(self, env: gymnasium.Env, info: Mapping[str, Any]) -> dict[str, Any]:
        """What `verifier.grade` needs: the cards, the rule that scores, the target."""
        return {"cards": list(info["cards"]), "rule": rule_name(env.hand_rule), "target": env.target}

    def shows_held_out(self, example: Example) -> bool:
        """Whether the numbers in the answer are a held-out hand.

        Red suits cannot be detected from an answer; the training environment deals none.
        """
        return is_heldout(read_numbers(message_text(example["completion"][0])))

    def resets(self, split: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Held-out hands: every puzzle (multiset of numbers) in turn, because a deck deals a few of them often."""
        if split not in self.sampled:
            return super().resets(split, seeds)
        found, resets = self._puzzles(split), []
        arguments = self.split(split)
        for seed, puzzle in zip(seeds, in_turn(len(found), seeds), strict=True):
            rng = np.random.default_rng(seed)
            cards, suits = deal_numbers(rng, found[puzzle], arguments["rule"], arguments.get("suits", "any"))
            resets.append({"seed": seed, "options": {"hand": cards, "suits": suits}})
        return resets

    def cluster(self, episode: Episode) -> int:
        """The number of its held-out puzzle."""
        return self._puzzles("heldout").index(tuple(sorted(episode.info["numbers"])))

    def _puzzles(self, split: str) -> tuple[tuple[int, ...], ...]:
        arguments = self.split(split)
        return puzzles(arguments["hands"], arguments["rule"], arguments.get("suits", "any"))

    def measure(self, split: str, episodes: Sequence[Episode]) -> Metrics:
        """n is the number of hands.

        success: at least one attempt is correct (the paper's metric). The other metrics are of the first attempt.
        first_attempt: it is correct. format: it has all three fields. formula_numbers: its formula uses the cards'
        numbers, each once. numbers: its "number" field holds the cards'
        numbers under the stated rule, in any order. training_rule: it holds those under the training rule instead
        (only where the two differ for some hand).

        recognition, with pictures: the "cards" field holds the four ranks in any order, as in the paper (section 5.3).
        In text the prompt gives the cards, and recognition is the older name of the numbers metric.
        """
        first = [episode.attempts[0] for episode in episodes]
        read = [sorted(read_numbers(a.text) or ()) for a in first]
        stated = [sorted(episode.info["numbers"]) for episode in episodes]
        trained = [sorted(card_numbers(episode.info["cards"], self.training["rule"])) for episode in episodes]
        metrics = {
            "success": [episode.terminated for episode in episodes],
            "first_attempt": [a.outcome == "correct" for a in first],
            "recognition": [ours == theirs for ours, theirs in zip(read, stated, strict=True)],
            "format": [has_format(a.text) for a in first],
            "formula_numbers": [a.outcome in ("correct", "wrong_value") for a in first],
        }
        if self.modality == "image":
            metrics["numbers"] = metrics["recognition"]
            seen = zip(first, episodes, strict=True)
            metrics["recognition"] = [recognition(a.text, episode.info["cards"]) == 1.0 for a, episode in seen]
        if stated != trained:
            metrics["training_rule"] = [ours == theirs for ours, theirs in zip(read, trained, strict=True)]
        return {name: mean(values) for name, values in metrics.items()}

    def about(self, split: str, episode: Episode) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
        """The hand; each hand is a single question."""
        info = episode.info
        about = {"cards": list(info["cards"]), "numbers": list(map(int, info["numbers"]))}
        return about | ({"suits": list(info["suits"])} if "suits" in info else {}), [{}]

    def picture(self, episode: Mapping[str, Any], turn: Mapping[str, Any]) -> Image | None:
        """The hand drawn tidily, because the transcript does not record how its cards lay."""
        if "suits" not in episode:
            return None
        return fromarray(draw_hand(episode["cards"], episode["suits"], PICTURE_SIZE))


_WORDS = Words(
    title="GeneralPoints",
    heldout="held-out hands",
    new_rule="J, Q, K = 11, 12, 13",
    metrics={"success": "success rate"},
    tables={"success": ("success",)},
    stated=Reading("recognition", "numbers by the stated rule", "share of answers (%)"),
    trained=Reading("training_rule", "numbers by the training rule", "share of answers (%)"),
    remark="GP: how the cards' numbers are read",
    picture="the picture is drawn larger and tidier than the model saw it",
    rule=re.compile(r"'J', 'Q', and 'K' count as [^.,]*(?:, '\d+', and '\d+' respectively)?"),
)

# Is it the rule that SFT loses under "J, Q, K = 11, 12, 13"? That prompt differs from the training prompt in three
# ways: a new rule, a longer sentence ("'11', '12', and '13' respectively"), and numbers above 10, which no training
# answer holds. The grid crosses them as far as they go: under the old rule no card counts above 10.
_VALUES = {"old_{}_low": 10, "new_{}_low": 4, "new_{}_high": 11}
GRID = {
    f"grid_{name.format(sentence)}": {"rule": Rule(*[value] * 3, spelt_out=sentence == "long"), "deal": "face"}
    for name, value in _VALUES.items()
    for sentence in ("short", "long")
}
# Rules and hands of "Debunk the Myth of SFT Generalization" (arXiv 2510.00237), beside the paper's 11, 12, 13.
PANEL = {
    "all5": {"rule": Rule(5, 5, 5), "deal": "face"},
    "all7": {"rule": Rule(7, 7, 7), "deal": "face"},
    "all12": {"rule": Rule(12, 12, 12), "deal": "face"},
    "large": {"rule": Rule(14, 17, 19), "deal": "face"},
    "five": {"rule": "ten", "hand_size": 5},
}
FAKE = {"fake": {"rule": "ten", "stated": "distinct", "deal": "face"}}

GP_L = PointsTask(
    key="gp-l",
    label="GP-L",
    name="general_points",
    modality="text",
    env="sftrl/GeneralPoints-v0",
    training={"rule": "ten", "hands": "train"},
    splits={
        "id": {"rule": "ten", "hands": "train"},
        "heldout": {"rule": "ten", "hands": "heldout"},
        "rule_ood": {"rule": "distinct", "deal": "face"},
    },
    probes={**GRID, **FAKE, **PANEL},
    options={"diversity": 0.0, "spelt_out": 0.0, "fields": "formula"},
    answer_key="formula",
    unit="hand",
    words=_WORDS,
    notebook="01_general_points",
    rewards={outcome: reward for outcome, reward in REWARDS.items() if outcome != "misread"},
    example={"hand": ["Q", "7", "8", "A"]},
    kinds=("expert", "suboptimal"),
    sampled=("heldout",),
    paper_lambda=6.0,
)

# Slightly untidier than any picture in the foundation model's pretraining, so that Init misreads some cards.
_UNTIDIER = replace(UNTIDY, jitter=0.6)

# The visual-OOD test: red suits (paper 4.1) on another paper, because red ink alone costs the foundation model too
# little reading to be a shift. Chosen by `foundation.visual_shift` before any SFT.
_NEW_LOOK = replace(_UNTIDIER, paper="#7fa8dc")

# GP-VL trains on black suits; the visual-OOD test deals the training hands.
GP_VL = replace(
    GP_L,
    key="gp-vl",
    label="GP-VL",
    modality="image",
    training={"rule": "ten", "hands": "train", "suits": "black", "look": _UNTIDIER},
    splits={
        "id": {"rule": "ten", "hands": "train", "suits": "black", "look": _UNTIDIER},
        "heldout": {"rule": "ten", "hands": "heldout", "suits": "black", "look": _UNTIDIER},
        "rule_ood": {"rule": "distinct", "deal": "face", "suits": "black", "look": _UNTIDIER},
        "visual_ood": {"rule": "ten", "hands": "train", "suits": "red", "look": _NEW_LOOK},
    },
    probes={},
    rewards=REWARDS,
    words=replace(
        _WORDS,
        tables={"success": ("success",), "all four cards read right": ("recognition",)},
        stated=replace(_WORDS.stated, metric="numbers"),
    ),
)
