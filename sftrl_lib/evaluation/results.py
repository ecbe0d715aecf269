"""The results of a profile, for notebook 07: made from what was run here, or those that came with the checkout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import paths, provenance, tables
from ..claims import comparison, report, reproduction
from ..foundation.teaching import keep_records
from ..profiles import Profile, banner
from .illustrations import illustrate
from .measurements import ROWS, merge


@dataclass(frozen=True)
class Results:
    """The tables of a profile, and whether its runs were tested here; if not, they came with the package."""

    profile: Profile
    metrics: pd.DataFrame
    here: bool

    def __str__(self) -> str:
        made = "run here" if self.here else "not run here: these are the results that came with the checkout"
        return (
            f"{self.banner}Profile {self.profile.name}, {made}; "
            f"{len(self.metrics):,} numbers from seeds {sorted(map(int, self.metrics['seed'].unique()))}"
        )

    @property
    def banner(self) -> str:
        """The line that stands above whatever is shown of a toy; "" for other profiles."""
        return f"{banner(self.profile.name).upper()}\n" if banner(self.profile.name) else ""

    def comparison(self) -> str:
        """The main comparison in Markdown; written if the runs are from here."""
        name = self.profile.name
        return comparison.write(name) if self.here else comparison.announced(name, comparison.markdown(self.metrics))

    def claims(self) -> list[dict]:
        """The paper's claims with their verdicts; decided anew, and written, if the runs are from here."""
        if self.here or not report.claims_path(self.profile.name).is_file():
            return report.write(self.profile.name)
        records = json.loads(report.claims_path(self.profile.name).read_text(encoding="utf-8"))
        return [record for record in records if isinstance(record["id"], int)]  # the others are our own

    def figures(self) -> list[Path]:
        """The figures' PNG files; drawn if the runs are from here, or if there are none."""
        from ..figures import draw

        folder = paths.figures(self.profile.name)
        if self.here or not folder.is_dir():
            draw.draw_all(self.profile.name)
        known = [folder / f"{draw.file_name(number)}.png" for number in draw.FIGURES]
        return [path for path in known if path.is_file()]

    def report(self) -> Path:
        """REPRODUCTION.md; written if the runs are from here, or if there is none."""
        name = self.profile.name
        path = reproduction.report_path(name)
        if self.here or not path.is_file():
            reproduction.write(name, provenance.runs(name) if self.here else None)
        return path

    def account(self) -> None:
        """Write the manifest if the runs are from here, and check the files against it."""
        if self.here:
            provenance.write(self.profile.name)
        provenance.check(self.profile.name)


def gather(profile: Profile, seeds: Sequence[int] = ()) -> Results:
    """Join the tables of what was tested here; if nothing was, take the results that came with the checkout.

    `seeds` keeps only those, all if empty. Raises TableError if there is neither.
    """
    if any(paths.build(profile.name).glob(f"tests/*/{ROWS}")):
        metrics = merge(profile, seeds)
        illustrate(profile.name)
        keep_records(profile)
        return Results(profile, metrics, here=True)
    metrics = merged(profile)
    return Results(profile, metrics[metrics["seed"].isin(seeds)] if seeds else metrics, here=False)


def merged(profile: Profile) -> pd.DataFrame:
    """The merged table of a profile, as 07_results wrote it here, or else as it came with the checkout.

    Where everything is written elsewhere (SFTRL_HOME), what came is copied there. Raises TableError if there is none.
    """
    paths.bring(profile.name)
    return tables.read_metrics(profile.name)


def alternative(figure: Path) -> str:
    """The alternative text of a figure's PNG file, from the json beside it."""
    data = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
    return data.get("alt") or data["title"]
