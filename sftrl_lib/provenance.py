"""What every table, figure and checkpoint is and what made it: ``results/<profile>/manifest.json``.

    profile  its name
    made     the origin of tables, claims and figures (see `origin`)
    drawn    that of the figures, if they were drawn again later from the same tables
    files    path from the repository's root -> sha256, bytes; "older": it was there before the tables were written
    runs     run -> seed, seconds, memory, identity and the run's own origin; what nobody recorded is "unknown"

A run's name says which rows of the tables are its own: gp-l-rl-main-s0. Notebook 07_results writes the manifest and,
beside it, the training logs of all runs. `make verify` checks what is there against it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from . import doctor, fingerprint, paths
from .files import check_seal, reason, sha256, write_atomically
from .timings import timings

UNKNOWN = "unknown"
FINISHED = "finished"  # the file that marks a finished run, and says on which machine and by which code it was finished
CODE = ("sftrl_lib", "notebooks", "requirements.lock", "Makefile")  # clean: these are as committed
PACKAGES = ("torch", "transformers", "trl", "numpy", "matplotlib")
ORIGIN = ("commit", "clean", "library", "lock", "machine", "versions")
PROBLEMS = {
    "missing": "the manifest lists it, but it is not there",
    "differs": "its content is not what the manifest lists",
    "redrawn": "the same figure in other bytes, as other versions of matplotlib draw it; its json holds the numbers",
    "line endings": "the text that the manifest lists, with the line endings of another system",
    "retrained": "another checkpoint than the manifest lists; its run was trained again",
    "unlisted": "nothing says what made it; notebook 07_results adds it to the manifest",
}


class ProvenanceError(ValueError):
    """There is no manifest, or it is damaged, or lists what it must not; the message is one sentence."""


@dataclass(frozen=True)
class Finding:
    """A file that is not as the manifest says."""

    path: str  # from the repository's root
    problem: str  # one of `PROBLEMS`

    @property
    def fails(self) -> bool:
        """Whether the results are not those of the manifest."""
        return self.problem in ("missing", "differs")


def origin() -> dict[str, Any]:
    """What a result that is made now comes from; the keys are `ORIGIN`, library and lock are digests."""
    lock = paths.ROOT / "requirements.lock"
    digests = {"library": fingerprint.library(), "lock": sha256(lock) if lock.is_file() else UNKNOWN}
    return {**commit(), **digests, "machine": machine(), "versions": versions()}


def commit() -> dict[str, Any]:
    """commit: the checkout's; clean: whether its `CODE` is as committed, None where there is no git to ask."""
    git = ["git", "--no-optional-locks", "-C", str(paths.ROOT)]
    try:
        if not (paths.ROOT / ".git").exists():  # a repository further up is somebody else's
            raise FileNotFoundError
        head, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *CODE))
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": UNKNOWN, "clean": None}
    return {"commit": head, "clean": not changed}


def machine() -> str:
    """Processor, cores, GPU and system; nothing that names the machine or its user."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = (models or [platform.processor()])[0] or "processor unknown"
    gpu = doctor.check_gpu().found.partition(";")[0]
    return f"{processor}, cores: {doctor.cores()}, GPU: {gpu}, {platform.system()} {platform.machine()}"


def versions() -> str:
    """Of Python and of the `PACKAGES` that numbers and drawings depend on."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def manifest_path(profile: str) -> Path:
    return paths.results(profile) / "manifest.json"


