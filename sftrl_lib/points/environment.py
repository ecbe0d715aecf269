"""GeneralPoints as a Gymnasium environment: actions are raw text (paper section 4.1, appendix A).

An episode ends with a correct equation or when the attempts are used up (paper: 5 verification steps); `attempts.py`
says how paper, official code and ours differ there.

The picture of a hand (``modality="image"``, the paper's GP-VL) is drawn once, at reset, from ``np_random``, and stays
the same across attempts, as in the official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from ..attempts import AttemptsEnv, Grade, check_choice, check_whole
from .cards import IMAGE_SIZE, PICTURE_SIZE, TIDY, UNTIDY, Look, check_size, draw_hand
from .official import STEP_LIMIT
from .prompts import task_prompt
from .rules import (
    DEALS,
    HANDS,
    SUITS,
    Rule,
    as_rule,
    card_numbers,
    check_hand,
    check_suits,
    deal,
    deal_suits,
    vary,
)
from .verifier import grade, has_format

FIELDS = ("formula", "all")


class GeneralPoints(AttemptsEnv):
    """Make a target number from four cards, with several attempts and the verifier's feedback between them.

    ## Description
    The agent is dealt four cards; every hand has a solution. It answers in text with the cards, the number each
    counts as, and a formula that uses each number once and equals the target. A verifier grades the answer; after
    a failure its feedback is appended to the chat and the agent tries again.

    ## Action Space
    Any string: the model's raw answer. No string raises; a wrong type raises ValueError.

    ## Observation Space
    A dict with `messages`: the chat so far as a list of `{"role": "user" | "assistant", "content": str}`. It
    starts with the paper's prompt; each answer is appended, followed by the feedback sentence if it failed.
    With `modality="image"` also `image`: the cards, uint8, (height, width, 3). The prompt then does not name them,
    and every content is a list of parts: `{"type": "text", "text": str}`, preceded by `{"type": "image"}` in the
    first message, as the chat templates of vision-language models expect.

    ## Starting State
    A fresh hand from `np_random` (so `seed` fixes it) and a chat with only the prompt.
    `options={"hand": ["4", "3", "2", "K"]}` fixes the hand; `deal` and `hands` do not apply to it, but `suits`
    does. Adding `"suits": ["spades", "hearts", "clubs", "diamonds"]` fixes the suits as well.

    ## Rewards
    With `verifier="exact"`: +5 correct, -1 wrong value, -2 wrong numbers, -3 illegal formula (or -1.5
    instead if the cards of a picture are misread). With `verifier="official"`: the released
    code's accumulated rewards, and -1 for the ungraded answer after the last attempt.

    ## Episode Termination
    Terminated on a correct formula. Truncated when the attempts are used up: with `verifier="exact"` by the
    last graded attempt, with `verifier="official"` by one more, ungraded answer.

    ## Information
    `cards` (four ranks), `numbers` (what they count as), `outcome` (None at reset, then `correct`,
    `wrong_value`, `wrong_numbers`, `illegal` or `misread`; the ungraded official answer counts as
    `wrong_value`), `feedback` (None at reset; the sentence for the chat, or the official message),
    `attempts_left` and, with `modality="image"`, `suits` (of the four cards).

    ## Arguments
    * `modality`: "text", or "image" (the paper's GP-VL: the cards are only in the picture).
    * `rule`: "ten" (J, Q, K count 10 each), "distinct" (11, 12, 13), or any three values such as `(5, 6, 7)`.
    * `deal`: "any", or "face" (every hand holds at least one J, Q or K).
    * `suits`: "any" (a 52-card deck), or half a deck: "black" (the paper's training) or "red" (its visual OOD).
      Never shown in text.
    * `target`: the whole number to make.
    * `max_attempts`: graded attempts per episode, at least 1.
    * `verifier`: "exact" or "official".
    * `hands`: "any", "train" or "heldout": which number multisets are dealt.
    * `stated`: the rule that the prompt states, if it is not the one that scores: a trap for what was memorised.
    * `hand_size`: 4, or 5 (text only).
    * `diversity`: the share of hands under a random rule in place of `rule` (see `rules.another_rule`).
    * `spelt_out`: the share of hands whose prompt gives J, Q and K a value each, even if they are equal.
    * `fields`: "formula" is all that counts in an answer, or "all": one without all three fields counts as empty.
    * `image_size`: height and width of `image` in pixels.
    * `look`: the `Look` of `image`: the print of the cards and how hard they are to read.
    * `render_mode`: None, or "rgb_array": `render()` returns the hand at display size, in either modality.

    Invalid values raise ValueError in the constructor, not at the first step.

    ## Version History
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}
    exceeded = Grade(-1.0, "wrong_value", STEP_LIMIT)

    def __init__(
        self,
        modality: str = "text",
        rule: str | Rule | Sequence[int] = "ten",
        deal: str = "any",
        suits: str = "any",
        target: int = 24,
        max_attempts: int = 5,
        verifier: str = "exact",
        hands: str = "any",
        stated: str | Rule | Sequence[int] | None = None,
        hand_size: int = 4,
        diversity: float = 0.0,
        spelt_out: float = 0.0,
        fields: str = "formula",
        image_size: tuple[int, int] = IMAGE_SIZE,
        look: Look = UNTIDY,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(look, Look):
            raise ValueError(f"look must be a Look, got {look!r}.")
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.image_size = check_size(image_size)
        super().__init__(modality, max_attempts, verifier, self.image_size)
        self.rule = as_rule(rule)
        self.deal = check_choice("deal", deal, DEALS)
        self.suits = check_choice("suits", suits, tuple(SUITS))
        self.target = check_whole("target", target)
        self.hands = check_choice("hands", hands, HANDS)
        self.stated = None if stated is None else as_rule(stated)
        self.hand_size = check_choice("hand_size", hand_size, (4, 5))
        if modality == "image" and hand_size != 4:
            raise ValueError(f"There are no pictures of hand_size={hand_size!r} cards; use modality='text'.")
        for name, share in (("diversity", diversity), ("spelt_out", spelt_out)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the hands, from 0 to 1, got {share!r}.")
        self.diversity, self.spelt_out = diversity, spelt_out
        self.fields = check_choice("fields", fields, FIELDS)
        self.look = look
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Deal a hand and start its chat. ``options={"hand": [four ranks], "suits": [four suits]}`` fixes it.

        With ``hand_size=5`` both have five. Raises ValueError for an unknown option, for a hand that is not as many
        known ranks with a solution, and for suits that are not as many known ones or come without a hand.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"hand", "suits"}:
            raise ValueError(f"Unknown reset option {sorted(map(str, unknown))[0]!r}; use 'hand' and 'suits'.")
        hand, suits = options.get("hand"), options.get("suits")
        if hand is None and suits is not None:
            raise ValueError("The reset option 'suits' goes with 'hand'.")
        self.hand_rule = vary(self.rule, self.np_random, self.diversity, self.spelt_out)
        if hand is None:
            how = self.deal, self.hands, self.suits, self.target, self.hand_size
            self._cards, self._suits = deal(self.np_random, self.hand_rule, *how)
        else:
            self._cards = check_hand(hand, self.hand_rule, self.target, self.hand_size)
        # In text, draw nothing more from np_random, so that its hands do not depend on picture seeds.
        self._picture_seed = int(self.np_random.integers(2**32)) if self.modality == "image" else 0
        if hand is not None:
            chance = np.random.default_rng([self._picture_seed, 1])
            given = None if suits is None else check_suits(suits, self.hand_size)
            self._suits = given or deal_suits(chance, self._cards, self.suits)
        self._numbers = card_numbers(self._cards, self.hand_rule)
        if self.modality == "image":
            self._image = self._picture(self.image_size)
        self._ask(task_prompt(self._cards, self.stated or self.hand_rule, self.target, self.modality))
        return self._observation(), self._info(None, None)

    def render(self) -> np.ndarray | None:
        """The hand at display size, uint8, (420, 1200, 3): straight and clean in the text modality, as untidy as the
        observation in the image modality. None without ``render_mode="rgb_array"``.

        Raises ResetNeeded before the first reset.
        """
        if self.render_mode is None:
            return None
        if not hasattr(self, "_cards"):
            raise ResetNeeded("There is no hand to show; call reset() before render().")
        return self._picture(PICTURE_SIZE)

    def _picture(self, size: tuple[int, int]) -> np.ndarray:
        if self.modality == "text":
            return draw_hand(self._cards, self._suits, size, TIDY)
        chance = np.random.default_rng(self._picture_seed)
        return draw_hand(self._cards, self._suits, size, self.look, chance)

    def _grade(self, action: str) -> Grade:
        whole = self.fields == "formula" or has_format(action)
        return grade(action if whole else "", self._cards, self.hand_rule, self.target, self.modality, self.verifier)

    def _observation_image(self) -> np.ndarray:
        return self._image.copy()

    def _info(self, outcome: str | None, feedback: str | None) -> dict[str, Any]:
        info = {
            "cards": list(self._cards),
            "numbers": list(self._numbers),
            "outcome": outcome,
            "feedback": feedback,
            "attempts_left": self._attempts_left,
        }
        return info | {"suits": list(self._suits)} if self.modality == "image" else info
