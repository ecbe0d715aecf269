"""The executed notebooks of a profile, kept small so that GitHub shows them: ``executed/NAME.ipynb``.

    python -m sftrl_lib.executed --profile laptop

Of a notebook that was executed many times one run is kept. Pictures are made as small as they are shown, what only a
live notebook can use is dropped, and paths of this machine are cut down to what they are relative to. The folder is as
deep as ``notebooks``, so that links lead where they led. The book shows these where nothing was executed here.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from . import paths
from .files import write_atomically
from .profiles import get_profile

LARGEST, LARGEST_ALL = 2 * 10**6, 8 * 10**6  # bytes of one notebook and of all
SIZES = ((1000, 128), (800, 64), (600, 32))  # pixels of width and colours of a picture, tried in turn
FORMATS = ("text/html", "text/markdown", "text/plain", "image/png")  # of outputs, all that a page can show
# Of a notebook that is executed many times: how the names of the runs begin of which one is shown.
_SHOWN = {"02_foundation": "gp-l", "03_expert_data": "gp-l", "04_init": "gp-l-init", "05_train": "gp-l-rl-main",
          "06_sensitivity": "gp-l"}  # fmt: skip


def folder() -> Path:
    """Where the kept notebooks are."""
    return paths.HOME / "executed"


def run_of(profile: str, notebook: str) -> Path | None:
    """The executed run of a notebook (its name without .ipynb) that is shown, that of the first seed; None if none."""
    build, shown = paths.build(profile), _SHOWN.get(notebook)
    if shown is None:
        found = [build / f"{notebook}.ipynb"]
    else:
        names = {path: re.sub(r"-s\d+$", "", path.stem) for path in build.glob(f"{notebook}-*.ipynb")}
        found = [path for path, name in names.items() if name == f"{notebook}-{shown}"]
    return min((path for path in found if path.is_file()), key=_seed, default=None)


def _seed(path: Path) -> int:
    found = re.search(r"-s(\d+)$", path.stem)
    return int(found[1]) if found else 0


def keep(profile: str) -> list[Path]:
    """Keep what has been executed of a profile, in place of what was kept before; returns the files.

    Raises ValueError if nothing has been executed, or if something stays too large, and writes nothing then.
    """
    runs = {path.stem: run_of(profile, path.stem) for path in sorted(paths.NOTEBOOKS.glob("*.ipynb"))}
    runs = {name: run for name, run in runs.items() if run}
    if not runs:
        raise ValueError(f"No notebook of the profile {profile!r} has been executed: make reproduce PROFILE={profile}.")
    texts = {name: _fitting(json.loads(run.read_text(encoding="utf-8")), name, profile, runs.keys())
             for name, run in runs.items()}  # fmt: skip
    if (size := sum(map(len, texts.values()))) > LARGEST_ALL:
        raise ValueError(f"The executed notebooks take {size / 1e6:.1f} MB together, over {LARGEST_ALL / 1e6:g}.")
    for old in folder().glob("*.ipynb"):
        old.unlink()
    return [write_atomically(folder() / f"{name}.ipynb", text) for name, text in texts.items()]


def _fitting(notebook: dict, name: str, profile: str, kept: Any) -> bytes:
    """A notebook as it is kept, with pictures as large as the limit allows. Raises ValueError if it stays too large."""
    for width, colours in SIZES:
        text = json.dumps(small(notebook, name, profile, kept, width, colours), indent=1, ensure_ascii=False) + "\n"
        if len(data := text.encode()) <= LARGEST:
            return data
    raise ValueError(f"{name} takes {len(data) / 1e6:.1f} MB even with small pictures, over {LARGEST / 1e6:g}.")


def small(notebook: dict, name: str, profile: str, kept: Any, width: int = 1000, colours: int = 128) -> dict:
    """A copy without what is of no use on a page. kept: the names of the notebooks that stand beside it."""
    about = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info") if key in notebook["metadata"]}
    cells = []
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        here = {**cell, "metadata": {"tags": tags} if tags else {}}
        if cell["cell_type"] == "code":
            here["outputs"] = [_output(output, width, colours) for output in cell["outputs"]]
        else:
            here["source"] = _linked("".join(cell["source"]), kept).splitlines(keepends=True)
        cells.append(here)
    told = f"\n\n*Executed at the profile {profile}; [the notebook itself](../notebooks/{name}.ipynb) can be run.*"
    cells[0]["source"] = [*cells[0]["source"], told]
    return {**notebook, "cells": cells, "metadata": {**about, "sftrl": {"profile": profile}}}


def kept(profile: str, notebook: str) -> Path | None:
    """The kept run of a notebook, if it is of this profile; None if there is none."""
    path = folder() / f"{notebook}.ipynb"
    if not path.is_file():
        return None
    made = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("sftrl", {})
    return path if made.get("profile") == profile else None


def _output(output: dict, width: int, colours: int) -> dict:
    """An output with small pictures and without what a page cannot show."""
    output = json.loads(_without_paths(json.dumps(output)))
    if "data" in output:
        data = {kind: content for kind, content in output["data"].items() if kind in FORMATS}
        if "image/png" in data:
            data["image/png"] = _picture("".join(data["image/png"]), width, colours)
        output["data"] = data
    return output


def _picture(encoded: str, width: int, colours: int) -> str:
    drawn = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if drawn.width > width:
        drawn = drawn.resize((width, round(drawn.height * width / drawn.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    drawn.quantize(colours, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _without_paths(text: str) -> str:
    """JSON text in which places on this machine are named by what they are: the checkout, Python, the user's home."""
    places = {paths.HOME: ".", paths.ROOT: ".", Path(sys.prefix): "<python>", Path.home(): "~"}
    for place, name in sorted(places.items(), key=lambda item: -len(str(item[0]))):
        if len(place.parts) > 1:
            text = re.sub(re.escape(json.dumps(str(place))[1:-1]) + r"(?![\w.-])", name, text)
    return text


def _linked(text: str, kept: Any) -> str:
    """Links to notebooks that are not kept lead to those that can be run."""

    def lead(link: re.Match) -> str:
        return link[0] if link[1] in kept else f"](../notebooks/{link[1]}.ipynb"

    return re.sub(r"\]\((\w+)\.ipynb", lead, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.executed", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", help="whose runs; default: laptop")
    options = parser.parse_args(arguments)
    try:
        written = keep(get_profile(options.profile).name)
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    for path in written:
        print(f"written  {paths.shorter(path)} ({path.stat().st_size / 1e3:,.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
