"""The part of both games in which the models answer, side by side and attempt by attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets as W

from ..evaluation.cast import Cast, Player
from . import page

Watch = Callable[[Player, float, int], Iterator[Any]]  # (player, temperature, seed) -> its turns, one by one


class ModelsPanel(W.VBox):
    """Buttons that ask the models, and a column for each.

    asks: what a button says -> how a model is watched then. show: a turn as HTML. done: called with a player and its
    turns when it has played. Whatever a model does, nothing is raised: its failure is shown in its column.
    """

    def __init__(
        self,
        cast: Cast,
        asks: Mapping[str, Watch],
        show: Callable[[Any], str],
        done: Callable[[Player, Sequence[Any]], None],
    ) -> None:
        self.cast, self._asks, self._show, self._done = cast, dict(asks), show, done
        self.asked = 0  # how often, since the last `clear`: another sampling seed each time
        self.buttons = tuple(W.Button(description=text, layout=W.Layout(width="auto")) for text in self._asks)
        self.ask = self.buttons[0]
        self.temperature = W.FloatSlider(
            value=1.0, min=0.0, max=2.0, step=0.1, description="Temperature", continuous_update=False,
            tooltip="0: always the likeliest token", style={"description_width": "initial"},
            layout=W.Layout(width="290px"),
        )  # fmt: skip
        self.seed = W.Dropdown(
            options=[(f"seed {seed}", seed) for seed in cast.seeds], description="Trained with",
            disabled=len(cast.seeds) < 2, style={"description_width": "initial"}, layout=W.Layout(width="190px"),
        )  # fmt: skip
        self.status = W.HTML()
        self.notice = W.HTML()
        self.columns: dict[str, W.HTML] = {}
        self.side_by_side = W.HBox(layout=W.Layout(grid_gap="18px"))
        for button in self.buttons:
            button.on_click(self.on_ask)
        self.seed.observe(self.on_seed, names="value")
        controls = W.HBox(
            [*self.buttons, self.temperature, self.seed, self.status], layout=W.Layout(flex_flow="row wrap")
        )
        super().__init__([self.notice, controls, self.side_by_side])
        self.on_seed()

    def on_seed(self, _change: dict | None = None) -> None:
        """Let the models of another training seed play."""
        failure = ""
        try:
            self.players = list(self.cast.load(self.seed.value))
        except Exception as error:  # such as a damaged checkpoint
            self.players, failure = [], f"{type(error).__name__}: {error}"
        self.notice.value = page.notice(self.cast.note, self.cast.toy) + (page.wrong(failure) if failure else "")
        self.columns = {player.name: W.HTML(layout=W.Layout(flex="1 1 0", min_width="0")) for player in self.players}
        self.side_by_side.children = list(self.columns.values())
        self.layout.display = "" if self.players or self.notice.value else "none"
        self.clear()

    def on_ask(self, button: W.Button) -> None:
        """Ask every model in turn."""
        watch = self._asks[button.description]
        for each in self.buttons:
            each.disabled = True
        try:
            for player in self.players:
                self.status.value = page.soft(f"{player.name} is answering …")
                self._ask(player, watch)
        finally:
            self.asked += 1
            self.status.value = page.soft("Shading: the darker a token, the less sure the model was of it.")
            for each in self.buttons:
                each.disabled = False

    def clear(self) -> None:
        """Forget what was answered."""
        self.asked = 0
        self.status.value = ""
        for player in self.players:
            self._fill(player, [])

    def _ask(self, player: Player, watch: Watch) -> None:
        turns: list[Any] = []
        failure = ""
        try:
            for turn in watch(player, self.temperature.value, self.asked):
                turns.append(turn)
                self._fill(player, turns)
        except Exception as error:  # a model may fail in any way; the game goes on
            failure = f"{type(error).__name__}: {error}"
        self._fill(player, turns, failure)
        if turns:
            self._done(player, turns)

    def _fill(self, player: Player, turns: Sequence[Any], failure: str = "") -> None:
        self.columns[player.name].value = page.column(player.name, player.source, map(self._show, turns), failure)
