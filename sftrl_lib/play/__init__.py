"""Play both tasks by hand, beside the Init, SFT and RL models, with ipywidgets in a notebook.

`Game` and `Walk` are the states of a hand of GeneralPoints and of a route; they know nothing of widgets. `PointsPlayer`
and `NavigationPlayer` show them and turn clicks into their methods; all widgets are public attributes, so that tests
can click without a browser. In a notebook:

    from sftrl_lib.evaluation.players import find_cast
    from sftrl_lib.play import PointsPlayer
    PointsPlayer(find_cast("gp-l"))  # or functions of your own: {"mine": lambda messages: "..."}
"""

from .game import Game
from .navigation_player import NavigationPlayer
from .points_player import PointsPlayer
from .walk import Walk

__all__ = ["Game", "NavigationPlayer", "PointsPlayer", "Walk"]
