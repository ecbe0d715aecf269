"""GeneralPoints as a Gymnasium environment: actions are raw text (paper section 4.1, appendix A).

How they differ:
* paper: an episode ends with a correct equation or after 5 verification steps; exceeding the budget costs -1.
* official code: grades five attempts, then has the model generate a sixth time, ignores that text even if it
  is right, and gives -1 for it. ``verifier="official"`` does the same.
* ours (``verifier="exact"``): the last graded attempt truncates the episode and keeps its own reward. The
  paper's -1 would pay for a generation that nothing reads, or hide what the last attempt earned.

The picture of a hand (``modality="image"``, the paper's GP-VL) is drawn once, at reset, from ``np_random``; it stays
the same over the attempts, as in the official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from ..messages import Message, messages_space, parts_message, text_message, text_space
from .cards import IMAGE_SIZE, PICTURE_SIZE, TIDY, UNTIDY, Look, check_size, draw_hand
from .official import STEP_LIMIT
from .prompts import MODALITIES, task_prompt
from .rules import (
    DEALS,
    HANDS,
    SUITS,
    Rule,
    as_rule,
    card_numbers,
    check_choice,
    check_hand,
    check_suits,
    deal,
    deal_suits,
)
from .verifier import VERIFIERS, grade

_OFFICIAL_FEEDBACK = "You failed this trial because {}"


class GeneralPoints(gym.Env):
    """Make a target number from four cards, with several attempts and the verifier's feedback between them.

    ## Description
    A hand of four cards is dealt; it always has a solution. The agent answers in text with the cards, the
    number each counts as, and a formula that uses each number once and equals the target. A verifier grades
    the answer; after a failure its feedback is appended to the chat and the agent tries again.

    ## Action Space
    Any string: the model's raw answer. No string raises; a wrong type raises ValueError.

    ## Observation Space
    A dict with `messages`: the chat so far as a list of `{"role": "user" | "assistant", "content": str}`. It
    begins with the paper's prompt; every answer is appended, and after a failed one the feedback sentence.
    With `modality="image"` also `image`: the cards, uint8 of height x width x 3. The prompt does not name them then,
    and every content is a list of parts: `{"type": "text", "text": str}`, in the first message after
    `{"type": "image"}`, as the chat templates of vision-language models expect it.

    ## Starting State
    A fresh hand from `np_random` (so `seed` fixes it) and a chat that holds the prompt alone.
    `options={"hand": ["4", "3", "2", "K"]}` fixes the hand; the dealing options do not apply to it, but `suits`
    does. `"suits": ["spades", "hearts", "clubs", "diamonds"]` beside it fixes the suits as well.

    ## Rewards
    With `verifier="exact"`: +5 correct, -1 wrong value, -2 wrong numbers, -3 illegal formula (and -1.5
    instead of all these when the cards of a picture are misread). With `verifier="official"`: the released
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
    * `suits`: "any" (a 52-card deck), "black" (the paper's training) or "red" (its visual OOD), half of one.
      Text never shows them.
    * `target`: the whole number to make.
    * `max_attempts`: graded attempts an episode, at least 1.
    * `verifier`: "exact" or "official".
    * `hands`: "any", "train" or "heldout": which number multisets are dealt.
    * `image_size`: height and width of `image` in pixels.
    * `look`: the `Look` of `image`: how the cards are printed, and how hard they are to read.
    * `render_mode`: None, or "rgb_array": `render()` gives the hand at a size for people, in either modality.

    An unknown value raises ValueError here, not at the first step.

    ## Version History
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}

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
        image_size: tuple[int, int] = IMAGE_SIZE,
        look: Look = UNTIDY,
        render_mode: str | None = None,
    ) -> None:
        check_choice("modality", modality, MODALITIES)
        if not isinstance(look, Look):
            raise ValueError(f"look must be a Look, got {look!r}.")
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        if isinstance(target, bool) or not isinstance(target, int):
            raise ValueError(f"target must be a whole number, got {target!r}.")
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
            raise ValueError(f"max_attempts must be a whole number of at least 1, got {max_attempts!r}.")
        self.modality = modality
        self.rule = as_rule(rule)
        self.deal = check_choice("deal", deal, DEALS)
        self.suits = check_choice("suits", suits, tuple(SUITS))
        self.target = target
        self.max_attempts = max_attempts
        self.verifier = check_choice("verifier", verifier, VERIFIERS)
        self.hands = check_choice("hands", hands, HANDS)
        self.image_size = check_size(image_size)
        self.look = look
        self.render_mode = render_mode
        self.action_space = text_space()
        self.observation_space = spaces.Dict({"messages": messages_space(parts=modality == "image")})
        if modality == "image":
            self.observation_space["image"] = spaces.Box(0, 255, (*self.image_size, 3), np.uint8)
        self._done = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Deal a hand and begin its chat. ``options={"hand": [four ranks], "suits": [four suits]}`` fixes it.

        Raises ValueError for an unknown option, for a hand that is not four known ranks with a solution, or for
        suits that are not four known ones beside a hand.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"hand", "suits"}:
            raise ValueError(f"Unknown reset option {sorted(map(str, unknown))[0]!r}; use 'hand' and 'suits'.")
        hand, suits = options.get("hand"), options.get("suits")
        if hand is None and suits is not None:
            raise ValueError("The reset option 'suits' goes with 'hand'.")
        if hand is None:
            self._cards, self._suits = deal(self.np_random, self.rule, self.deal, self.hands, self.suits, self.target)
        else:
            self._cards = check_hand(hand, self.rule, self.target)
        # Text draws nothing more from np_random: its hands do not depend on what a picture needs.
        self._picture_seed = int(self.np_random.integers(2**32)) if self.modality == "image" else 0
        if hand is not None:
            chance = np.random.default_rng([self._picture_seed, 1])
            self._suits = deal_suits(chance, self._cards, self.suits) if suits is None else check_suits(suits)
        self._numbers = card_numbers(self._cards, self.rule)
        prompt = task_prompt(self._cards, self.rule, self.target, self.modality)
        self._messages = [self._message("user", prompt, image=True)]
        if self.modality == "image":
            self._image = self._picture(self.image_size)
        self._attempts_left = self.max_attempts
        self._done = False
        return self._observation(), self._info(None, None)

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Grade one answer. Raises ValueError if it is not text, ResetNeeded after the end of an episode."""
        if self._done:
            raise ResetNeeded("The episode is over (or has not begun); call reset() before step().")
        if not isinstance(action, str):
            raise ValueError(f"An action is the model's answer as text, got {type(action).__name__}.")
        official = self.verifier == "official"
        if official and self._attempts_left == 0:
            reward, outcome, feedback = -1.0, "wrong_value", STEP_LIMIT
            truncated = True
        else:
            verdict = grade(action, self._cards, self.rule, self.target, self.modality, self.verifier)
            reward, outcome, feedback = verdict.reward, verdict.outcome, verdict.feedback
            self._attempts_left -= 1
            truncated = not official and self._attempts_left == 0 and outcome != "correct"
        terminated = outcome == "correct"
        self._messages.append(self._message("assistant", action))
        if not terminated:
            sentence = _OFFICIAL_FEEDBACK.format(feedback) if official else feedback
            self._messages.append(self._message("user", sentence))
        self._done = terminated or truncated
        return self._observation(), reward, terminated, truncated, self._info(outcome, feedback)

    def render(self) -> np.ndarray | None:
        """The hand as a picture for people (uint8, 420 x 1200 x 3): straight and clean in the text modality, as
        untidy as the model sees it in the image modality. None without ``render_mode="rgb_array"``.

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

    def _message(self, role: str, text: str, image: bool = False) -> Message:
        return parts_message(role, text, image) if self.modality == "image" else text_message(role, text)

    def _observation(self) -> dict[str, Any]:
        observation: dict[str, Any] = {"messages": deepcopy(self._messages)}
        if self.modality == "image":
            observation["image"] = self._image.copy()
        return observation

    def _info(self, outcome: str | None, feedback: str | None) -> dict[str, Any]:
        info = {
            "cards": list(self._cards),
            "numbers": list(self._numbers),
            "outcome": outcome,
            "feedback": feedback,
            "attempts_left": self._attempts_left,
        }
        return info | {"suits": list(self._suits)} if self.modality == "image" else info
