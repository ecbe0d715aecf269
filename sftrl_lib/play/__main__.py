"""`make play`: JupyterLab on fresh copies of the playing notebooks, so that what it saves changes no tracked file."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .. import paths
from ..files import reason

# Nothing is fetched from the network, neither news nor word of newer versions.
QUIET = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
NOTEBOOKS = ("10_play_points.ipynb", "11_play_navigation.ipynb", "09_quick_look.ipynb")


def copies() -> Path:
    """Copy the notebooks to ``build/play``; returns that folder. Raises OSError if that cannot be written."""
    folder = paths.HOME / "build" / "play"
    folder.mkdir(parents=True, exist_ok=True)
    for name in NOTEBOOKS:
        shutil.copyfile(paths.NOTEBOOKS / name, folder / name)
    return folder


def command(notebook: Path, arguments: list[str]) -> list[str]:
    """What starts JupyterLab in the folder that everything is written to, so that figures are in reach."""
    options = [f"--ServerApp.root_dir={paths.HOME}", *QUIET]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")  # as in a container
    return [sys.executable, "-m", "jupyterlab", str(notebook), *options, *arguments]


def main(arguments: list[str]) -> int:
    try:
        folder = copies()
    except OSError as error:
        print(f"Cannot copy the playing notebooks ({reason(error)}); give SFTRL_HOME another folder.", file=sys.stderr)
        return 2
    print(f"You play on copies, in {folder}; they are made afresh each time.", flush=True)
    run = command(folder / NOTEBOOKS[0], arguments)
    os.execv(run[0], run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
