"""Writing files and folders so that a kill or a power cut leaves the old content or the new one, never half of it.

What disks and copies do to files afterwards is found by a seal: ``digests.json``, the SHA-256 of each file of a folder.
Readers check it (`check_seal`) where a flipped bit would only change numbers. A folder without one is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SEAL = "digests.json"


class BrokenSeal(ValueError):
    """A file is not as it was sealed; the message begins with its name, and readers say what to do about it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) beside `path`, then rename: no half-written file ever carries the final name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate in model output becomes \uXXXX, which is its JSON escape, instead of an error.
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 would make committed results unreadable for others
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def fresh_folder(folder: Path) -> Path:
    """An empty folder beside `folder` to write into before `replace_folder` puts it there."""
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def replace_folder(fresh: Path, folder: Path, deep: bool = False) -> None:
    """Seal the complete folder `fresh` and put it in the place of `folder`; a kill in between leaves ``folder.old``.

    deep: as in `seal`.
    """
    seal(fresh, deep)
    flush(fresh)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """The digest of a file of any size, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, deep: bool = False) -> None:
    """Write the digests of all files in `folder`, as its last file; hidden ones are what a kill has left of a write.

    deep: of those in its folders as well, which a checkpoint in shards has; a run's have seals of their own.
    """
    found = folder.rglob("*") if deep else folder.iterdir()
    files = (path.relative_to(folder).as_posix() for path in found if path.is_file())
    names = sorted(name for name in files if name != SEAL and "/." not in f"/{name}")
    write_atomically(folder / SEAL, json.dumps({name: sha256(folder / name) for name in names}, indent=1) + "\n")


def check_seal(folder: Path, *names: str) -> None:
    """Raises BrokenSeal for the first file that is not as it was sealed; a folder without a seal is taken as it is.

    `names`: only these files are looked at. Files that came after the seal are never looked at.
    """
    path = folder / SEAL
    if not os.path.isfile(path):
        return
    try:
        sealed = dict(json.loads(path.read_text(encoding="utf-8")))
        if elsewhere := [name for name in sealed if not _is_below(name)]:
            raise ValueError(f"{ascii(elsewhere[0])} is no name in this folder")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BrokenSeal(path, f"{SEAL} is no list of digests: {reason(error)}") from error
    for name in (name for name in sealed if name in (names or sealed)):
        if not (folder / name).is_file():
            raise BrokenSeal(folder / name, f"{name} is missing")
        if sha256(folder / name) != sealed[name]:
            raise BrokenSeal(folder / name, f"{name} is not as {SEAL} lists it; if you changed it, delete {SEAL}")


def _is_below(name: str) -> bool:
    """Whether it is a plain path to something in a folder, as `seal` writes them."""
    return bool(name) and "\\" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def flush(folder: Path) -> None:
    """Have the system write a folder and all that is in it to the disk; a rename alone may get there first."""
    for where, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(where, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_folder(Path(where))


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Inside the block, other libraries' errors become an OSError if `folder` takes no more data."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))  # what is written in Rust: safetensors, tokenizers
        code = int(told[1]) if told else _refusal(folder) if isinstance(error, RuntimeError) else None  # torch.save
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(folder)) from error


def _refusal(folder: Path) -> int | None:
    """The errno with which a folder refuses a megabyte; None if it takes it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def reason(error: Exception) -> str:
    """The message of another library's exception, on one line and at most 200 characters, to quote in our own."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
