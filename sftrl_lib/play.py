"""Play GeneralPoints by hand, alongside the Init, SFT and RL models, with ipywidgets in a notebook.

`Game` is the state: one hand, a rule, a target, suits, the attempts so far. `PointsPlayer` shows it and turns clicks
into calls of `Game`; its widgets are public, so that tests can click without a browser. In a notebook:

    from sftrl_lib.play import PointsPlayer
    player = PointsPlayer(players={"Init": init, "RL": rl})  # functions from chat messages to answer text
    player
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import ipywidgets as W
import numpy as np
from PIL import Image

from .attempts import check_choice
from .points import SUITS, Rule, is_solvable, solve
from .points.environment import GeneralPoints
from .points.rules import FACES, as_rule, card_numbers, check_hand
from .points.verifier import read_formula

Answerer = Callable[[list[dict[str, str]]], str]  # from the chat so far to the model's next answer

_SHOWN_WIDTH = 640  # width of the cards on the page in pixels; the picture itself is larger
_MARKS = {"correct": "#2e7d32", "wrong_value": "#b26a00", "wrong_numbers": "#b26a00"}  # others: red
_CUSTOM = "custom"
# What people type for an operator; a model must write the operators that its prompt names.
_TYPED = str.maketrans(dict.fromkeys("×✕xX·⋅∙", "*") | dict.fromkeys("÷∕∶:", "/") | dict.fromkeys("−–", "-"))


@dataclass(frozen=True)
class Turn:
    """One attempt: the answer, the formula in it (None if there is none) and the verifier's verdict."""

    answer: str
    formula: str | None
    outcome: str
    reward: float
    feedback: str


def _turn(answer: str, reward: float, info: dict) -> Turn:
    return Turn(answer, read_formula(answer), info["outcome"], reward, info["feedback"])


class Game:
    """A player's hand of GeneralPoints; `rule`, `target` and `suits` as in the environment, `seed` fixes the hands."""

    def __init__(
        self,
        rule: str | Rule | Sequence[int] = "ten",
        target: int = 24,
        max_attempts: int = 5,
        seed: int | None = None,
        suits: str = "any",
    ) -> None:
        self.max_attempts = max_attempts
        self._rng = np.random.default_rng(seed)
        self._begin(as_rule(rule), target, suits, None)

    def new_hand(self, hand: Sequence[str] | None = None) -> None:
        """Deal a fresh hand, or take `hand`. Raises ValueError for a hand without a solution."""
        self._begin(self.rule, self.target, self.suits, hand)

    def change(self, rule: str | Rule | Sequence[int], target: int, suits: str | None = None) -> None:
        """Change the rule, target or suits. Keeps the ranks if they have a solution and the suits have enough of
        each, else deals a fresh hand.

        Raises ValueError, and changes nothing, for a bad rule, target or suits or a target that no hand can make.
        """
        rule = as_rule(rule)
        suits = self.suits if suits is None else check_choice("suits", suits, tuple(SUITS))
        enough = max(Counter(self.cards).values()) <= len(SUITS[suits])
        keep = enough and is_solvable(card_numbers(self.cards, rule), target)
        self._begin(rule, target, suits, self.cards if keep else None)

    def submit(self, formula: str) -> Turn:
        """Grade a typed formula, in which × and ÷ are understood; the rest of the answer format is filled in."""
        answer = self.wrap(formula.translate(_TYPED))
        _, reward, _, _, info = self._env.step(answer)
        turn = _turn(answer, reward, info)
        self.attempts_left = info["attempts_left"]
        self.history.append(turn)
        return turn

    def wrap(self, formula: str) -> str:
        """The whole answer for a formula: the cards, their numbers and the formula, as JSON."""
        return json.dumps({"cards": self.cards, "number": self.numbers, "formula": formula}, indent=2)

    def picture(self) -> np.ndarray:
        """The hand at display size: uint8, (height, width, 3)."""
        return self._env.render()

    def solutions(self) -> tuple[str, ...]:
        """Every formula that solves the hand."""
        return solve(self.numbers, self.target)

    def watch(self, answerer: Answerer) -> Iterator[Turn]:
        """Let a model play the same hand from the start, one attempt at a time."""
        env = self._make(self.rule, self.target, self.suits)
        observation, _ = env.reset(options={"hand": self.cards})
        over = False
        while not over:
            answer = answerer(observation["messages"])
            observation, reward, terminated, truncated, info = env.step(answer)
            yield _turn(answer, reward, info)
            over = terminated or truncated

    @property
    def won(self) -> bool:
        return any(turn.outcome == "correct" for turn in self.history)

    @property
    def over(self) -> bool:
        return self.won or self.attempts_left == 0

    def _make(self, rule: Rule, target: int, suits: str) -> GeneralPoints:
        return GeneralPoints(
            rule=rule, target=target, suits=suits, max_attempts=self.max_attempts, render_mode="rgb_array"
        )

    def _begin(self, rule: Rule, target: int, suits: str, hand: Sequence[str] | None) -> None:
        env = self._make(rule, target, suits)
        options = None if hand is None else {"hand": check_hand(hand, rule, target)}
        _, info = env.reset(seed=int(self._rng.integers(2**31)), options=options)
        self._env, self.rule, self.target, self.suits = env, rule, target, suits  # only after all of it has worked
        self.cards, self.numbers = info["cards"], info["numbers"]
        self.attempts_left = info["attempts_left"]
        self.history: list[Turn] = []


