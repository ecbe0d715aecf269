"""What the games show, as HTML.

Whatever a model, a person or a file wrote goes through `plain`: it is escaped, shortened, and its control characters
are made visible, so that it is never markup. Colours come from the notebook's theme, light or dark.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from ..evaluation.cast import Answer, Token
from .scores import YOU, Scores

LONGEST = 2_000  # characters of one text that are shown

STYLE = """<style>
.sftrl { --sftrl-right: #00704f; --sftrl-wrong: #a3004f; --sftrl-ink: #d55e00; --sftrl-line: #bdbdbd; }
[data-jp-theme-light="false"] .sftrl {
  --sftrl-right: #57d9a9; --sftrl-wrong: #ff8fbe; --sftrl-ink: #f0903c; --sftrl-line: #616161; }
.sftrl, .sftrl .widget-html-content { font-size: 14px; line-height: 1.35; color: var(--jp-ui-font-color1, #222); }
.sftrl .widget-html, .sftrl .widget-html-content { overflow: visible; height: auto; min-height: 0; }
.sftrl img { width: 100%; display: block; border-radius: 6px; }
.sftrl .right { color: var(--sftrl-right); font-weight: 600; }
.sftrl .wrong { color: var(--sftrl-wrong); font-weight: 600; }
.sftrl .soft { color: var(--jp-ui-font-color2, #555); font-size: 12.5px; }
.sftrl .verdict { font-size: 17px; min-height: 26px; padding: 2px 0; }
.sftrl .banner { border-left: 5px solid var(--sftrl-wrong); padding: 3px 10px; font-weight: 600; }
.sftrl .note { border-left: 5px solid var(--sftrl-line); padding: 3px 10px; }
.sftrl table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0; }
.sftrl td, .sftrl th { padding: 1px 9px; border-bottom: 1px solid var(--sftrl-line); text-align: right;
  font-weight: 400; }
.sftrl th:first-child { text-align: left; }
.sftrl ol { margin: 0; padding-left: 22px; }
.sftrl .columns ol { columns: 2 400px; column-gap: 40px; }
.sftrl .turn { margin: 0 0 8px; border-top: 1px solid var(--sftrl-line); padding-top: 5px; }
.sftrl .column { max-height: 430px; overflow: auto; }
.sftrl.whole .column { max-height: none; }
.sftrl .said { font-family: var(--jp-code-font-family, monospace); font-size: 12px; white-space: pre-wrap;
  overflow-wrap: anywhere; unicode-bidi: isolate; }
.sftrl .said span { border-radius: 2px; }
.sftrl button.jupyter-button { margin: 2px; }
.sftrl button:focus-visible, .sftrl input:focus-visible { outline: 3px solid var(--sftrl-ink); outline-offset: 1px; }
.sftrl .big button, button.sftrl-big { font-size: 17px; font-weight: 600; }
.sftrl .widget-html > .widget-label:empty { display: none; }
</style>"""


def plain(text: object, longest: int = LONGEST) -> str:
    """`text` as HTML that shows it as it is; control characters and halves of surrogate pairs become �."""
    text = str(text)
    cut = text if len(text) <= longest else text[:longest] + " …"
    return escape("".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in cut))


def right(text: object) -> str:
    return f'<span class="right">✓ {plain(text)}</span>'


def wrong(text: object) -> str:
    return f'<span class="wrong">✗ {plain(text)}</span>'


def soft(text: object) -> str:
    return f'<span class="soft">{plain(text)}</span>'


def spoken(html: str) -> str:
    """A verdict that screen readers read out when it appears."""
    return f'<div class="verdict" role="alert" aria-live="polite" aria-atomic="true">{html}</div>'


def notice(note: str, toy: bool) -> str:
    """What is to be known of the models that play: that they are toys, that some are missing."""
    banner = '<div class="banner">Toy run (profile smoke): what these models say means nothing.</div>' if toy else ""
    return banner + (f'<div class="note">{plain(note)}</div>' if note else "")


def picture(pixels: np.ndarray, alt: str, width: int, colours: int = 96) -> str:
    """A picture, uint8, (height, width, 3), at most `width` pixels wide, with its alternative text."""
    image = Image.fromarray(pixels)
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.quantize(colours).save(file, "PNG", optimize=True)  # few colours: a third of the bytes
    return png(file.getvalue(), alt)


def png(content: bytes, alt: str) -> str:
    return f'<img src="data:image/png;base64,{b64encode(content).decode()}" alt="{plain(alt)}">'


def said(answer: Answer) -> str:
    """An answer with the probability of each token as shading: the darker, the less sure."""
    shown, room = [], LONGEST
    for token in answer.tokens:
        if room <= 0:
            shown.append(" …")
            break
        shown.append(_token(token, room))
        room -= len(token.text)
    return f'<div class="said">{"".join(shown)}</div>'


def _token(token: Token, room: int) -> str:
    text = plain(token.text, room)
    if token.probability is None:
        return text
    doubt = round(max(0.0, min(1.0, 1 - token.probability)), 2)
    chances = [(token.text, token.probability), *token.others]
    title = "   ".join(f"{plain(text.strip() or 'space', 40)} {probability:.0%}" for text, probability in chances)
    style = f' style="background:rgba(230,120,0,{0.75 * doubt:.2f})"' if doubt >= 0.01 else ""
    return f'<span title="{title}"{style}>{text}</span>'


def table(scores: Scores, title: str, rules: Sequence[str] = ()) -> str:
    """Who was right how often, a row for each player and a column for each rule, also for those of `rules`."""
    rules = list(dict.fromkeys([*scores.rules, *rules]))
    head = "".join(f"<th>{plain(rule)}</th>" for rule in rules)
    rows = []
    for player in scores.players or [YOU]:
        cells = (scores.of(rule, player) for rule in rules)
        counts = "".join(f"<td>{f'{solved} of {tried}' if tried else '–'}</td>" for solved, tried in cells)
        rows.append(f"<tr><th>{plain(player)}</th>{counts}</tr>")
    return f"<table><tr><th>{plain(title)}</th>{head}</tr>{''.join(rows)}</table>"


def column(title: str, source: str, turns: Iterable[str], failure: str = "") -> str:
    """What one model answered, attempt by attempt."""
    blocks = "".join(f'<div class="turn">{turn}</div>' for turn in turns)
    error = f'<div class="turn">{wrong(failure)}</div>' if failure else ""
    return f'<div><b>{plain(title)}</b> {soft(source)}</div><div class="column" tabindex="0">{blocks}{error}</div>'


def numbered(lines: Iterable[str]) -> str:
    """HTML lines as a numbered list."""
    return f"<ol>{''.join(f'<li>{line}</li>' for line in lines)}</ol>"
