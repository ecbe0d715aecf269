"""Figs. 11-14: the prompt, the answers and the verifier's words, a real exchange of each task variant.

Paper: one example a variant, written for print (with slips, see `published.EXAMPLES`). Ours: an exchange that the
run kept, if there is one with an error, the verifier's feedback and the correction. One function sets all four;
those of the image variants appear once a run has kept transcripts of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .. import published
from ..points.cards import draw_hand
from ..tables import VARIANTS
from ..tasks import street_views
from ..virl.city import load_city
from .exchanges import exchanges
from .page import ANSWER, PROMPT, Block, cut, heard, middle_cut, set_page, source, verdict, wrapped
from .style import COLORS, GREY, Drawing, NothingToDraw, Tables, record, styled

ASKED = (30, 16)  # lines of the prompt that are shown from its beginning and from its end
ANSWERED = 12  # lines of one answer
_RULES = {  # the words of a prompt that state the rule
    "general_points": re.compile(r"'J', 'Q', and 'K' count as [^.,]*(?:, '\d+', and '\d+' respectively)?"),
    "navigation": re.compile(r"x ?∈ ?\[[^\]\n]*\]"),
}
_METHODS = ("rl", "init", "sft")  # whose exchange is shown, best first


def example(tables: Tables, variant: str) -> Drawing:
    """One exchange of a task variant as a page."""
    found = min(_candidates(tables.transcripts, variant), key=lambda item: item[0], default=None)
    if found is None:
        raise NothingToDraw(f"it needs a {variant} transcript of experiment 'main', setting 'sampled'")
    _, episode, turns = found
    number = published.EXAMPLES["figures"][variant]
    title = f"Fig. {number} · {variant}: a prompt, the answers and the verifier"
    subtitle = f"{source(tables.profile, episode)} · tinted: the rule that the prompt states"
    if VARIANTS[variant].modality == "image":
        drawn = "larger and tidier" if "suits" in episode else "larger"
        subtitle += f" · the picture is drawn {drawn} than the model saw it"
    asked = middle_cut(wrapped(heard(turns[0]), _RULES[episode["task"]]), *ASKED)
    blocks = [Block("prompt", GREY, asked, box=PROMPT)]
    for index, turn in enumerate(turns):
        answer = cut(wrapped(turn.get("output", "")), ANSWERED)
        name = "answer" if len(turns) == 1 else f"attempt {index + 1}"
        blocks.append(Block(name, COLORS[episode["method"]], answer, box=ANSWER))
        blocks.append(verdict(turns, index))
    figure = set_page(title, subtitle, blocks, episode, picture(episode, turns[0]))
    series = [episode | {"turns": turns}]
    return Drawing(figure, record(f"fig{number}", title, subtitle, tables.profile, series, published.EXAMPLES))


def picture(episode: dict, turn: dict) -> np.ndarray | None:
    """What is in the picture of an image variant's exchange, at a size for people; None in text.

    The hand lies tidily here: how its cards lay is not in the transcript. A street view is as it was.
    """
    if "suits" in episode:
        return draw_hand(episode["cards"], episode["suits"], (360, 720))
    if episode["modality"] == "image" and "headings" in episode:
        place, heading = episode["path"][turn["position"]], episode["headings"][turn["position"]]
        return street_views(load_city(episode["city"])).grid(tuple(place), heading, 448, gap=6)
    return None


@styled
def gp_vl(tables: Tables) -> Drawing:
    """Fig. 11."""
    return example(tables, "GP-VL")


@styled
def gp_l(tables: Tables) -> Drawing:
    """Fig. 12."""
    return example(tables, "GP-L")


@styled
def v_irl_vl(tables: Tables) -> Drawing:
    """Fig. 13."""
    return example(tables, "V-IRL-VL")


@styled
def v_irl_l(tables: Tables) -> Drawing:
    """Fig. 14."""
    return example(tables, "V-IRL-L")


def _candidates(transcripts: list[dict], variant: str) -> Iterator[tuple[tuple, dict, list[dict]]]:
    """Every exchange of a variant with its rank, best lowest.

    Best: an error, then the correction; under the new rule; by RL; in navigation at a turn; with few attempts.
    """
    task = VARIANTS[variant]
    wanted = {"task": task.task, "modality": task.modality, "experiment": "main", "setting": "sampled"}
    for number, episode in enumerate(transcripts):
        if any(episode[key] != value for key, value in wanted.items()) or episode["method"] not in _METHODS:
            continue
        for place, turns in enumerate(exchanges(episode)):
            solved = turns[-1].get("outcome") == "correct"
            straight = not str(turns[0].get("expert_action", "turn")).startswith("turn")
            rank = (not solved, len(turns) == 1, episode["split"] != "rule_ood", straight,
                    _METHODS.index(episode["method"]), len(turns), place == 0, place, number)  # fmt: skip
            yield rank, episode, turns
