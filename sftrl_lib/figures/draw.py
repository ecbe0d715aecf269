"""All figures by their number in the paper (our own by name): draw one, or all that a profile's tables allow.

A figure is a function of the tables, the transcripts and their pictures, and reads nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from .. import doctor, paths, tables
from ..files import reason
from . import (
    ablations,
    bars,
    controls,
    curves,
    examples,
    failures,
    lora,
    maps,
    mechanism,
    revision,
    search,
    tuning,
    visual,
)
from .style import Drawing, NothingToDraw, Tables, save_figure

FIGURES: dict[int | str, Callable[[Tables], Drawing]] = {
    1: curves.whole_routes,
    2: revision.sequential_revision,
    3: revision.prompt_update,
    4: maps.route_on_a_map,
    5: curves.main_curves,
    6: bars.rule_ood_bars,
    7: visual.visual_ood,
    8: visual.recognition,
    9: tuning.without_sft,
    10: ablations.attempts,
    11: examples.gp_vl,
    12: examples.gp_l,
    13: examples.v_irl_vl,
    14: examples.v_irl_l,
    15: curves.suboptimal,
    16: tuning.sft_tuning,
    17: tuning.rl_tuning,
    18: curves.image_routes,
    19: tuning.overfitted,
    20: failures.failure_without_sft,
    21: failures.failure_of_sft,
    "headline": bars.headline,
    "mechanism": mechanism.mechanism,
    "protocols": bars.protocols,
    "sensitivity": ablations.sensitivity,
    "search": search.search,
    "lora": lora.lora,
    "rules": controls.rules,
    "controls": controls.controls,
}


def read(profile: str) -> Tables:
    """The inputs of a profile's figures. Raises TableError if there is no valid table."""
    return Tables(profile, tables.read_metrics(profile), tables.read_transcripts(profile), paths.pictures(profile))


def file_name(number: int | str) -> str:
    """`fig05` for 5, `headline` for our own. Raises ValueError for an unknown figure."""
    if number not in FIGURES:
        raise ValueError(f"There is no figure {number!r}; the figures are {', '.join(map(str, FIGURES))}.")
    return f"fig{number:02d}" if isinstance(number, int) else number


def draw(number: int | str, profile: str, **options: object) -> Drawing:
    """Draw and save one figure. Raises NothingToDraw if the tables hold no rows for it."""
    name, data = file_name(number), read(profile)
    drawing = FIGURES[number](data, **options)
    save_figure(drawing, name, profile)
    return drawing


def draw_all(profile: str) -> list[str]:
    """Draw and save every figure that the tables have rows for, on all cores; return the names of those drawn.

    Prints which figures were skipped and why.
    """
    written = []
    for name, lack in _drawn(read(profile)):
        if lack:
            print(f"skipped  {name}: {lack}")
        else:
            print(f"written  figures/{profile}/{name}.{{png,pdf,json}}")
            written.append(name)
    return written


def _drawn(data: Tables) -> Iterator[tuple[str, str | None]]:
    """What `_draw_if_possible` says of each figure; on one core without the shared memory that several need."""
    try:
        pool = ProcessPoolExecutor(doctor.cores(), initializer=_end_with_parent)
    except (OSError, ImportError, NotImplementedError) as error:
        print(f"The figures are drawn one after another, for want of shared memory ({reason(error)}).")
        yield from map(_draw_if_possible, FIGURES, repeat(data))
        return
    with pool:
        yield from pool.map(_draw_if_possible, FIGURES, repeat(data))


def _end_with_parent() -> None:
    """End this worker when its parent is killed: it would wait for work forever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_if_possible(number: int | str, data: Tables) -> tuple[str, str | None]:
    """(file name, why it was skipped, or None if it was drawn)."""
    name = file_name(number)
    try:
        save_figure(FIGURES[number](data), name, data.profile)
    except NothingToDraw as reason:
        return name, str(reason)
    return name, None
