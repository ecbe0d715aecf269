"""What notebooks show: pictures that come with an alternative text, for those who do not see them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image, fromarray

if TYPE_CHECKING:
    from IPython.display import Image as Shown


def picture(what: Any, alt: str, width: int = 700) -> Shown:
    """A picture, (height, width, 3) uint8, a matplotlib figure or a PNG file, for a notebook: `width` pixels wide.

    `alt` says in a sentence what is to be seen.
    """
    from IPython.display import Image as Shown

    buffer = io.BytesIO()
    if isinstance(what, str | Path):
        buffer.write(Path(what).read_bytes())
    elif hasattr(what, "savefig"):
        what.savefig(buffer, format="png", dpi=150)
        _close(what)
    else:
        (what if isinstance(what, Image) else fromarray(np.asarray(what))).save(buffer, "png")
    return Shown(buffer.getvalue(), format="png", width=width, alt=alt)


def _close(figure: Any) -> None:
    """A figure of pyplot would be shown a second time at the end of the cell."""
    import matplotlib.pyplot as plt

    plt.close(figure)
