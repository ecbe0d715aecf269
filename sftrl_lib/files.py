"""Writing files and folders so that a kill at any moment leaves the old content or the new one, never half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` beside `path`, then rename: no half-written file ever carries the final name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate in model output becomes \uXXXX, which is its JSON escape, instead of an error.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)  # mkstemp's 0600 would make committed results unreadable for others
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def fresh_folder(folder: Path) -> Path:
    """An empty folder beside `folder` to write into before `replace_folder` puts it there."""
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put the complete folder `fresh` in the place of `folder`; a kill in between leaves ``folder.old``."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def reason(error: Exception) -> str:
    """The message of another library's exception, on one line and at most 200 characters, to quote in our own."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
