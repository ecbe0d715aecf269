"""The manifest of a profile: what it lists, what verifying it finds, and what it refuses."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from sftrl_lib import fingerprint, paths, pipeline, provenance
from sftrl_lib.provenance import UNKNOWN, ProvenanceError

TABLES = ("metrics.csv", "claims.json", "comparison.md", "transcripts.jsonl", "pictures/walk.png", "pictures/map.json")
FIGURES = ("fig05.json", "fig05.png", "fig05.pdf")
RECORD = {"ok": True, "started": 1.0, "seconds": 61.5, "peak_rss_mb": 900, "threads": 2, "library": "l"}
ORIGIN = {"commit": "c" * 40, "clean": True, "library": "l", "lock": "k", "machine": "a laptop", "versions": "Python 3"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A profile `toy` with tables, figures, two trained runs, and a third that only tests."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    monkeypatch.setattr(fingerprint, "library", lambda: "today's")
    for name in TABLES:
        put(paths.results("toy") / name, f"{name}\nof two lines\n")
    for name in FIGURES:
        put(paths.figures("toy") / name, f"{name}\nof two lines\n")
    sft, rl = (paths.run_folder("toy", f"gp-l-{method}-main-s0") for method in ("sft", "rl"))
    put(sft / "log.json", json.dumps([{"step": 9, "flops": 1.23456789e12, "loss": 0.5}]))
    put(rl / "log.json", json.dumps([{"update": n, "flops": n * 1e9, "success": n / 3} for n in (1, 2)]))
    put(rl / "step-00002" / "model.safetensors", "weights")
    put(rl / "step-00002.old" / "model.safetensors", "left behind by a kill")
    put(rl / "training" / "model.safetensors", "the trainer's own")
    put(rl / fingerprint.MADE_WITH, json.dumps({"lr": 1}))
    jobs = ({"run": "05_train-gp-l-rl-main-s0", **ORIGIN}, {"run": "06_sensitivity-gp-l-s3"}, {"run": "00_start_here"})
    put(paths.build("toy") / "timings.jsonl", "".join(json.dumps({**RECORD, **job}) + "\n" for job in jobs))
    return tmp_path


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def manifest(change=None):
    """The manifest of `toy`, as changed by a function of it."""
    path = paths.results("toy") / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if change:
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")
    return content


def problems():
    return {finding.path: finding.problem for finding in provenance.verify("toy")}


def test_everything_is_listed_with_the_digest_of_its_bytes(home):
    provenance.write("toy")
    files = manifest()["files"]
    checkpoint = "build/toy/runs/gp-l-rl-main-s0/step-00002/model.safetensors"
    expected = {f"results/toy/{name}" for name in (*TABLES, "training_logs.csv")}
    assert files.keys() == expected | {f"figures/toy/{name}" for name in FIGURES} | {checkpoint}
    for name, entry in files.items():
        content = (home / name).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert provenance.verify("toy") == [] and provenance.check("toy") == 0


def test_the_same_results_give_the_same_manifest(home):
    first = provenance.write("toy").read_bytes()
    assert provenance.write("toy").read_bytes() == first


def test_a_run_has_the_origin_that_was_recorded_and_nothing_else(home):
    provenance.write("toy")
    runs = manifest()["runs"]
    assert runs.keys() == {"gp-l-rl-main-s0", "gp-l-sft-main-s0", "06_sensitivity-gp-l-s3"}
    took = {key: RECORD[key] for key in ("seconds", "peak_rss_mb", "threads")}
    assert runs["gp-l-rl-main-s0"] == {**ORIGIN, **took, "seed": 0, "identity": fingerprint.digest({"lr": 1})}
    by_hand = runs["gp-l-sft-main-s0"]
    assert by_hand.pop("seed") == 0 and set(by_hand.values()) == {UNKNOWN}
    assert (runs["06_sensitivity-gp-l-s3"]["seed"], runs["06_sensitivity-gp-l-s3"]["machine"]) == (3, UNKNOWN)


def test_training_logs_are_merged_in_wide_form_to_six_digits(home):
    provenance.write("toy")
    assert (paths.results("toy") / "training_logs.csv").read_text(encoding="utf-8") == (
        "run,step,update,flops,loss,success\n"
        "gp-l-rl-main-s0,,1,1e+09,,0.333333\n"
        "gp-l-rl-main-s0,,2,2e+09,,0.666667\n"
        "gp-l-sft-main-s0,9,,1.23457e+12,0.5,\n"
    )
    read = pd.read_csv(paths.results("toy") / "training_logs.csv")
    assert read.groupby("run").size().to_dict() == {"gp-l-rl-main-s0": 2, "gp-l-sft-main-s0": 1}


def test_without_logs_none_are_invented(home):
    shutil.rmtree(paths.build("toy"))
    provenance.write("toy")
    assert manifest()["runs"] == {} and not (paths.results("toy") / "training_logs.csv").exists()


@pytest.mark.parametrize("log", ["{", '{"step": 1}', "[1, [2]]", '"text"', '[{"loss": "low"}]', "null"])
def test_a_damaged_log_is_named(home, log):
    put(paths.run_folder("toy", "gp-l-sft-main-s0") / "log.json", log)
    with pytest.raises(ProvenanceError, match=r"^build/toy/runs/gp-l-sft-main-s0/log\.json is no .*again\.$"):
        provenance.write("toy")


@pytest.mark.parametrize("name", [f"results/toy/{name}" for name in (*TABLES, "training_logs.csv")] + [
    f"figures/toy/{name}" for name in FIGURES
])  # fmt: skip
def test_one_flipped_bit_and_a_missing_file_are_found(home, name):
    """Only the drawing of a figure may have other bytes, because its numbers are in its json."""
    provenance.write("toy")
    content = (home / name).read_bytes()
    (home / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    drawing = name in ("figures/toy/fig05.png", "figures/toy/fig05.pdf")
    assert problems() == {name: "redrawn" if drawing else "differs"} and provenance.check("toy") == (not drawing)
    (home / name).unlink()
    assert problems() == {name: "missing"} and provenance.check("toy") == 1


def test_a_checkpoint_may_be_absent_or_trained_again(home, capsys):
    provenance.write("toy")
    checkpoint = "build/toy/runs/gp-l-rl-main-s0/step-00002/model.safetensors"
    put(home / checkpoint, "other weights")
    assert problems() == {checkpoint: "retrained"} and provenance.check("toy") == 0
    shutil.rmtree(paths.build("toy"))
    capsys.readouterr()
    assert problems() == {} and provenance.check("toy") == 0
    assert capsys.readouterr().out.endswith("10 of 10 files are as listed; 0 of 1 checkpoints are here.\n")


def test_figures_drawn_again_are_listed_with_what_drew_them(home, capsys):
    """`make figures`: the tables keep their origin, and a table that was changed meanwhile is still found."""
    provenance.write("toy")
    manifest(lambda content: content.update(made={**ORIGIN, "commit": "a" * 40}))
    before = manifest()
    put(paths.figures("toy") / "fig05.json", "drawn again")
    put(paths.figures("toy") / "fig02.png", "a further one")
    put(paths.results("toy") / "metrics.csv", "changed")
    provenance.drawn("toy")
    assert problems() == {"results/toy/metrics.csv": "differs"}
    after = manifest()
    assert after["made"] == before["made"] and after["runs"] == before["runs"]
    assert after["drawn"] == provenance.origin()
    provenance.check("toy")
    assert f"tables and claims: commit {'a' * 12}" in capsys.readouterr().out


def test_a_file_that_nobody_lists_is_named(home, capsys):
    provenance.write("toy")
    put(paths.figures("toy") / "fig99.png", "a drawing")
    put(paths.results("toy") / ".hidden", "of an editor")
    assert problems() == {"figures/toy/fig99.png": "unlisted"} and provenance.check("toy") == 0
    assert "unlisted      figures/toy/fig99.png: nothing says what made it" in capsys.readouterr().out


def test_line_ends_of_another_system_are_no_other_content(home):
    provenance.write("toy")
    path = paths.results("toy") / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert problems() == {"results/toy/metrics.csv": "line endings"} and provenance.check("toy") == 0


def test_what_was_there_before_the_tables_is_marked(home, capsys):
    """As after `make reproduce TASKS=GP-L`, which draws no figure of another task."""
    written = (paths.results("toy") / "metrics.csv").stat().st_mtime
    for name in FIGURES:
        os.utime(paths.figures("toy") / name, (written + 1, written + 1))
    os.utime(paths.figures("toy") / "fig05.png", (written - 9, written - 9))
    provenance.write("toy")
    older = {name for name, entry in manifest()["files"].items() if entry.get("older")}
    assert older == {"figures/toy/fig05.png"}
    provenance.check("toy")
    assert "1 of the files were there before these tables" in capsys.readouterr().out


def test_the_summary_says_what_was_made_by_what(home, capsys):
    provenance.write("toy")
    manifest(lambda content: content["made"].update(ORIGIN, clean=False))
    provenance.check("toy")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tables, claims and figures: commit cccccccccccc, with changes; a laptop; Python 3"
    assert "gp-l-rl-main-s0: commit cccccccccccc; a laptop; Python 3" in lines
    assert "06_sensitivity-gp-l-s3, gp-l-sft-main-s0: commit unknown" in lines


@pytest.mark.parametrize("name", [
    "/etc/passwd", "../secret", "results/toy/../../secret", "results/toy//etc/passwd", "results/toy/./metrics.csv",
    "results/toy", "results/toy/", "results/other/metrics.csv", "sftrl_lib/paths.py", "build/toy/timings.jsonl",
    "results\\toy\\metrics.csv", "results/toy/..\\x", "C:/x", "", "results/toy/\0", "results/toy/\n",
    "results/toy/\x1b[2J", "results/toy/\ud800",
    "results/toy/" + 300 * "x", "results/toy/link.csv", "results/toy/linked/passwd",
])  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(home, name):
    """A digest of a file that was found there would tell what is in it."""
    provenance.write("toy")
    put(home / "outside" / "passwd", "secret")
    (paths.results("toy") / "link.csv").symlink_to(home / "outside" / "passwd")
    (paths.results("toy") / "linked").symlink_to(home / "outside")
    manifest(lambda content: content["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(ProvenanceError, match=r"^results/toy/manifest.json lists .* nothing was checked\.$") as caught:
        provenance.verify("toy")
    assert str(caught.value).isprintable()


def test_links_are_not_listed_but_a_whole_folder_may_be_one(home):
    (paths.results("toy") / "link.csv").symlink_to(paths.results("toy") / "metrics.csv")
    shutil.move(paths.build("toy"), home / "elsewhere")
    paths.build("toy").symlink_to(home / "elsewhere")
    provenance.write("toy")
    listed = manifest()["files"]
    assert "results/toy/link.csv" not in listed and provenance.verify("toy") == []
    assert "build/toy/runs/gp-l-rl-main-s0/step-00002/model.safetensors" in listed


def other_digest(content):
    content["files"]["results/toy/metrics.csv"]["sha256"] = 7


@pytest.mark.parametrize("damage", [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'"files"', b"{}", b"[" * 100_000,
    lambda content: content.pop("files"), lambda content: content.update(files=[]), other_digest,
    lambda content: content.update(runs={"a": "by hand"}), lambda content: content.update(made=None),
    lambda content: content.update(profile="laptop"), lambda content: content["files"].update(x={}),
])  # fmt: skip
def test_a_damaged_manifest_is_one_sentence(home, damage, capsys):
    path = provenance.write("toy")
    manifest(damage) if callable(damage) else path.write_bytes(damage)
    assert pipeline.main(["verify", "--profile", "toy"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("results/toy/manifest.json is damaged (")
    assert shown.err.endswith("run notebook 07_results again.\n") and shown.err.count("\n") == 1


@pytest.mark.parametrize(("profile", "message"), [
    ("toy", "There is no results/toy/manifest.json"), ("../toy", "'../toy' cannot name a profile"),
])  # fmt: skip
def test_no_manifest_is_one_sentence(home, profile, message, capsys):
    assert pipeline.main(["verify", "--profile", profile]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_hostile_manifest_cannot_write_to_the_terminal(home, capsys):
    provenance.write("toy")
    manifest(lambda content: content["runs"].update({"\x1b[2J\n": {"commit": {"\x1b": 1}, "note": "\x1b]0;title\x07"}}))
    assert provenance.check("toy") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "?[2J?: commit" in out


def test_the_commit_is_clean_until_code_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert provenance.commit() == {"commit": UNKNOWN, "clean": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    put(tmp_path / "sftrl_lib" / "a.py", "a = 1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "log", "-1", "--format=%H"], capture_output=True, text=True, check=True).stdout.strip()
    put(tmp_path / "results" / "toy" / "metrics.csv", "what a run writes is no code\n")
    assert provenance.commit() == {"commit": head, "clean": True}
    put(tmp_path / "sftrl_lib" / "b.py", "b = 1\n")
    assert provenance.commit() == {"commit": head, "clean": False}
    monkeypatch.setattr(paths, "ROOT", tmp_path / "results")  # installed below somebody's repository
    assert provenance.commit()["commit"] == UNKNOWN


def test_the_origin_is_text_and_names_no_host():
    origin = provenance.origin()
    assert set(origin) == set(provenance.ORIGIN) and json.loads(json.dumps(origin)) == origin
    assert "cores: " in origin["machine"] and "torch " in origin["versions"]
    assert os.uname().nodename not in origin["machine"]


def test_verifying_loads_no_torch():
    loading = "import sys, sftrl_lib.provenance; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", loading], check=True)


def test_the_laptop_results_are_those_of_their_manifest(monkeypatch):
    """Those committed, or those of a `make reproduce` in this checkout, which writes a manifest of its own."""
    monkeypatch.setattr(paths, "HOME", paths.ROOT)
    assert [finding for finding in provenance.verify("laptop") if finding.fails] == []
    listed = provenance.read("laptop")["files"]
    git = ["git", "-C", str(paths.ROOT), "ls-files", "results/laptop", "figures/laptop"]
    if (paths.ROOT / ".git").exists():
        committed = set(subprocess.run(git, capture_output=True, text=True, check=True).stdout.split())
        assert committed - {"results/laptop/manifest.json"} <= listed.keys()
