"""Figs. 11-14: one real exchange per task: the prompt, the answers and the verifier's messages.

Paper: one example per variant, written for print (with slips, see `published.EXAMPLES`). Ours: an exchange from the
transcripts, if possible one with an error, the verifier's feedback and the correction.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .. import published
from ..methods import METHODS
from ..task import Task
from ..tasks import labelled
from ..transcripts import best_example, picture_name
from .page import (
    ANSWER,
    PROMPT,
    Block,
    cut,
    heard,
    printable,
    sections_cut,
    set_page,
    source,
    verdict,
    wrapped,
)
from .style import GREY, Drawing, NothingToDraw, Tables, record, styled

ASKED = {"text": (7, 4), "image": (4, 2)}  # most lines of a section of the prompt: from its start, from its end
ANSWERED = 10  # most lines of one answer shown
LONG = 36  # lines of a page with pictures beyond which sections are cut further, and answers lose their line breaks


def example(tables: Tables, task: Task) -> Drawing:
    """One exchange of a task as a page. Raises NothingToDraw if the transcripts have none."""
    found = best_example(tables.transcripts, task)
    if found is None:
        raise NothingToDraw(f"it needs a {task.label} transcript of experiment 'main', setting 'sampled'")
    episode, turns = found
    number = published.EXAMPLES["figures"].get(task.label)
    name = f"fig{number}" if number else f"example-{task.key}"
    title = f"{f'Fig. {number} · ' if number else ''}{task.label}: a prompt, the answers and the verifier"
    subtitle = f"{source(tables.profile, episode)} · tinted: the rule that the prompt states"
    pictures = [image for seen in (False, True) if (image := picture(tables, episode, turns[0], seen)) is not None]
    if task.modality == "image":
        subtitle += f" · {task.words.picture}"
    head, tail = ASKED.get(task.modality, ASKED["text"])
    question = wrapped(heard(turns[0]), task.words.rule)
    asked, said = sections_cut(question, head, tail), [str(turn.get("output", "")) for turn in turns]
    if task.modality == "image" and len(asked) + sum(len(wrapped(answer)) for answer in said) > LONG:
        asked = sections_cut(question, head - 1, tail)
        said = [" ".join(printable(answer).split()) for answer in said]
        subtitle += " · answers without their line breaks"
    blocks = [Block("prompt", GREY, asked, box=PROMPT)]
    for index in range(len(turns)):
        answer = cut(wrapped(said[index]), ANSWERED)
        speaker = "answer" if len(turns) == 1 else f"attempt {index + 1}"
        blocks.append(Block(speaker, METHODS[episode["method"]].color, answer, box=ANSWER))
        blocks.append(verdict(turns, index))
    figure = set_page(title, subtitle, blocks, episode, pictures)
    series = [episode | {"turns": turns}]
    seen = f"A page of text, and for tasks with pictures the picture: {said_in(turns)}"
    return Drawing(figure, record(name, title, subtitle, tables.profile, series, published.EXAMPLES, seen))


def said_in(turns: list[dict]) -> str:
    """The attempts of one exchange and their verdicts, for an alternative text."""
    said = [
        f"attempt {number}: {' '.join(printable(turn.get('output', '')).split())[:160]} "
        f"({str(turn.get('outcome', '')).replace('_', ' ')})"
        for number, turn in enumerate(turns, start=1)
    ]
    return "; ".join(said) + "."


def picture(tables: Tables, episode: dict, turn: dict, seen: bool = False) -> np.ndarray | None:
    """The picture of a turn, (height, width, 3) uint8, as stored with the tables; None if none was stored.

    seen: in the few pixels that the model saw.
    """
    if tables.pictures is None:
        return None
    path = tables.pictures / f"{picture_name(episode, turn, seen)}.png"
    return np.asarray(Image.open(path).convert("RGB")) if path.is_file() else None


@styled
def gp_vl(tables: Tables) -> Drawing:
    """Fig. 11."""
    return example(tables, labelled("GP-VL"))


@styled
def gp_l(tables: Tables) -> Drawing:
    """Fig. 12."""
    return example(tables, labelled("GP-L"))


@styled
def v_irl_vl(tables: Tables) -> Drawing:
    """Fig. 13."""
    return example(tables, labelled("V-IRL-VL"))


@styled
def v_irl_l(tables: Tables) -> Drawing:
    """Fig. 14."""
    return example(tables, labelled("V-IRL-L"))
