"""A disk that is full, read-only or denied, said in one sentence with the path and the cure."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from . import paths

_ELSEWHERE = "set SFTRL_HOME to a folder on another disk"
_CURES = {  # what to do about an error of a disk
    errno.ENOSPC: f"free some space there, or {_ELSEWHERE}",
    errno.EDQUOT: f"delete files of yours there, or {_ELSEWHERE}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), or {_ELSEWHERE}",
    errno.EROFS: f"make it writable, or {_ELSEWHERE}",
    errno.EIO: f"have the disk checked, or {_ELSEWHERE}",
}
_CURES_OF_PATHS = {  # the same errors without a path may be of something else
    errno.EACCES: "change its owner or mode, or set SFTRL_HOME to a folder of yours",
    errno.EPERM: "change its owner or mode, or set SFTRL_HOME to a folder of yours",
    errno.ENOTDIR: "move the file that stands where a folder belongs",
    errno.EEXIST: "move the file that stands where a folder belongs",
}


def disk_problem(error: OSError | str) -> str | None:
    """A sentence with the path and the cure, if a disk is full, read-only or denied (or text says so); None if not."""
    text = str(error)
    quoted = re.search(r"""(?:: | at path )(['"])(/.*?)\1(?: -> |$)""", text, re.MULTILINE)
    place = Path(quoted[2]) if quoted else None
    if place and place.name.startswith("."):  # what is written first goes by a hidden name
        place = place.parent
    for code, cure in (_CURES | (_CURES_OF_PATHS if place else {})).items():
        told = re.search(rf"\[[Ee]rrno {code}\]|\(os error {code}\)", text)
        told = told or (code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) and os.strerror(code) in text)
        told = told or (code == errno.ENOSPC and re.fullmatch(r"\d+ requested and \d+ written", text))  # NumPy
        if told:
            return f"{place or paths.HOME}: {os.strerror(code).lower()}; {cure}, and run the same command again."
    return None
