"""What the tiny text foundation model reads about finding its way: instructions followed in many action spaces.

As `points_curriculum.py` for GeneralPoints: abilities are taught, the task's own combination of them is held out of
every document:

1. the OOD action space inside the task's format: where directions are left, right, slightly left and slightly right,
   the turning action has another name than ``turn_direction``;
2. the training action space inside it as well: where directions are the eight compass words, it has another name too.
   ``turn_direction`` comes with abbreviated compass points and with other words for relative turns only;
3. the task's answer format: answers of conversations use synonyms of its three keys. The keys themselves appear in
   plain records of one key each;
4. the routes: documents walk through the other generated cities, never through New York, and every shop has a new name.

`tests/test_navigation_curriculum.py` checks them on generated documents.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..virl.city import load_city
from ..virl.landmarks import landmark_names
from ..virl.prompts import FEEDBACK, history_line, task_prefix
from ..virl.rails import TURNS, Rail, RailPoint, rail_builder
from ..virl.schema import COMPASS
from .documents import Document, Turn, render

CITIES = ("chicago", "barcelona", "paris", "boston")

# Synonyms of the three answer keys and what the prompt asks for under them: the official keys are kept for the task.
OBSERVATION_KEYS = ("view", "what you see")
INSTRUCTION_KEYS = ("step", "sentence")
ACTION_KEYS = ("move", "decision")
REQUESTS = {
    OBSERVATION_KEYS: "latest observation from the street view grid",
    INSTRUCTION_KEYS: "analyze the full instruction and identify the sentence to be executed",
    ACTION_KEYS: "the action to be taken chosen from the action space",
}

OFFICIAL_TURN = "turn_direction"
TURN_NAMES = ("turn", "rotate", "head", "face")
FORWARD_NAMES = ("forward()", "go()", "walk()")
STOP_NAMES = ("stop()", "halt()", "finish()")
COMPASS_POINTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # of COMPASS
OTHER_TURNS = ("hard left", "hard right", "bear left", "bear right")  # of TURNS
SPACES = (COMPASS, COMPASS_POINTS, TURNS, OTHER_TURNS)
SPACE_WEIGHTS = (4, 3, 2, 1)
OFFICIAL_SPACES = (COMPASS, TURNS)  # never together with the official name of the turning action


@dataclass(frozen=True)
class ActionSpace:
    """How the actions of a document are called."""

    turn: str
    forward: str
    stop: str
    directions: tuple[str, ...]

    def prefix(self, instructions: tuple[str, ...]) -> str:
        """The paper's prompt up to the history, with this action space in it."""
        text = task_prefix(instructions, "absolute")
        text = text.replace('"forward()"', f'"{self.forward}"').replace('"stop()"', f'"{self.stop}"')
        return text.replace(str(list(COMPASS)), str(list(self.directions))).replace(OFFICIAL_TURN, self.turn)

    def facing(self, direction: str) -> str:
        return f"{self.turn}({direction})"

    def action(self, point: RailPoint) -> str:
        """What the expert does at `point`, in the words of this space."""
        if not point.absolute.startswith(OFFICIAL_TURN):
            return self.stop if point.absolute == "stop()" else self.forward
        if len(self.directions) == len(TURNS):
            return self.facing(self.directions[TURNS.index(_argument(point.relative))])
        return self.facing(self.directions[COMPASS.index(_argument(point.absolute))])

    def every(self) -> list[str]:
        """All actions of the space."""
        return [self.forward, self.stop, *map(self.facing, self.directions)]


def _argument(action: str) -> str:
    return action[action.index("(") + 1 : -1]


def random_space(rng: random.Random) -> ActionSpace:
    """Any words for directions, with any name of the turning action that may go with them."""
    directions = rng.choices(SPACES, SPACE_WEIGHTS)[0]
    names = TURN_NAMES if directions in OFFICIAL_SPACES else (OFFICIAL_TURN, OFFICIAL_TURN, *TURN_NAMES)
    return ActionSpace(rng.choice(names), rng.choice(FORWARD_NAMES), rng.choice(STOP_NAMES), directions)