def write(profile: str) -> Path:
    """Merge the training logs and write the manifest of all that is there. Raises ProvenanceError for a damaged log."""
    merge_logs(profile)
    manifest = {"profile": profile, "made": origin(), "files": files(profile), "runs": runs(profile)}
    return write_atomically(manifest_path(profile), json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def drawn(profile: str) -> Path:
    """After `make figures`: the manifest with figures, pictures and report as they are now; the rest of it stays.

    Raises ProvenanceError if there is no manifest.
    """
    parts = (f"figures/{profile}/", f"results/{profile}/pictures/", f"results/{profile}/REPRODUCTION.md")
    manifest, now = read(profile), files(profile, parts)
    kept = {name: entry for name, entry in manifest["files"].items() if not name.startswith(parts)}
    manifest["files"] = kept | now
    manifest["drawn"] = origin()
    return write_atomically(manifest_path(profile), json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def files(profile: str, parts: tuple[str, ...] = ("",)) -> dict[str, dict[str, Any]]:
    """Every file in results and figures, and every checkpoint, as the manifest has them; those that begin with `parts`.

    All are read for their digests, checkpoints of many gigabytes as well.
    """
    table, found = paths.results(profile) / "metrics.csv", {}
    written = table.stat().st_mtime if table.is_file() else 0.0
    for name in (name for name in _names(profile) if name.startswith(parts)):
        path = paths.HOME / name
        found[name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        if path.stat().st_mtime < written and not _is_checkpoint(name):
            found[name]["older"] = True
    return found


def runs(profile: str) -> dict[str, dict[str, Any]]:
    """Every run in build, as the manifest has them; one that trains nothing is called like its notebook."""
    found: dict[str, dict] = {path.name: {} for path in paths.build(profile).glob("runs/[!.]*") if path.is_dir()}
    for record in timings(profile):
        run = record["run"].partition("-")[2]  # without the notebook's name
        name = run if run in found else record["run"]
        if record["seconds"] > found.get(name, {}).get("seconds", 0.0):  # a notebook of a trained run only shows it
            found[name] = record
    entries = {}
    for name, record in found.items():
        if seed := re.search(r"-s(\d+)$", name):  # a notebook without a seed makes no rows
            identity = fingerprint.made_with(paths.run_folder(profile, name))
            record = {**record, **_trained_by(profile, name)}
            recorded = {key: record.get(key, UNKNOWN) for key in (*ORIGIN, "seconds", "peak_rss_mb", "threads")}
            recorded |= {"device": record["device"]} if "device" in record else {}
            digest = fingerprint.digest(identity) if identity else UNKNOWN
            entries[name] = {**recorded, "seed": int(seed[1]), "identity": digest}
    return entries


def recorded(profile: str) -> dict[str, dict]:
    """The runs in a profile's manifest; {} if there is none that can be read."""
    try:
        return read(profile)["runs"]
    except (ValueError, OSError):
        return {}


def _trained_by(profile: str, run: str) -> dict[str, Any]:
    """The origin of a training and the device that it ran on, as `training.fork` notes it; {} if it did not."""
    try:
        noted = json.loads((paths.run_folder(profile, run) / FINISHED).read_text(encoding="utf-8"))
        return {key: str(noted[key]) if key != "clean" else noted[key] for key in (*ORIGIN, "device")}
    except (OSError, ValueError, KeyError, TypeError):  # of an earlier version, or not finished
        return {}


def merge_logs(profile: str) -> None:
    """Write ``training_logs.csv``: run, step or update, flops, and what the method logs; numbers to six digits.

    Writes nothing if there are no logs. Raises ProvenanceError if one is damaged.
    """
    logs = []
    for path in sorted(paths.build(profile).glob("runs/[!.]*/log.json")):
        try:
            check_seal(path.parent, path.name)
            entries = [dict(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
            logs.append(pd.DataFrame(entries, dtype=float).assign(run=path.parent.name))
        except (ValueError, TypeError) as error:
            shown = path.relative_to(paths.HOME)
            raise ProvenanceError(f"{shown} is no training log ({reason(error)}); train that run again.") from error
    if logs:
        merged = pd.concat(logs, ignore_index=True)
        first = [name for name in ("run", "step", "update", "flops") if name in merged]
        merged = merged[[*first, *sorted(set(merged) - set(first))]]
        content = merged.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(paths.results(profile) / "training_logs.csv", content)


def read(profile: str) -> dict[str, Any]:
    """The manifest of a profile. Raises ProvenanceError if it is missing, damaged, or lists what it must not."""
    path = manifest_path(profile)
    shown = path.relative_to(paths.HOME)
    if not path.is_file():
        raise ProvenanceError(f"There is no {shown}; notebook 07_results writes it (make reproduce PROFILE={profile}).")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        entries = [manifest["made"], manifest.get("drawn", {}), *manifest["files"].values(), *manifest["runs"].values()]
        if manifest["profile"] != profile or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is of another profile or form")
        if not all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in manifest["files"].values()):
            raise ValueError("a file has no SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        again = "restore it, as by git checkout, or run notebook 07_results again"
        raise ProvenanceError(f"{shown} is damaged ({type(error).__name__}: {reason(error)}); {again}.") from error
    for name in manifest["files"]:
        if why := _refusal(name, profile):
            raise ProvenanceError(f"{shown} lists {ascii(name)[:200]}, which {why}; nothing was checked.")
    return manifest


def verify(profile: str) -> list[Finding]:
    """What is not as the manifest says, by path; checkpoints that are not here are left out. Raises ProvenanceError."""
    listed = read(profile)["files"]
    problems = {name: _problem(name, entry["sha256"]) for name, entry in listed.items()}
    problems |= {name: "unlisted" for name in _names(profile) if name not in listed and not _is_checkpoint(name)}
    return [Finding(name, problem) for name, problem in sorted(problems.items()) if problem]


def _problem(name: str, digest: str) -> str:
    """What is wrong with a listed file, one of `PROBLEMS`; "" if nothing is."""
    path, checkpoint = paths.HOME / name, _is_checkpoint(name)
    if not path.is_file():
        return "" if checkpoint else "missing"
    if sha256(path) == digest:
        return ""
    if checkpoint:
        return "retrained"
    if hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == digest:
        return "line endings"
    return "redrawn" if name.startswith("figures/") and path.suffix in (".png", ".pdf") else "differs"


def check(profile: str) -> int:
    """Print what `verify` finds and what was made by what; 1 if the results are not the manifest's, 0 if they are.

    Raises ProvenanceError.
    """
    manifest, findings = read(profile), verify(profile)
    listed, bad = manifest["files"], {finding.path for finding in findings}
    own = [name for name in listed if not _is_checkpoint(name)]
    here = sum((paths.HOME / name).is_file() for name in listed.keys() - set(own))
    later = manifest.get("drawn")
    what = "tables and claims" if later else "tables, claims and figures"
    made: dict[str, list[str]] = {_by(manifest["made"]): [what]}
    if later:
        made.setdefault(_by(later), []).append("figures")
    for name, run in sorted(manifest["runs"].items()):
        made.setdefault(_by(run), []).append(name)
    lines = [f"{finding.problem:12}  {finding.path}: {PROBLEMS[finding.problem]}." for finding in findings]
    for by, what in made.items():
        lines.append(f"{', '.join(what[:3])}{f', ... ({len(what)} in all)' if len(what) > 3 else ''}: {by}")
    if older := sum(bool(listed[name].get("older")) for name in own):
        lines.append(f"{older} of the files were there before these tables, so something else made them.")
    lines.append(
        f"{len(set(own) - bad)} of {len(own)} files are as listed; "
        f"{here} of {len(listed) - len(own)} checkpoints are here."
    )
    for line in lines:
        print("".join(letter if letter.isprintable() else "?" for letter in line))  # a manifest may be hostile
    return int(any(finding.fails for finding in findings))


def _by(made: dict[str, Any]) -> str:
    """An origin in words."""
    changed = ", with changes" if made.get("clean") is False else ""
    words = [f"commit {str(made.get('commit', UNKNOWN))[:12]}{changed}", made.get("machine"), made.get("versions")]
    return "; ".join(str(word) for word in (*words, made.get("note")) if word not in (None, UNKNOWN))


def _names(profile: str) -> list[str]:
    """The paths that a manifest lists, from the repository's root; hidden files and links are not among them."""
    found = [path for folder in (paths.results(profile), paths.figures(profile)) for path in folder.rglob("*")]
    found += paths.build(profile).glob("runs/*/step-*[0-9]/*.safetensors")
    names = [path.relative_to(paths.HOME).as_posix() for path in found if path.is_file()]
    return sorted(name for name in names if not _refusal(name, profile) and name != f"results/{profile}/manifest.json")


def _refusal(name: str, profile: str) -> str:
    """Why a manifest must not list a path; "" if it may."""
    roots = (f"results/{profile}/", f"figures/{profile}/", f"build/{profile}/runs/")
    below = next((name.removeprefix(root) for root in roots if name.startswith(root)), "")
    if not re.fullmatch(r"[^./\\][^/\\]*(/[^./\\][^/\\]*)*", below) or not name.isprintable():
        return f"is no plain path below {', '.join(roots)}"
    path = paths.HOME / name
    try:  # a whole folder of a profile may be elsewhere, what is in it may not
        linked = any(part.is_symlink() for part in (path, *path.parents)[: name.count("/") - 1])
    except OSError as error:  # a name too long for this system
        return f"cannot be a file here ({reason(error)})"
    return "is a link or lies behind one" if linked else ""


def _is_checkpoint(name: str) -> bool:
    return name.startswith("build/")