def cards_html(picture: np.ndarray, cards: Sequence[str], numbers: Sequence[int]) -> str:
    """The picture of a hand, uint8, (height, width, 3), with the number that each card counts as beneath."""
    file = BytesIO()
    Image.fromarray(picture).quantize(64).save(file, "PNG", optimize=True)  # few colours: a third of the bytes
    source = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    alt = escape("Four cards: " + ", ".join(cards))
    values = "".join(f'<div style="flex:1;text-align:center">counts as {number}</div>' for number in numbers)
    table = f"max-width:{_SHOWN_WIDTH}px;background:#35654d;border-radius:10px;overflow:hidden;color:white"
    return (
        f'<div style="{table}"><img src="{source}" alt="{alt}" style="width:100%;display:block">'
        f'<div style="display:flex;padding-bottom:10px">{values}</div></div>'
    )


def turns_html(turns: Sequence[Turn]) -> str:
    """Attempts as numbered lines: the formula (or the raw answer, shortened), the verdict, the feedback."""
    return "".join(
        f'<li><code style="white-space:pre-wrap">{_as_text(_shown(turn))}</code><br>'
        f'<b style="color:{_MARKS.get(turn.outcome, "#b3261e")}">{turn.outcome.replace("_", " ")}</b> '
        f"({turn.reward:+g}) {_as_text(turn.feedback)}</li>"
        for turn in turns
    ).join(("<ol>", "</ol>"))


def _shown(turn: Turn) -> str:
    text = turn.formula if turn.formula else turn.answer
    return text if len(text) <= 200 else text[:200] + " …"


def error_html(message: str) -> str:
    return f'<span style="color:#b3261e">{_as_text(message)}</span>'


def _as_text(text: str) -> str:
    """`text` as HTML that shows it as it is, but for half a surrogate pair, which cannot be sent to a browser."""
    return escape(text.encode("utf-8", "replace").decode())


