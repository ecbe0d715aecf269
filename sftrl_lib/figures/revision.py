"""How an answer is revised: Fig. 2 (a conversation, attempt by attempt) and Fig. 3 (how the prompt is updated).

Paper: Fig. 2 is a cartoon with rewards of its own; Fig. 3 a template. Ours: Fig. 2 is a conversation of RL from the
transcripts, with the verifier's rewards, beside the cartoon; Fig. 3 is the environments' own messages, as transcripts
have them: in GeneralPoints every failed attempt is added, in navigation a right action starts a fresh prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from .. import published
from ..methods import METHODS
from ..points.formula import evaluate, parse_formula
from ..points.verifier import REWARDS, read_formula
from ..task import Task
from ..tasks import labelled
from ..transcripts import best_revision, exchanges, sections
from .examples import said_in
from .page import (
    ANSWER,
    CHARACTER,
    LINE,
    PROMPT,
    Line,
    draw_cards,
    feedback,
    heard,
    middle_cut,
    printable,
    rounded_box,
    sections_cut,
    source,
    wrapped,
)
from .style import (
    GREY,
    INK,
    MARK,
    RIGHT,
    SMALLEST,
    WIDTH,
    WRONG,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    made_by,
    record,
    styled,
)

ROW = 0.86  # height of one attempt, inches
OURS = (0.06, 4.42)  # left and right edge of the conversation, inches
CARTOON = (4.62, 6.94)  # and of the paper's
STATE = 0.09  # side of a square that stands for a part of the prompt
MOST = 5  # attempts shown
HEARD = {"GP-L": (6, 4), "V-IRL-L": (3, 2)}  # lines of a section of the prompt in Fig. 3, of its start and end
COLUMN, LETTERS = 3.36, 55  # width of a column of Fig. 3, inches, and of a line in it, characters


@styled
def sequential_revision(tables: Tables) -> Drawing:
    """Fig. 2: a conversation in which RL corrects itself, and the paper's cartoon beside it."""
    task = labelled(published.FIGURE_OF[2])
    found = best_revision(tables.transcripts, task)
    if found is None:
        raise NothingToDraw("it needs a GP-L transcript of method rl with an error and its correction")
    episode, turns = found
    turns = [*turns[: MOST - 1], turns[-1]] if len(turns) > MOST else turns
    cartoon = published.FIG02
    title = "Fig. 2 · Sequential revision: answer, hear why it failed, answer again"
    subtitle = f"{source(tables.profile, episode)} · squares: what the model reads before it answers"
    height = 0.78 + ROW * max(len(turns), len(cartoon["attempts"])) + 0.62
    axes = _inches(title, subtitle, height)
    color = METHODS[episode["method"]].color
    _head(axes, OURS, f"A conversation with {METHODS[episode['method']].label}", episode["cards"],
          [str(number) for number in episode["numbers"]])  # fmt: skip
    for index, turn in enumerate(turns):
        top = 0.72 + ROW * index
        _state(axes, OURS[0], top + 0.2, index, color)
        said = read_formula(str(turn.get("output", ""))) or " ".join(printable(turn.get("output", "")).split())
        right = turn.get("outcome") == "correct"
        name = str(turn.get("outcome", "")).replace("_", " ")
        told = f"{name}{_value(said, turn.get('outcome'))}. {' '.join(feedback(turns, index).split())}"
        edges, name = (OURS[0] + 0.95, OURS[1]), f"attempt {index + 1}"
        _attempt(axes, edges, top, name, said, told, right, turn.get("reward"), color)
    _head(axes, CARTOON, "The paper's cartoon", cartoon["cards"], [])
    for index, attempt in enumerate(cartoon["attempts"]):
        right, top = attempt["verdict"] == "correct", 0.72 + ROW * index
        _attempt(axes, CARTOON, top, "", attempt["formula"], attempt["verdict"], right, attempt["reward"], GREY)
    _rewards(axes, height - 0.5)
    seen = f"Speech bubbles with the verifier's reward beside each. {said_in(turns)} In the cartoon: " + "; ".join(
        f"{attempt['formula']}, {attempt['verdict']}, reward {attempt['reward']}" for attempt in cartoon["attempts"]
    )
    data = record("fig02", title, subtitle, tables.profile, [episode | {"turns": turns}], cartoon, f"{seen}.")
    return Drawing(axes.figure, data)