def random_rail(rng: random.Random) -> Rail:
    """A walk through one of the pretraining cities in which every landmark has a name of its own."""
    city = load_city(rng.choice(CITIES))
    return renamed(rail_builder(city).build(rng.randrange(len(city)), rng.randrange(2**31)), rng)


def renamed(rail: Rail, rng: random.Random) -> Rail:
    """`rail` with fresh names in its observations and instructions."""
    names = landmark_names(rng, ("Old", "New", "Central"))
    known: dict[str, str] = {}
    for point in rail.points:
        name, separator, _ = point.landmark.removeprefix("The destination ").partition(" is on your ")
        if separator and name not in known:
            known[name] = next(names)[0]

    def rename(text: str) -> str:
        for old, new in known.items():
            if f"{old} is on your " in text:
                return text.replace(f"{old} is on your ", f"{new} is on your ")
        return text

    points = tuple(
        RailPoint(
            p.geocode, p.heading, p.absolute, p.relative, rename(p.landmark), p.at_intersection, p.sentence,
            rename(p.instruction),
        )
        for p in rail.points
    )  # fmt: skip
    return Rail(points, tuple(map(rename, rail.instructions)), rail.initial_heading)


def turning(rng: random.Random) -> Document:
    """Single instructions to carry out in a stated action space, eight of them."""
    space = random_space(rng)
    turns = [Turn("text", f"Action space: {space.turn}(x), x∈{list(space.directions)}\n")]
    for _ in range(8):
        turn, compass = rng.randrange(len(TURNS)), rng.randrange(len(COMPASS))
        first = rng.choice(("First, turn", "Turn"))
        which = turn if len(space.directions) == len(TURNS) else compass
        turns += [
            Turn("text", f"{first} {TURNS[turn]} to face {COMPASS[compass]}.\n"),
            Turn("text", f"{space.facing(space.directions[which])}\n", learn=True),
        ]
    return turns


def reciting(rng: random.Random) -> Document:
    """Some sentences of a route's instruction, to be said again by their numbers, twelve times.

    Often there are only two or three: looking something up by its number is learnt from short lists, and long ones
    alone teach it many times later.
    """
    sentences = list(enumerate(random_rail(rng).instructions, 1))
    count = min(len(sentences), rng.choice((2, 2, 3, 4, 6, 12)))
    start = rng.randrange(len(sentences) - count + 1)
    shown = sentences[start : start + count]
    turns = [Turn("text", "".join(f"{number}. {sentence}\n" for number, sentence in shown))]
    for number, sentence in rng.choices(shown, k=12):
        turns += [Turn("text", f"S_{number}"), Turn("text", f': "{sentence}",\n', learn=True)]
    return turns


def walking(rng: random.Random) -> Document:
    """A whole route as the history of the paper's prompt: everywhere which instruction is in force, what to do."""
    space, rail = random_space(rng), random_rail(rng)
    sentences = rng.random() < 0.7
    turns = [Turn("text", space.prefix(rail.instructions))]
    for k, point in enumerate(rail.points, 1):
        turns.append(Turn("text", f"O_{k}: {point.observation}\n"))
        if sentences:
            turns += [Turn("text", f"S_{k}: "), Turn("text", f"{point.sentence}\n", learn=True)]
        turns += [Turn("text", f"A_{k}: "), Turn("text", f"{space.action(point)}\n", learn=True)]
    return turns


def situation(rng: random.Random, space: ActionSpace | None = None) -> tuple[ActionSpace, Rail, int, str]:
    """An action space (`space`, or any), a rail, a position on it, rather a turn, and the prompt up to there."""
    drawn, rail = random_space(rng), random_rail(rng)
    space = space or drawn
    weights = [2 if point.absolute != "forward()" else 1 for point in rail.points]
    position = rng.choices(range(len(rail)), weights)[0]
    prefix = space.prefix(rail.instructions)
    for k, point in enumerate(rail.points[:position], 1):
        prefix += history_line(k, point.observation, space.action(point))
    return space, rail, position, prefix


