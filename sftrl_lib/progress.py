"""One style of progress bars and messages, in notebooks and in a shell; and no bars of other libraries beside them."""

from __future__ import annotations

import os
import sys
from datetime import datetime

from tqdm.auto import tqdm


def progress_bar(total: int, description: str, unit: str, shown: bool = True) -> tqdm:
    """A bar that disappears when it is closed; use it as a context manager, or close it."""
    return tqdm(total=total, desc=description, unit=unit, mininterval=1, leave=False, disable=not shown)


def quiet() -> None:
    """Keep transformers and datasets from drawing bars for every weight that is read or row that is mapped."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def say(text: str) -> None:
    """Print a line with the time of day."""
    try:
        print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)
    except OSError:  # stdout was closed (`make reproduce | head`) or is on a full disk; keep running
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
