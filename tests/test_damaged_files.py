"""Files that are cut, disks that are full, machines of another language: one sentence, and nothing is lost."""

import ast
import errno
import os
import re
import resource
import shutil

import pytest
from safetensors import SafetensorError
from synthetic_tables import failing_transcript, main_table
from test_faults import home, one_sentence, profile, sft_branch, trained  # noqa: F401 (some are fixtures)
from test_tables import profile_of

from sftrl_lib import files, paths, tables
from sftrl_lib.evaluation import measurements
from sftrl_lib.evaluation.measurements import Part, merge
from sftrl_lib.evaluation.training_curves import training_log
from sftrl_lib.experiments import MAIN
from sftrl_lib.files import disk_errors, write_atomically
from sftrl_lib.fingerprint import claim
from sftrl_lib.models.checkpoint import CheckpointError, save_state
from sftrl_lib.runs import Run
from sftrl_lib.tables import TableError
from sftrl_lib.training import fork, sft
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.snapshots import snapshots_of, write_snapshot

# Text is UTF-8 wherever the library runs


def test_every_text_file_is_opened_as_utf_8():
    """Under another locale, such as ISO-8859-1, Python would read and write the cards' suits as something else."""
    unnamed = []
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text(node) and "encoding" not in {k.arg for k in node.keywords}:
                unnamed.append(f"{path.relative_to(paths.PACKAGE)}:{node.lineno}")
    assert not unnamed


def opens_text(call):
    """Whether a call opens a text file, by its name: open, Path.open, Path.read_text, Path.write_text, os.fdopen."""
    function = ast.unparse(call.func)
    given = {ast.unparse(value) for value in (*call.args, *(keyword.value for keyword in call.keywords))}
    binary = any(re.fullmatch(r"'[rwax]b\+?'", value) for value in given)
    opens = re.fullmatch(r"(.+\.)?(open|fdopen|read_text|write_text)", function)
    return bool(opens) and not binary and function not in ("os.open", "Image.open")


# What is written is on the disk before it has its name


class Disk:
    """Records which files have been flushed, and what each rename puts in place before it has been."""

    def __init__(self, monkeypatch):
        self.flushed, self.early = set(), []
        fsync, rename = os.fsync, os.replace

        def watched_fsync(handle):
            fsync(handle)
            status = os.fstat(handle)
            self.flushed.add((status.st_ino, status.st_size))

        def watched_rename(source, target):
            source = files.Path(source)
            for path in (source, *source.rglob("*")):
                status = path.stat()
                if path.is_file() and (status.st_ino, status.st_size) not in self.flushed:
                    self.early.append(path.name)
            rename(source, target)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "replace", watched_rename)