def records(rng: random.Random) -> Document:
    """A position as three records, one official key each, in a random order."""
    space, rail, position, prefix = situation(rng)
    point = rail.points[position]
    lines = [
        f'"current observation": "{point.observation}",',
        f'"current instruction": "{point.instruction}",',
        f'"action": "{space.action(point)}",',
    ]
    rng.shuffle(lines)
    seen = f"{prefix}O_{position + 1}: {point.observation}\nA_{position + 1}:\n\n"
    return [Turn("text", seen), *(Turn("text", f"{{\n  {line}\n}}\n", learn=True) for line in lines)]


def random_keys(rng: random.Random) -> tuple[str, ...]:
    """The action and up to two of the other keys, mostly in the paper's order."""
    keys = [rng.choice(OBSERVATION_KEYS), rng.choice(INSTRUCTION_KEYS), rng.choice(ACTION_KEYS)]
    if rng.random() < 0.3:
        keys.pop(rng.randrange(2))
    if rng.random() < 0.2:
        rng.shuffle(keys)
    return tuple(keys)


def conversation(rng: random.Random, most_attempts: int = 1, space: ActionSpace | None = None) -> Document:
    """The paper's prompt with other names; up to `most_attempts` - 1 failed attempts come first and carry no loss.

    `space` is for testing the model on an action space that pretraining never states.
    """
    space, rail, position, prefix = situation(rng, space)
    keys, point = random_keys(rng), rail.points[position]
    request = "[Output]\nYour response should be a valid json file in the following format:\n" + render(keys, REQUESTS)
    prompt = f"{prefix}O_{position + 1}: {point.observation}\nA_{position + 1}:\n\n{request}"
    turns = [Turn("user", prompt)]
    for _ in range(rng.randrange(most_attempts)):
        turns += _failed_attempt(rng, keys, rail, point, space)
    return [*turns, Turn("assistant", _answer(keys, point.observation, point.instruction, space.action(point)), True)]


def _answer(keys: tuple[str, ...], observation: str, instruction: str, action: str) -> str:
    quoted = (f'"{observation}"', f'"{instruction}"', f'"{action}"')
    return render(keys, dict(zip((OBSERVATION_KEYS, INSTRUCTION_KEYS, ACTION_KEYS), quoted, strict=True)))


def _failed_attempt(
    rng: random.Random, keys: tuple[str, ...], rail: Rail, point: RailPoint, space: ActionSpace
) -> list[Turn]:
    """An answer that the verifier rejects, and its feedback: mostly a wrong action, sometimes one of another space."""
    other = rng.choice([p for p in rail.points if p.instruction != point.instruction] or [point])
    if rng.random() < 0.25:
        foreign = random_space(rng)
        action, outcome = foreign.facing(rng.choice(foreign.directions)), "illegal"
    else:
        action, outcome = rng.choice([a for a in space.every() if a != space.action(point)]), "wrong_action"
    if action in space.every():
        outcome = "wrong_action"
        if action == space.action(point):
            action = space.stop if point.absolute != "stop()" else space.forward
    instruction = rng.choice((point.instruction, other.instruction))
    return [
        Turn("assistant", _answer(keys, point.observation, instruction, action)),
        Turn("user", FEEDBACK[outcome]),
    ]


SKILLS = (turning, reciting, walking, records)  # the single ones


def document(rng: random.Random, progress: float) -> Document:
    """One document. `progress` (0..1) moves the mixture from single skills to conversations and retries."""
    kinds = (turning, reciting, walking, records, conversation, lambda r: conversation(r, most_attempts=2))
    early, late = (0.05, 0.50, 0.30, 0.05, 0.10, 0.0), (0.02, 0.14, 0.20, 0.08, 0.32, 0.24)
    weights = [(1 - progress) * a + progress * b for a, b in zip(early, late, strict=True)]
    return rng.choices(kinds, weights)[0](rng)