class PointsPlayer(W.VBox):
    """GeneralPoints to play with the mouse, alongside models that play the same hand.

    players: name -> the function that answers for the model. game: the state to show (a fresh `Game` by default).
    Every widget is an attribute; clicks never raise, because errors are shown instead.
    """

    def __init__(self, players: Mapping[str, Answerer] | None = None, game: Game | None = None) -> None:
        self.players = dict(players or {})
        self.game = game or Game()
        self._refreshing = False
        self.cards = W.HTML()
        self.rule = W.ToggleButtons(
            options=[("J, Q, K = 10", "ten"), ("J, Q, K = 11, 12, 13", "distinct"), ("own values", _CUSTOM)],
            description="Rule",
            style={"button_width": "initial"},
        )
        self.values = tuple(
            W.BoundedIntText(min=1, max=99, description=face, layout=W.Layout(width="150px")) for face in FACES
        )
        self.custom = W.HBox(self.values)
        self.target = W.BoundedIntText(min=0, max=1000, description="Target", layout=W.Layout(width="170px"))
        self.suits = W.ToggleButtons(
            options=[("all suits", "any"), ("black", "black"), ("red", "red")],
            description="Suits",
            style={"button_width": "initial"},
        )
        self.new_hand = W.Button(description="New hand", icon="refresh")
        self.formula = W.Text(description="Formula", placeholder="each number once, with + - * / ( )")
        self.submit = W.Button(description="Submit", button_style="primary")
        self.attempts = W.HTML()
        self.answer = W.HTML()
        self.show_solutions = W.ToggleButton(description="Show solutions", value=False)
        self.solutions = W.HTML()
        self.ask = W.Button(description="Ask the models", layout=W.Layout(width="auto"))
        self.answers = {name: W.HTML(layout=W.Layout(width="320px")) for name in self.players}
        self.new_hand.on_click(self._on_new_hand)
        self.submit.on_click(self._on_submit)
        self.formula.on_msg(self._on_formula_message)
        self.ask.on_click(self._on_ask)
        self.show_solutions.observe(self._on_show_solutions, names="value")
        for widget in (self.rule, self.target, self.suits, *self.values):
            widget.observe(self._on_change, names="value")
        models = [self.ask, W.HBox(list(self.answers.values()))] if self.players else []
        super().__init__(
            [
                W.HBox([self.rule, self.target]),
                W.HBox([self.suits, self.new_hand]),
                self.custom,
                self.cards,
                W.HBox([self.formula, self.submit, self.attempts]),
                self.answer,
                self.show_solutions,
                self.solutions,
                *models,
            ]
        )
        self._show_hand()

    def _on_new_hand(self, _button: W.Button) -> None:
        try:
            self.game.new_hand()
        except ValueError as error:
            self.answer.value = error_html(str(error))
            return
        self._show_hand()

    def _on_change(self, _change: dict) -> None:
        if self._refreshing:
            return
        rule = tuple(box.value for box in self.values) if self.rule.value == _CUSTOM else self.rule.value
        try:
            self.game.change(rule, self.target.value, self.suits.value)
        except ValueError as error:
            self._show_hand()  # back to the rule and target that are still in force
            self.answer.value = error_html(str(error))
            return
        self._show_hand(custom=self.rule.value == _CUSTOM)

    def _on_formula_message(self, _widget: W.Text, content: dict, _buffers: object) -> None:
        if content.get("event") == "submit":  # the Enter key
            self._on_submit(self.submit)

    def _on_submit(self, _button: W.Button) -> None:
        formula = self.formula.value.strip()
        if self.game.over:
            return
        if not formula:
            self.answer.value = error_html("Type a formula first.") + turns_html(self.game.history)
            return
        self.game.submit(formula)
        self.formula.value = ""
        self._show_attempts()

    def _on_show_solutions(self, _change: dict) -> None:
        self._show_solutions()

    def _on_ask(self, _button: W.Button) -> None:
        self.ask.disabled = True
        try:
            for name, answerer in self.players.items():
                self._ask_one(name, answerer)
        finally:
            self.ask.disabled = False

    def _ask_one(self, name: str, answerer: Answerer) -> None:
        turns: list[Turn] = []
        failure = ""
        try:
            for turn in self.game.watch(answerer):
                turns.append(turn)
                self._show_answers(name, turns)
        except Exception as error:  # a model may fail in any way; the game goes on
            failure = error_html(f"{type(error).__name__}: {error}")
        self._show_answers(name, turns, failure)

    def _show_hand(self, custom: bool | None = None) -> None:
        """Show a hand that has just been dealt, and the rule and target in force."""
        game = self.game
        named = {as_rule("ten"): "ten", as_rule("distinct"): "distinct"}
        self._refreshing = True
        try:
            self.rule.value = _CUSTOM if custom else named.get(game.rule, _CUSTOM)
            self.target.value = game.target
            self.suits.value = game.suits
            for box, value in zip(self.values, game.rule.values, strict=True):
                box.value = value
        finally:
            self._refreshing = False
        self.custom.layout.display = "" if self.rule.value == _CUSTOM else "none"
        self.cards.value = cards_html(game.picture(), game.cards, game.numbers)
        self.formula.value = ""
        for name in self.answers:
            self._show_answers(name, [])
        self._show_attempts()

    def _show_attempts(self) -> None:
        game = self.game
        self.submit.disabled = self.formula.disabled = game.over
        state = "Solved." if game.won else f"Attempts left: {game.attempts_left} of {game.max_attempts}"
        self.attempts.value = f"<b>{state}</b>"
        self.answer.value = turns_html(game.history)
        self._show_solutions()

    def _show_solutions(self) -> None:
        shown = self.game.solutions() if self.show_solutions.value else ()
        self.solutions.value = "<br>".join(f"<code>{formula} = {self.game.target}</code>" for formula in shown)

    def _show_answers(self, name: str, turns: Sequence[Turn], failure: str = "") -> None:
        self.answers[name].value = f"<b>{_as_text(name)}</b>{turns_html(turns)}{failure}"
