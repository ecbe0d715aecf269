"""GeneralPoints to play with mouse or keyboard, beside the models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as W
from IPython.display import HTML

from ..evaluation.cast import Cast, Player, as_cast
from ..points.rules import FACES, as_rule
from . import page
from .game import Game, Reading, Turn, printed
from .models_panel import ModelsPanel
from .scores import YOU, Scores

CARDS = 600  # width of the four cards on the page, in pixels
_CUSTOM = "custom"
_OPERATORS = ("+", "−", "×", "÷", "(", ")")
_RULES = {"ten": "J, Q, K = 10", "distinct": "11, 12, 13"}


class PointsPlayer(W.VBox):
    """GeneralPoints to play, beside models that play the same hand.

    players: a `Cast` of models, or functions of your own by name, from the chat so far to the text of the answer. game:
    the state to show (a fresh `Game` by default). Clicks never raise: errors are shown instead.
    """

    def __init__(self, players: Cast | Mapping[str, Callable] | None = None, game: Game | None = None) -> None:
        self.game = game or Game()
        self.scores = Scores()
        self._refreshing = False
        self.style_sheet = W.HTML(page.STYLE, layout=W.Layout(display="none"))
        self.cards = W.HTML(layout=W.Layout(width=f"{CARDS}px", max_width="100%"))
        self.numbers = tuple(W.Button(layout=W.Layout(flex="1 1 0", height="38px")) for _ in self.game.cards)
        self.operators = tuple(W.Button(description=sign, layout=W.Layout(flex="1 1 0")) for sign in _OPERATORS)
        self.back = W.Button(icon="long-arrow-left", tooltip="Take the last sign back", layout=W.Layout(flex="1 1 0"))
        self.formula = W.Text(
            placeholder="type a formula, or click it together; Enter submits it",
            layout=W.Layout(flex="1 1 0", width="auto"),
        )
        self.submit = W.Button(description="Submit", button_style="primary", layout=W.Layout(width="90px"))
        self.verdict = W.HTML()
        self.rule = W.ToggleButtons(
            options=[*((label, key) for key, label in _RULES.items()), ("own values", _CUSTOM)],
            style={"button_width": "auto"},
        )
        self.values = tuple(
            W.BoundedIntText(min=1, max=99, description=face, layout=W.Layout(width="130px")) for face in FACES
        )
        self.custom = W.HBox(self.values)
        self.new_hand = W.Button(description="New hand", layout=W.Layout(width="auto"))
        self.hint = W.Button(description="Hint", layout=W.Layout(width="auto"))
        self.show_solutions = W.ToggleButton(description="Solutions", layout=W.Layout(width="auto"))
        self.help = W.HTML()
        self.attempts, self.history, self.score = W.HTML(), W.HTML(), W.HTML()
        self.target = W.BoundedIntText(min=0, max=1000, description="Target", layout=W.Layout(width="170px"))
        self.suits = W.ToggleButtons(
            options=[("all suits", "any"), ("black", "black"), ("red", "red")], style={"button_width": "auto"}
        )
        self.settings = W.Accordion([W.HBox([self.target, self.suits])], titles=("Target and suits",))
        self.models = ModelsPanel(as_cast(players), {"Ask the models": self._watch}, turn_html, self._on_watched)
        self._connect()
        left = W.VBox(
            [
                self.cards,
                W.HBox(self.numbers).add_class("big"),
                W.HBox([*self.operators, self.back]).add_class("big"),
                W.HBox([self.formula, self.submit]),
                self.verdict,
            ],
            layout=W.Layout(width=f"{CARDS}px", max_width="100%"),
        )
        right = W.VBox(
            [
                self.rule,
                self.custom,
                W.HBox([self.new_hand, self.hint, self.show_solutions]),
                self.help,
                self.attempts,
                self.history,
                self.score,
            ],
            layout=W.Layout(flex="1 1 300px", min_width="300px"),
        )
        table = W.HBox([left, right], layout=W.Layout(flex_flow="row wrap", grid_gap="20px"))
        super().__init__([self.style_sheet, table, self.models, self.settings])
        self.add_class("sftrl")
        self._show_hand()

    def deal(self, hand: Sequence[str] | None = None) -> None:
        """Deal a fresh hand, or this one. A hand without a solution is refused, which is shown."""
        self._deal(lambda: self.game.new_hand(hand))

    def snapshot(self) -> HTML:
        """What is on the page now, without widgets: for exports and printing."""
        half = '<div style="flex:1 1 0;min-width:220px">{}</div>'
        models = "".join(half.format(column.value) for column in self.models.columns.values())
        rows = [
            self.cards.value,
            f"<div>{page.plain(self.game.rule_name)}</div>",
            self.history.value,
            f'<div style="display:flex;gap:18px;flex-wrap:wrap">{models}</div>',
            self.models.notice.value,
            self.score.value,
        ]
        return HTML(f'{page.STYLE}<div class="sftrl whole">{"".join(rows)}</div>')

    def _connect(self) -> None:
        for button in self.numbers:
            button.on_click(self.on_number)
        for button in self.operators:
            button.on_click(self.on_operator)
        self.back.on_click(self.on_back)
        self.formula.observe(self.on_formula, names="value")
        self.formula.on_msg(self.on_formula_message)
        self.submit.on_click(self.on_submit)
        self.new_hand.on_click(self.on_new_hand)
        self.hint.on_click(self.on_hint)
        self.show_solutions.observe(self.on_show_solutions, names="value")
        for widget in (self.rule, self.target, self.suits, *self.values):
            widget.observe(self.on_change, names="value")

    # What a click or a key does

    def on_number(self, button: W.Button) -> None:
        self.formula.value += str(self.game.numbers[self.numbers.index(button)])

    def on_operator(self, button: W.Button) -> None:
        self.formula.value += button.description

    def on_back(self, _button: W.Button) -> None:
        self.formula.value = re.sub(r"(\d+|\D)\s*$", "", self.formula.value)

    def on_formula(self, _change: dict) -> None:
        """Numbers that the formula has are no longer offered."""
        used = Counter(re.findall(r"\d+", self.formula.value.split("=")[0]))
        for button, number in zip(self.numbers, map(str, self.game.numbers), strict=True):
            button.disabled = self.game.over or used[number] > 0
            used[number] -= 1

    def on_formula_message(self, _widget: W.Text, content: dict, _buffers: object) -> None:
        if content.get("event") == "submit":  # the Enter key
            self.on_submit(self.submit)

    def on_submit(self, _button: W.Button) -> None:
        game = self.game
        try:
            turn = game.submit(self.formula.value)
        except ValueError as error:
            self.verdict.value = page.spoken(page.wrong(error))
            return
        self.scores.record(game.rule_name, YOU, game.hands, game.won)
        self.formula.value = ""
        self._show_attempts()
        self.verdict.value = page.spoken(_verdict(turn) + _afterwards(game))

    def on_new_hand(self, _button: W.Button) -> None:
        self.deal()

    def on_change(self, _change: dict) -> None:
        if self._refreshing:
            return
        rule = tuple(box.value for box in self.values) if self.rule.value == _CUSTOM else self.rule.value
        self.custom.layout.display = "" if self.rule.value == _CUSTOM else "none"
        if (as_rule(rule), self.target.value, self.suits.value) != (self.game.rule, self.game.target, self.game.suits):
            self._deal(lambda: self.game.change(rule, self.target.value, self.suits.value))

    def on_hint(self, _button: W.Button) -> None:
        self.help.value = page.plain(self.game.hint())

    def on_show_solutions(self, _change: dict) -> None:
        shown = self.game.solutions() if self.show_solutions.value else ()
        self.help.value = "<br>".join(page.plain(f"{printed(formula)} = {self.game.target}") for formula in shown[:6])
        if len(shown) > 6:
            self.help.value += f"<br>{page.soft(f'and {len(shown) - 6} more')}"

    # What is shown

    def _deal(self, deal: Callable[[], None]) -> None:
        """Deal as `deal` does; a rare target may take seconds to find a hand for, so it says what it is doing."""
        self.verdict.value = page.spoken(page.soft(f"Looking for a hand that makes {self.target.value} …"))
        custom = self.rule.value == _CUSTOM
        try:
            deal()
        except ValueError as error:
            self._show_settings(custom=False)  # those that are still in force
            self.verdict.value = page.spoken(page.wrong(error))
            return
        self._show_hand(custom)

    def _show_hand(self, custom: bool = False) -> None:
        """Show a hand that has just been dealt, and the rule and target in force."""
        game = self.game
        self._show_settings(custom)
        worth = [f"{card} = {number}" if card in (*FACES, "A") else card
                 for card, number in zip(game.cards, game.numbers, strict=True)]  # fmt: skip
        alt = f"Four cards: {', '.join(game.cards)}; they count as {', '.join(map(str, game.numbers))}"
        self.cards.value = page.picture(game.picture(), alt, 2 * CARDS)
        for button, text in zip(self.numbers, worth, strict=True):
            button.description = text
        self.formula.value = ""
        self.show_solutions.value = False
        self.help.value = ""
        self.models.clear()
        self._show_attempts()
        self.verdict.value = page.spoken(page.plain(f"Make {game.target}, using each card once."))

    def _show_settings(self, custom: bool) -> None:
        game = self.game
        named = {as_rule(name): name for name in _RULES}
        self._refreshing = True
        try:
            self.rule.value = _CUSTOM if custom else named.get(game.rule, _CUSTOM)
            self.target.value, self.suits.value = game.target, game.suits
            for box, value in zip(self.values, game.rule.values, strict=True):
                box.value = value
        finally:
            self._refreshing = False
        self.custom.layout.display = "" if self.rule.value == _CUSTOM else "none"

    def _show_attempts(self) -> None:
        game = self.game
        for widget in (self.submit, self.formula, *self.operators, self.back):
            widget.disabled = game.over
        self.on_formula({})
        self.attempts.value = f"Attempts left: <b>{game.attempts_left}</b> of {game.max_attempts}"
        lines = (f"{page.plain(printed(turn.formula))} {_verdict(turn)}" for turn in game.history)
        self.history.value = page.numbered(lines) if game.history else ""
        self._show_score()

    def _watch(self, player: Player, temperature: float, seed: int):
        return self.game.watch(player, temperature, seed)

    def _on_watched(self, player: Player, turns: Sequence[Turn]) -> None:
        solved = turns[-1].outcome == "correct"
        self.scores.record(self.game.rule_name, player.name, self.game.hands, solved)
        self._show_score()

    def _show_score(self) -> None:
        self.score.value = page.table(self.scores, "solved", [self.game.rule_name])


def _verdict(turn: Turn) -> str:
    return (page.right if turn.outcome == "correct" else page.wrong)(turn.verdict)


def _afterwards(game: Game) -> str:
    if game.won:
        return " " + page.soft(f"Solved with attempt {len(game.history)}.")
    if game.over:
        return " " + page.soft(f"No attempts left; {printed(game.solutions()[0])} would have done it.")
    return ""


def turn_html(turn: Turn) -> str:
    """A model's attempt: what it read, its formula and the verdict, then its whole answer with its probabilities."""
    formula = page.plain(printed(turn.formula), 60) if turn.formula else ""
    read = ", ".join(map(_reading, turn.read)) or page.soft("no list of numbers")
    return f"<div>read {read}</div><div>{formula} {_verdict(turn)}</div>{page.said(turn.answer)}"


def _reading(reading: Reading) -> str:
    if reading.right and reading.card not in FACES:
        return page.plain(reading.number, 12)
    sure = "" if reading.probability is None else f" ({reading.probability:.0%})"
    return (page.right if reading.right else page.wrong)(f"{reading.card} = {reading.number}{sure}"[:40])
