"""Every path the project reads or writes. `SFTRL_HOME` moves what is written; the package's own files stay.

Uses only the standard library, and `doctor` runs it under an old Python too.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# The installed package and the models that come with it.
PACKAGE = Path(__file__).resolve().parent
SHIPPED = PACKAGE / "foundation" / "shipped"
PLAYERS = PACKAGE / "evaluation" / "shipped"  # trained ones, to play against; see `evaluation.players`
# The checkout, where the notebooks live.
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"


def is_checkout() -> bool:
    """Whether the package stands in a checkout, beside its notebooks, and not among installed packages."""
    return NOTEBOOKS.is_dir() and ROOT.name not in ("site-packages", "dist-packages")


def _home() -> Path:
    """SFTRL_HOME if it is set and not empty, else the checkout, else the user's folder for data of programs."""
    given = os.environ.get("SFTRL_HOME", "")
    if given.strip():
        return Path(os.path.expanduser(given)).resolve()
    return ROOT if is_checkout() else _user_data() / "sftrl"


def _user_data() -> Path:
    given = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(given):  # the standard has relative ones ignored
        return Path(given)
    usual = {"darwin": "~/Library/Application Support", "win32": "~/AppData/Local"}
    return Path(os.path.expanduser(usual.get(sys.platform, "~/.local/share")))


HOME = _home()  # everything written goes below it


def named_model(name: str) -> Path | None:
    """The folder of the model of that name, shipped with the package or made by `make model`; None if there is none."""
    return shipped(name) or _inside(made_models(), name)


def shipped(name: str) -> Path | None:
    """The folder of the model of that name that comes with the package; None where there is none."""
    return _inside(SHIPPED, name)


def _inside(folder: Path, name: str) -> Path | None:
    """What is called exactly `name` in a folder; a name such as `..` is not."""
    return folder / name if folder.is_dir() and name in os.listdir(folder) else None


def made_models() -> Path:
    """Models that were downloaded and converted once, for all profiles; not committed."""
    return HOME / "build" / "models"


def build(profile: str) -> Path:
    """Executed notebooks, checkpoints, datasets and per-run tables of a profile; safe to delete, not committed."""
    return _named(HOME / "build", profile)


def run_folder(profile: str, run: str) -> Path:
    """The output of training one run: its checkpoints and its log."""
    return _named(build(profile) / "runs", run)


def test_folder(profile: str, run: str) -> Path:
    """The output of testing one run: its part of the tables, and its transcripts."""
    return _named(build(profile) / "tests", run)


def data(profile: str) -> Path:
    """Generated SFT datasets of a profile, as Hugging Face `datasets` folders."""
    return build(profile) / "data"


def views() -> Path:
    """Street views that were drawn once, for all profiles; safe to delete, not committed."""
    return HOME / "build" / "views"


def results(profile: str) -> Path:
    """The tidy tables that figures are drawn from; committed for the laptop profile."""
    return _named(HOME / "results", profile)


def pictures(profile: str) -> Path:
    """Pictures and maps of transcribed episodes, for the figures; committed for the laptop profile."""
    return results(profile) / "pictures"


def figures(profile: str) -> Path:
    """figNN.{png,pdf,json}; committed for the laptop profile."""
    return _named(HOME / "figures", profile)


def shorter(path: Path) -> Path:
    """The path relative to the checkout, if it lies in it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def bring(profile: str) -> None:
    """Copy the results and figures that came with the checkout to where all is written, if there are none (SFTRL_HOME).

    Raises OSError.
    """
    for there in (results(profile), figures(profile)):
        came = ROOT / there.relative_to(HOME)
        if came.is_dir() and not there.exists():
            shutil.copytree(came, there)


def _named(folder: Path, name: str) -> Path:
    """What is called `name` in `folder`. Raises ValueError if that would be elsewhere."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise ValueError(f"{name!r} cannot name a profile or a run: it would be no folder directly below {folder}.")
    return folder / name
