"""Every path the project reads or writes. `SFTRL_HOME` moves what is written; the package's own files stay."""

import os
from pathlib import Path

# The installed package and the models that come with it.
PACKAGE = Path(__file__).resolve().parent
SHIPPED = PACKAGE / "foundation" / "shipped"
# The checkout: notebooks live here, and everything written goes below HOME (the checkout itself by default).
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"
HOME = Path(os.environ.get("SFTRL_HOME", ROOT)).resolve()


def shipped(name: str) -> Path | None:
    """The folder of the model of that name that comes with the package; None where there is none."""
    return SHIPPED / name if name in {folder.name for folder in SHIPPED.iterdir()} else None


def build(profile: str) -> Path:
    """Executed notebooks, checkpoints, datasets and per-run tables of a profile; safe to delete, not committed."""
    return HOME / "build" / profile


def run_folder(profile: str, run: str) -> Path:
    """The output of training one run: its checkpoints and its log."""
    return build(profile) / "runs" / run


def test_folder(profile: str, run: str) -> Path:
    """The output of testing one run: its part of the tables, and its transcripts."""
    return build(profile) / "tests" / run


def data(profile: str) -> Path:
    """Generated SFT datasets of a profile, as Hugging Face `datasets` folders."""
    return build(profile) / "data"


def views() -> Path:
    """Street views that were drawn once, for all profiles; safe to delete, not committed."""
    return HOME / "build" / "views"


def results(profile: str) -> Path:
    """The tidy tables that figures are drawn from; committed for the laptop profile."""
    return HOME / "results" / profile


def pictures(profile: str) -> Path:
    """Pictures and maps of transcribed episodes, for the figures; committed for the laptop profile."""
    return results(profile) / "pictures"


def figures(profile: str) -> Path:
    """figNN.{png,pdf,json}; committed for the laptop profile."""
    return HOME / "figures" / profile
