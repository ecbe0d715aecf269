"""Recorded failures, each drawn as a page: Fig. 20 (without SFT) and Fig. 21 (after too much SFT).

Paper: one printed answer per figure, a brute-force Python program without JSON and an absolute heading where the prompt
offers only relative turns. Ours: failing episodes from the transcripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import published
from ..methods import METHODS
from ..tables import ends, select
from ..tasks import labelled
from ..transcripts import exchanges, sections
from ..virl.schema import COMPASS
from .examples import said_in
from .page import ANSWER, PROMPT, Block, cut, heard, middle_cut, set_page, source, verdict, wrapped
from .style import GREY, Drawing, NothingToDraw, Tables, record, styled

TURNS = 5  # most attempts shown
LONGEST = 8  # most lines of one answer shown
HISTORY = 12  # most lines of one prompt section shown

HEADING = re.compile(rf"turn_direction\s*\(\s*(?:{'|'.join(COMPASS)})\s*\)")  # an action of the training rule
OFFERED = re.compile(r"""['"](?:slightly )?(?:left|right)['"]""")  # a relative turn in the prompt's action space
_WRONG_TINT = "#f3c9d6"


@styled
def failure_without_sft(tables: Tables) -> Drawing:
    """Fig. 20: a failed hand of the model without SFT, if possible under the new rule."""
    episode = _first_failure(tables.transcripts)
    if episode is None:
        raise NothingToDraw("it needs a failing transcript of method rl_no_init")
    title = "Fig. 20 · What the model answers without SFT"
    told = [source(tables.profile, episode), _ends_by_setting(tables, episode), "paper: a Python program, no JSON"]
    subtitle = " · ".join(filter(None, told))
    shown = episode["turns"][:TURNS]
    asked = middle_cut(wrapped(heard(shown[0])), 3, LONGEST - 4)  # the task at the start, the hand at the end
    blocks = [Block("asked", GREY, asked, ink=GREY)]
    for index, turn in enumerate(shown):
        answer = cut(wrapped(turn.get("output", "")), LONGEST)
        blocks.append(Block(f"attempt {index + 1}", METHODS["rl_no_init"].color, answer, box=ANSWER))
        blocks.append(verdict(episode["turns"], index))
    figure = set_page(title, subtitle, blocks, episode)
    series = [episode | {"turns": shown}]
    data = record(
        "fig20", title, subtitle, tables.profile, series, published.FIG20, f"A page of text: {said_in(shown)}"
    )
    return Drawing(figure, data)


def _ends_by_setting(tables: Tables, episode: dict) -> str:
    """Which setting the episode is of, and where each setting of the experiment ends in distribution, by seed."""
    if tables.metrics is None:
        return ""
    own = {key: episode[key] for key in ("task", "modality", "method", "experiment")}
    last = ends(select(tables.metrics, **own, split="id", metric="success"))
    if last.empty:
        return ""
    by_setting = "; ".join(
        f"{setting} {', '.join(f'{100 * value:.0f}' for value in part.sort_values('seed')['value'])} %"
        for setting, part in last.groupby("setting", sort=False)
    )
    seeds = ", ".join(map(str, sorted(last["seed"].unique())))
    return f"this is {episode['setting']}; success in distribution ends at (seeds {seeds}): {by_setting}"


def _first_failure(transcripts: list[dict]) -> dict | None:
    """An episode of RL without SFT that has no correct answer, preferably with unreadable ones; None if there is none.

    That is the failure in the paper: no formula in the requested format, so nothing to reward.
    """
    task = labelled(published.FIGURE_OF[20])
    failing = [
        episode for episode in transcripts
        if episode["task"] == task.name and episode["method"] == "rl_no_init"
        and episode["turns"] and all(turn.get("outcome") != "correct" for turn in episode["turns"])
    ]  # fmt: skip

    def rank(episode: dict) -> tuple:
        readable = sum(turn["outcome"] != "illegal" for turn in episode["turns"])
        return readable, episode["split"] != "rule_ood", -episode["step"]

    return min(failing, key=rank, default=None)


@styled
def failure_of_sft(tables: Tables) -> Drawing:
    """Fig. 21: at the end of SFT the model outputs the absolute headings of training, though only turns are offered."""
    found = min(_old_headings(tables.transcripts), key=lambda item: item[0], default=None)
    if found is None:
        raise NothingToDraw("it needs a navigation transcript of method sft, split rule_ood, with an absolute heading")
    _, episode, turns = found
    title = "Fig. 21 · After SFT: a heading that the prompt does not offer"
    told = [
        source(tables.profile, episode),
        _turns_by_seed(tables, episode),
        "paper: the same, turn_direction(northwest)",
    ]
    subtitle = " · ".join(filter(None, told))
    blocks = []
    parts = sections(heard(turns[0]))
    for name in ("Instruction", "Action space", "Observations and actions sequence"):
        if name in parts:
            text = f"[{name}]\n{parts[name]}"
            lines = middle_cut(wrapped(text, OFFERED if name == "Action space" else None), HISTORY // 2, HISTORY // 2)
            blocks.append(Block("" if blocks else "asked", GREY, lines, box=PROMPT))
    for index, turn in enumerate(turns):
        answer = cut(wrapped(turn.get("output", ""), HEADING), LONGEST)
        name = "SFT answers" if index == 0 else f"attempt {index + 1}"
        blocks.append(Block(name, METHODS["sft"].color, answer, box=ANSWER, mark=_WRONG_TINT))
        blocks.append(verdict(turns, index))
    if expert := turns[0].get("expert_action"):
        blocks.append(Block("expert", GREY, wrapped(expert), ink=GREY))
    figure = set_page(title, subtitle, blocks)
    series = [episode | {"turns": turns}]
    data = record(
        "fig21", title, subtitle, tables.profile, series, published.FIG21, f"A page of text: {said_in(turns)}"
    )
    return Drawing(figure, data)


def _turns_by_seed(tables: Tables, episode: dict) -> str:
    """How often SFT of each seed turns by the training rule at its end, because one example says nothing of that."""
    if tables.metrics is None:
        return ""
    own = {key: episode[key] for key in ("task", "modality", "method", "experiment", "split")}
    last = ends(select(tables.metrics, **own, setting="sampled", metric="training_rule"))
    if last.empty:
        return ""
    shares, many = 100 * last["value"], f"{len(last)} seed{'s' * (len(last) > 1)}"
    told = f"{shares.mean():.1f} % ({shares.min():.1f} to {shares.max():.1f}, {many})"
    return f"turns by the training rule at the end: {told}"


def _old_headings(transcripts: list[dict]) -> Iterator[tuple[tuple, dict, list[dict]]]:
    """(rank, episode, turns) of SFT's exchanges under the new rule that start with an absolute heading; lowest is best.

    Best: the longest trained, never corrected, early on the route (a short history).
    """
    task = labelled(published.FIGURE_OF[21])
    wanted = {"task": task.name, "method": "sft", "experiment": "main", "split": "rule_ood"}
    for number, episode in enumerate(transcripts):
        if any(episode[key] != value for key, value in wanted.items()):
            continue
        for place, turns in enumerate(exchanges(episode)):
            if turns[0].get("outcome") == "correct" or not HEADING.search(str(turns[0].get("output", ""))):
                continue
            mended = any(turn.get("outcome") == "correct" for turn in turns)
            yield (-episode["step"], mended, place, number), episode, turns