def _inches(title: str, subtitle: str, height: float) -> Axes:
    """Axes over a whole canvas below its header, whose unit is the inch and whose y axis points down."""
    figure = canvas(WIDTH, height, title, subtitle)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    return axes


def _head(axes: Axes, edges: tuple[float, float], name: str, cards: Sequence[str], numbers: list[str]) -> None:
    axes.text(edges[0], 0.02, name, va="top", fontsize=8.5, fontweight="bold")
    draw_cards(axes, [str(card) for card in cards], numbers, edges[0], 0.2)


def _state(axes: Axes, left: float, top: float, earlier: int, color: str) -> None:
    """The prompt as squares: the task, then two for each earlier attempt, the answer and what the verifier said."""
    squares = [GREY, *[color, WRONG] * earlier]
    for place, tint in enumerate(squares):
        x, y = left + (STATE + 0.02) * (place % 7), top + (STATE + 0.03) * (place // 7)
        axes.add_patch(rounded_box(x, y, STATE, STATE, facecolor=tint, edgecolor="none"))
    axes.text(left, top - 0.06, f"v_in {earlier}", va="bottom", fontsize=SMALLEST, color=GREY)


def _value(formula: str, outcome: object) -> str:
    """What a formula of the wrong value comes to."""
    tokens = parse_formula(formula) if outcome == "wrong_value" else None
    value = evaluate(tokens) if tokens else None
    return "" if value is None else f" ({value})"


def _attempt(
    axes: Axes, edges: tuple[float, float], top: float, name: str, said: str, told: str, right: bool,
    reward: float | None, color: str,
) -> None:  # fmt: skip
    """One answer in a bubble, the verifier's words below it, and the reward in a disc on the right."""
    left, end = edges
    ink = RIGHT if right else WRONG
    axes.text(left, top, name, va="top", fontsize=SMALLEST, fontweight="bold", color=color)
    bubble = top + (0.15 if name else 0.05)
    axes.add_patch(rounded_box(left, bubble, end - left - 0.55, 0.27, facecolor=ANSWER, edgecolor=color, linewidth=0.8))
    letters = int((end - left - 0.7) / 0.076)
    axes.text(left + 0.08, bubble + 0.135, said[:letters], va="center", family="DejaVu Sans Mono", fontsize=9,
              fontweight="bold", parse_math=False)  # fmt: skip
    mark = "✓" if right else "✗"
    lines = wrapped(f"{mark} {told}", width=int((end - left - 0.55) / 0.0545))[:2]
    for row, line in enumerate(lines):
        axes.text(left + 0.02, bubble + 0.35 + 0.125 * row, line.text, va="top", fontsize=SMALLEST, color=ink,
                  parse_math=False)  # fmt: skip
    if reward is not None:
        disc = {"boxstyle": "round,pad=0.3,rounding_size=0.6", "facecolor": ink, "edgecolor": "none"}
        axes.text(end - 0.25, bubble + 0.135, f"{reward:+g}".replace("-", "−"), ha="center", va="center", fontsize=9,
                  fontweight="bold", color="white", bbox=disc)  # fmt: skip


def _rewards(axes: Axes, top: float) -> None:
    """The rewards of the paper's text, which are ours, against the cartoon's."""
    text, cartoon = published.FIG02["rewards_in_the_text"], {"correct": 10, "wrong_value": -1, "wrong_numbers": -5}
    axes.plot([OURS[0], CARTOON[1]], [top - 0.06] * 2, color="#d9d9d9", linewidth=0.8)
    ours = ", ".join(f"{name.replace('_', ' ')} {value:+g}" for name, value in REWARDS.items())
    same = "as in the paper's text" if text == REWARDS else "the paper's text: " + ", ".join(map(str, text.values()))
    theirs = ", ".join(f"{name.replace('_', ' ')} {value:+g}" for name, value in cartoon.items())
    for row, said in enumerate((f"The verifier's rewards, {same}: {ours}.", f"The cartoon's: {theirs}.")):
        axes.text(OURS[0], top + 0.15 * row, said.replace("-", "−"), va="top", fontsize=7.2, color=INK)


@styled
def prompt_update(tables: Tables) -> Drawing:
    """Fig. 3: what the model reads before each attempt, in GeneralPoints and in navigation, from real messages."""
    revised = {label: best_revision(tables.transcripts, labelled(label)) for label in ("GP-L", "V-IRL-L")}
    columns = [(label, found) for label, found in revised.items() if found]
    if len(columns) < 2:
        raise NothingToDraw("it needs GP-L and V-IRL-L transcripts of method rl, each with an error and its correction")
    title = "Fig. 3 · How the prompt grows: the task, then every answer and what the verifier said"
    subtitle = (
        f"{made_by(tables.profile)} · real messages of the two environments (n = 1 each), cut where they are long · "
        f"{published.FIG03['update']}"
    )
    parts = [_messages(labelled(label), *found) for label, found in columns]
    height = max(sum(_high(lines) for *_, lines in column) for column in parts) + 0.3
    axes = _inches(title, subtitle, height)
    for left, (label, _), column in zip((0.06, WIDTH - COLUMN - 0.06), columns, parts, strict=True):
        axes.text(left, 0.02, f"{label}: {labelled(label).words.title}", va="top", fontsize=8.5, fontweight="bold")
        top = 0.26
        for name, color, box, lines in column:
            top = _message(axes, left, top, name, color, box, lines)
    shown = [episode | {"turns": turns} for _, (episode, turns) in columns]
    seen = "Two columns of messages: the task, the first answer, the verifier's words, the next answer, and so on."
    return Drawing(axes.figure, record("fig03", title, subtitle, tables.profile, shown, published.FIG03, seen))


Message = tuple[str, str, str, list[Line]]  # name, its colour, the colour of its box, lines


def _messages(task: Task, episode: dict, turns: list[dict]) -> list[Message]:
    """The messages of one exchange, and in navigation how the next prompt begins."""
    asked = sections_cut(wrapped(heard(turns[0]), task.words.rule, LETTERS), *HEARD[task.label])
    found: list[Message] = [("v_in 0: the task, its rule, the form of an answer", GREY, PROMPT, asked)]
    shown = turns if len(turns) <= 3 else [*turns[:2], turns[-1]]
    for turn in shown:
        number = turns.index(turn)
        if len(shown) < len(turns) and turn is shown[-1]:
            found.append(("[...]", GREY, "", []))
        color = METHODS[episode["method"]].color
        answer = wrapped(turn.get("output", ""), None, LETTERS)
        found.append((f"v_out {number}: the answer", color, ANSWER, middle_cut(answer, 4, 3)))
        right = turn.get("outcome") == "correct"
        said = wrapped(feedback(turns, number), None, LETTERS)
        effect = "" if right else f", added to v_in {number + 1}"
        found.append((f"v_ver {number}: the verifier{effect}", RIGHT if right else WRONG, "", said))
    following = exchanges(episode)
    place = next((i for i, each in enumerate(following) if each[0] == turns[0]), len(following))
    if place + 1 < len(following):
        history = sections(heard(following[place + 1][0])).get("Observations and actions sequence", "")
        fresh = [Line("[...]"), *middle_cut(wrapped(history, None, LETTERS), 2, 4)]
        found.append(("a right action: a fresh v_in 0, its history one longer", GREY, PROMPT, fresh))
    else:
        end = "A correct answer, or the last attempt, ends the hand."
        found.append(("the end", GREY, "", wrapped(end, None, LETTERS)))
    return found


def _high(lines: Sequence[Line]) -> float:
    return 0.15 + LINE * len(lines) + 0.17


def _message(axes: Axes, left: float, top: float, name: str, color: str, box: str, lines: list[Line]) -> float:
    """One message below its name; returns where the next one begins."""
    axes.text(left, top, name, va="top", fontsize=7.2, fontweight="bold", color=color)
    high = LINE * len(lines) + 0.08
    if box:
        axes.add_patch(rounded_box(left, top + 0.15, COLUMN, high, facecolor=box, edgecolor="none"))
    for row, line in enumerate(lines):
        here = top + 0.19 + LINE * row
        for start, end in line.marks:
            wide = CHARACTER * (end - start) + 0.03
            axes.add_patch(rounded_box(left + 0.045 + CHARACTER * start, here - 0.02, wide, LINE - 0.01, facecolor=MARK,
                                       edgecolor="none"))  # fmt: skip
        axes.text(left + 0.06, here, line.text, va="top", family="DejaVu Sans Mono", fontsize=SMALLEST,
                  parse_math=False, color=INK if box else color)  # fmt: skip
    return top + _high(lines)
