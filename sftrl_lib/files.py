"""Writing files and folders so that a kill or a power cut leaves the old content or the new one, never half of it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put the complete folder `fresh` in the place of `folder`; a kill in between leaves ``folder.old``."""
    flush(fresh)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


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
