"""Street navigation to play with mouse or keyboard, beside the models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as W
from IPython.display import HTML

from ..evaluation.cast import Cast, Player, as_cast
from ..virl import city_names, compass_word
from . import page
from .models_panel import ModelsPanel
from .scores import YOU, Scores
from .walk import Step, Walk
from .walk_map import draw_map

PICTURE = 300  # width of the map and of the street views on the page, in pixels
LATEST = 6  # steps of the history that are shown
GO_ON = "Show the step"  # what the button for a step that is not found says
_RULES = {"absolute": "compass directions", "relative": "left and right"}
_STOP = W.Layout(grid_column="1 / 4", width="auto")
# The buttons of each action space as they lie on the page, in rows of three.
_ROSES = {
    "absolute": ("northwest", "north", "northeast", "west", "", "east", "southwest", "south", "southeast"),
    "relative": ("slightly left", "", "slightly right", "left", "stop()", "right"),
}
_ARROWS = {
    "north": "↑", "northeast": "↗", "east": "→", "southeast": "↘", "south": "↓", "southwest": "↙", "west": "←",
    "northwest": "↖", "left": "↰", "right": "↱", "slightly left": "↖", "slightly right": "↗",
}  # fmt: skip


class NavigationPlayer(W.VBox):
    """A route to walk, beside models that answer at the same positions.

    players: a `Cast` of models, or functions of your own by name, from the chat so far to the text of the answer. walk:
    the state to show (a fresh `Walk` by default). Clicks never raise: errors are shown instead.
    """

    def __init__(self, players: Cast | Mapping[str, Callable] | None = None, walk: Walk | None = None) -> None:
        self.walk = walk or Walk()
        self.scores = Scores()
        self._refreshing = False
        self.style_sheet = W.HTML(page.STYLE, layout=W.Layout(display="none"))
        square = W.Layout(width=f"{PICTURE}px", max_width="100%")
        self.map, self.views = W.HTML(layout=square), W.HTML(layout=square)
        self.place, self.instructions, self.history, self.score = W.HTML(), W.HTML(), W.HTML(), W.HTML()
        self.verdict, self.help = W.HTML(), W.HTML()
        self.actions = W.ToggleButtons(
            options=[(label, key) for key, label in _RULES.items()], style={"button_width": "auto"}
        )
        self.rose = W.GridBox(layout=W.Layout(grid_template_columns="repeat(3, 1fr)", width="100%"))
        self.buttons: dict[str, W.Button] = {}
        self.hint = W.Button(description="Hint", layout=W.Layout(width="auto"))
        self.go_on = W.Button(description=GO_ON, layout=W.Layout(width="auto"))
        self.new_route = W.Button(description="New route", layout=W.Layout(width="auto"))
        self.city = W.Dropdown(options=[*city_names()], description="City", layout=W.Layout(width="220px"))
        self.route = W.BoundedIntText(min=0, max=10**6, description="Route", layout=W.Layout(width="180px"))
        self.settings = W.Accordion([W.HBox([self.city, self.route])], titles=("City and route",))
        asks = {"Ask the models here": self._watch_here, "Let them walk the route": self._watch_route}
        self.models = ModelsPanel(as_cast(players), asks, step_html, self._on_watched)
        self._connect()
        panel = W.VBox(
            [
                self.actions,
                self.place,
                self.rose,
                self.verdict,
                W.HBox([self.hint, self.go_on, self.new_route], layout=W.Layout(flex_flow="row wrap")),
                self.help,
            ],
            layout=W.Layout(flex="1 1 290px", min_width="290px"),
        )
        table = W.HBox([self.map, self.views, panel], layout=W.Layout(flex_flow="row wrap", grid_gap="12px"))
        told = W.HBox([self.history, self.score], layout=W.Layout(flex_flow="row wrap", grid_gap="40px"))
        super().__init__([self.style_sheet, table, self.instructions, self.models, told, self.settings])
        self.add_class("sftrl")
        self._show_route()

    def snapshot(self) -> HTML:
        """What is on the page now, without widgets: for exports and printing."""
        half = '<div style="flex:1 1 0;min-width:220px">{}</div>'
        row = '<div style="display:flex;gap:14px;flex-wrap:wrap">{}</div>'
        models = "".join(half.format(column.value) for column in self.models.columns.values())
        rows = [
            row.format("".join(half.format(part.value) for part in (self.map, self.views, self.instructions))),
            self.place.value,
            self.history.value,
            row.format(models),
            self.models.notice.value,
            self.score.value,
        ]
        return HTML(f'{page.STYLE}<div class="sftrl whole">{"".join(rows)}</div>')

    def _connect(self) -> None:
        self.hint.on_click(self.on_hint)
        self.go_on.on_click(self.on_go_on)
        self.new_route.on_click(self.on_new_route)
        for widget in (self.actions, self.city):
            widget.observe(self.on_change, names="value")
        self.route.observe(self.on_route, names="value")

    # What a click or a key does

    def on_action(self, button: W.Button) -> None:
        """Answer with the action of a button."""
        action = next(action for action, each in self.buttons.items() if each is button)
        try:
            step = self.walk.act(action)
        except ValueError as error:
            self.verdict.value = page.spoken(page.wrong(error))
            return
        first = [each for each in self.walk.history if each.position == step.position][0]
        self._record(YOU, step.position, first.outcome)
        self.help.value = ""
        if step.outcome == "correct":
            self.models.clear()
        self._show_position()
        self.verdict.value = page.spoken(_verdict(step) + _afterwards(self.walk))

    def on_hint(self, _button: W.Button) -> None:
        self.help.value = page.plain(self.walk.hint())

    def on_go_on(self, _button: W.Button) -> None:
        right = self.walk.right_action
        try:
            self.walk.go_on()
        except ValueError as error:
            self.verdict.value = page.spoken(page.plain(error))
            return
        self.help.value = ""
        self.models.clear()
        self._show_position()
        self.verdict.value = page.spoken(page.plain(f"It was {right}. You are there now."))

    def on_new_route(self, _button: W.Button) -> None:
        self.walk.new_route()
        self._show_route()

    def on_route(self, change: dict) -> None:
        if self._refreshing:
            return
        try:
            self.walk.new_route(change["new"])
        except ValueError as error:
            self._show_settings()
            self.verdict.value = page.spoken(page.wrong(error))
            return
        self._show_route()

    def on_change(self, _change: dict) -> None:
        if self._refreshing:
            return
        same = self.city.value == self.walk.routes
        if not same:
            self.verdict.value = page.spoken(page.soft(f"Laying out the streets of {self.city.value} …"))
        self.walk.change(self.actions.value, self.city.value)
        self._show_route()

    # What is shown

    def _show_route(self) -> None:
        """Show a route, a city or an action space that has just been chosen."""
        self._show_settings()
        walk = self.walk
        self.buttons = {action: self._button(action) for action in walk.choices}
        layout = [next(action for action in walk.choices if _fits(action, word)) for word in _ROSES[walk.actions]]
        self.rose.children = [self.buttons[action] for action in (*layout, *(set(walk.choices) - set(layout)))]
        self.help.value = ""
        self.models.clear()
        self._show_position()
        start = "Follow the instructions, one action at a time." if not walk.position else "Same place, new directions."
        self.verdict.value = page.spoken(page.plain(start))

    def _button(self, action: str) -> W.Button:
        word = action.removeprefix("turn_direction(").removesuffix(")").removesuffix("(")
        text = f"{_ARROWS[word]} {word}" if word in _ARROWS else {"forward": "forward", "stop": "stop here"}[word]
        wide = action == "stop()" and self.walk.actions == "absolute"
        layout = _STOP if wide else W.Layout(width="auto")
        style = "primary" if action == "forward()" else ""
        button = W.Button(description=text, tooltip=action, layout=layout, button_style=style)
        button.on_click(self.on_action)
        return button

    def _show_settings(self) -> None:
        walk = self.walk
        self._refreshing = True
        try:
            self.actions.value = walk.actions
            if walk.routes in self.city.options:
                self.city.value = walk.routes
            self.route.value = walk.route
        finally:
            self._refreshing = False

    def _show_position(self) -> None:
        walk = self.walk
        facing = compass_word(walk.heading)
        drawn = draw_map(walk)
        where = f"position {walk.position + 1} of {walk.positions}"
        self.map.value = (
            page.plain("There is no map of this city.")
            if drawn is None
            else page.picture(drawn, f"Map of {walk.name}, north up: {where}, facing {facing}", 2 * PICTURE)
        )
        self.views.value = _views_html(walk)
        self.instructions.value = f'<div class="columns">{page.numbered(map(page.plain, walk.instructions))}</div>'
        self.place.value = (
            f"<div>You see: <b>{page.plain(walk.observation)}</b></div>"
            f"<div>You face <b>{facing}</b>. {page.soft(f'{walk.name}, {where}')}</div>"
        )
        for button in self.buttons.values():
            button.disabled = walk.over
        self.go_on.disabled = walk.position == walk.positions - 1
        shown = walk.history[-LATEST:]
        lines = (f"<div>{step.position + 1}. {page.plain(step.action)} {_verdict(step)}</div>" for step in shown)
        self.history.value = "".join(["<div><b>Your steps</b></div>", *lines]) if shown else ""
        self.score.value = self._table()

    def _table(self) -> str:
        return page.table(self.scores, "right first time", [_RULES[self.walk.actions]])

    def _record(self, name: str, position: int, outcome: str) -> None:
        self.scores.record(_RULES[self.walk.actions], name, (self.walk.name, position), outcome == "correct")

    def _watch_here(self, player: Player, temperature: float, seed: int):
        return self.walk.watch(player, temperature, seed)

    def _watch_route(self, player: Player, temperature: float, seed: int):
        return self.walk.watch(player, temperature, seed, to_the_end=True)

    def _on_watched(self, player: Player, steps: Sequence[Step]) -> None:
        for position, tried in itertools.groupby(steps, key=lambda step: step.position):
            self._record(player.name, position, next(tried).outcome)
        self.score.value = self._table()


def _fits(action: str, word: str) -> bool:
    return action in (f"turn_direction({word})", word or "forward()")


def _views_html(walk: Walk) -> str:
    names = (("front", "left:6px;top:6px"), ("right", "right:6px;top:6px"),
             ("back", "left:6px;bottom:6px"), ("left", "right:6px;bottom:6px"))  # fmt: skip
    look = "position:absolute;background:rgba(0,0,0,.66);color:#fff;border-radius:4px;padding:0 7px;font-size:12.5px"
    labels = "".join(f'<span style="{look};{place}">{name}</span>' for name, place in names)
    shown = page.picture(walk.views(), f"Street views: front, right, back and left. {walk.observation}", 2 * PICTURE)
    return f'<div style="position:relative">{shown}{labels}</div>'


def _verdict(step: Step) -> str:
    return (page.right if step.outcome == "correct" else page.wrong)(step.verdict)


def _afterwards(walk: Walk) -> str:
    if walk.arrived:
        return " " + page.soft("You have reached the destination.")
    if walk.stuck:
        at_the_end = walk.position == walk.positions - 1
        then = "This was the destination; press “New route”." if at_the_end else f"“{GO_ON}” takes that step."
        return " " + page.soft(f"No attempts left; {walk.right_action} was right. {then}")
    left = walk.attempts_left
    return " " + page.soft(f"{left} attempt{'s' if left > 1 else ''} left here.") if left < walk.max_attempts else ""


def step_html(step: Step) -> str:
    """A model's attempt: the position, its action and the verdict, then its whole answer with its probabilities."""
    action = page.plain(step.action, 60) if step.action else ""
    return f"<div>{page.soft(f'position {step.position + 1}')} {action} {_verdict(step)}</div>{page.said(step.answer)}"