def test_everything_is_flushed_before_it_is_renamed(policy, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    write_atomically(tmp_path / "a.txt", "x")
    save_state(tmp_path / "training", {"model": policy.model}, {}, {})
    write_snapshot(policy, tmp_path, 1, Compute(1))
    assert len(disk.flushed) > 8 and not disk.early


def test_the_trainers_own_checkpoints_are_flushed(policy, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    sft.train_steps(sft_branch(policy, tmp_path), 2)
    saved = [path for path in (tmp_path / "training" / "checkpoint-2").rglob("*") if path.is_file()]
    assert saved and {(p.stat().st_ino, p.stat().st_size) for p in saved} <= disk.flushed


# Damaged files


@pytest.mark.parametrize("content", ["", '{"config"', "null", "[1]", "[" * 100_000])
def test_a_folder_that_does_not_say_what_made_it_is_set_aside(content, profile, home, capsys):  # noqa: F811
    """Never mixed, never tested, and never lost: not even the second one."""
    run = Run(profile, "gp-l", "init")
    weights = (run.folder / "step-00000" / "model.safetensors").read_bytes()
    for number in (1, 2):
        (run.folder / "made_with.json").write_text(content, encoding="utf-8")
        (run.folder / "number").write_text(str(number), encoding="utf-8")
        with pytest.raises(CheckpointError, match="settings unknown; train it first") as error:
            snapshots_of(run)
        assert run.name in one_sentence(error)
        claim(run.folder, run.identity)
        assert "was made with settings unknown; it is kept in" in capsys.readouterr().out
        assert [path.name for path in run.folder.iterdir()] == ["made_with.json"]
    shelf = run.folder.parent.parent / "replaced"
    assert {path.read_text(encoding="utf-8") for path in shelf.glob("*/number")} == {"1", "2"}
    assert next(shelf.glob("*/step-00000/model.safetensors")).read_bytes() == weights


@pytest.mark.parametrize("content", ["", '[{"step": 1', "{]", "[1, {}"])
def test_a_damaged_training_log_is_named_and_can_be_written_again(content, profile, home):  # noqa: F811
    run = Run(profile, "gp-l", "init")
    log = run.folder / "log.json"
    whole = log.read_bytes()
    log.write_text(content, encoding="utf-8")
    with pytest.raises(TableError, match="damaged") as error:
        training_log(run)
    assert str(log) in one_sentence(error) and f"remove {run.folder / 'finished'} and run" in str(error.value)
    (run.folder / "finished").unlink()
    fork.train(run)
    assert log.read_bytes() == whole and len(training_log(run))


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A run's part of the tables, written in three additions, and how to open it again."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    folder = paths.test_folder("mine", "a")
    rows = tables.validate(main_table()).to_dict("records")
    for number in range(3):
        add(Part(folder, {"run": 1}), rows, number)
    return folder


def add(part, rows, number):
    record = failing_transcript("♠ \ud800") | {"episode": number}
    part.add(rows[number::3], [record])


DAMAGE = {
    "rows cut at a line's end": ("metrics.csv", lambda text: text[: text.rindex(b"\n", 0, -1) + 1]),
    "rows cut within a line": ("metrics.csv", lambda text: text[:-9]),
    "rows cut within the heading": ("metrics.csv", lambda text: text[:9]),
    "no rows left": ("metrics.csv", lambda text: b""),
    "a number changed": ("metrics.csv", lambda text: text.replace(b"text", b"image", 1)),
    "transcripts cut at a line's end": ("transcripts.jsonl", lambda text: text[: text.rindex(b"\n", 0, -1) + 1]),
    "transcripts cut within a line": ("transcripts.jsonl", lambda text: text[:-9]),
    "no transcripts": ("transcripts.jsonl", None),
    "half a record of the states": ("states.json", lambda text: text[:30]),
    "another record": ("states.json", lambda text: b"[1]"),
    "half an identity": ("made_with.json", lambda text: text[:5]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_part_of_the_tables_is_named_and_can_be_made_again(kind, part):
    whole = merge_of_mine()
    name, damage = DAMAGE[kind]
    path = part / name
    (path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes())))
    readers = [merge_of_mine] if name == "made_with.json" else [merge_of_mine, lambda: Part(part, {"run": 1})]
    for read in readers:
        with pytest.raises(TableError) as error:
            read()
        message = one_sentence(error)
        assert str(path) in message and message.endswith(f"; remove {part}, and the same command repeats the test.")
    shutil.rmtree(part)
    rows = tables.validate(main_table()).to_dict("records")
    for number in range(3):
        add(Part(part, {"run": 1}), rows, number)
    assert merge_of_mine() == whole


def merge_of_mine():
    """The bytes of the merged tables."""
    merge(profile_of(MAIN))
    return [path("mine").read_bytes() for path in (tables.metrics_path, tables.transcripts_path)]


def test_a_part_that_is_older_than_its_record_is_read(part):
    whole = merge_of_mine()
    (part / "states.json").unlink()
    assert merge_of_mine() == whole and len(Part(part, {"run": 1}).frame)


def test_a_kill_between_a_parts_files_damages_nothing(part, tmp_path, monkeypatch):
    """The addition is made again, and each transcript is there once."""
    expected = {path.name: path.read_bytes() for path in part.iterdir()}
    rows = tables.validate(main_table()).to_dict("records")

    class Killed(BaseException):
        pass

    def mortal(path, content):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return write_atomically(path, content)

    monkeypatch.setattr(measurements, "write_atomically", mortal)
    for number in range(3):
        for writes in range(3):
            folder = paths.test_folder("killed", f"{number}-{writes}")
            left = 99
            for earlier in range(number):
                add(Part(folder, {"run": 1}), rows, earlier)
            left = writes
            with pytest.raises(Killed):
                add(Part(folder, {"run": 1}), rows, number)
            left = 99
            for later in range(number, 3):
                add(Part(folder, {"run": 1}), rows, later)
            found = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert {name: found[name] for name in expected if name != "states.json"} == {
                name: content for name, content in expected.items() if name != "states.json"
            }


# Disks that take no more


@pytest.fixture
def small_files():
    """No file may grow beyond a size, as on a disk that is full: ``small_files(bytes)``; undone at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [5_000, 60_000, 200_000])
@pytest.mark.parametrize("method", ["init", "rl"])
def test_a_disk_that_takes_no_more_is_an_oserror_and_training_goes_on_later(method, size, profile, home, small_files):  # noqa: F811
    """Whichever library was writing: datasets, torch, safetensors, tokenizers."""
    run = Run(profile, "gp-l", method)
    fork.train(run)
    finished = run.folder / "step-00000" if method == "init" else sorted(run.folder.glob("step-*"))[-1]
    expected = (finished / "model.safetensors").read_bytes()
    shutil.rmtree(run.folder)
    small_files(size)
    with pytest.raises(OSError) as error:
        fork.train(run)
    small_files(resource.RLIM_INFINITY)
    assert error.value.errno == errno.EFBIG and not (run.folder / "finished").exists()
    fork.train(run)
    assert (finished / "model.safetensors").read_bytes() == expected


def test_an_error_is_the_disks_only_if_the_disk_says_so(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (SafetensorError("I/O error: No space left on device (os error 28)"), Exception("x (os error 28)")):
        with pytest.raises(OSError, match="No space left on device") as raised, disk_errors(tmp_path):
            raise error
        assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path)
    for error in (RuntimeError("CUDA out of memory"), FloatingPointError("nan"), ValueError("x"), PermissionError("y")):
        with pytest.raises(type(error)) as raised, disk_errors(tmp_path):
            raise error
        assert raised.value is error
    assert not list(tmp_path.iterdir())

    def no_space(*args, **kwargs):
        raise full

    monkeypatch.setattr(files.tempfile, "TemporaryFile", no_space)
    with pytest.raises(OSError, match="No space left on device") as raised, disk_errors(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5120 vs 5012")
    assert raised.value.errno == errno.ENOSPC


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a.json", "old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]
