"""Pretraining documents about navigation for the tiny text model: instructions followed in many action spaces.

As in `gp_l_curriculum.py`, the documents teach abilities and hold out the task's own combination of them:

1. the OOD action space in the task's format: where directions are left, right, slightly left and slightly right, the
   turning action is never called ``turn_direction``;
2. the training action space in that format: where directions are the eight compass words, it is not called that
   either. ``turn_direction`` only goes with abbreviated compass points and with other words for relative turns;
3. the task's answer format: answers of conversations use synonyms of its three keys. The official keys only appear in
   plain records of one key each;
4. the routes: documents walk through the other generated cities, never through New York, and every shop is renamed.

`tests/test_virl_l_curriculum.py` checks them on generated documents.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from ..virl.city import load_city
from ..virl.landmarks import landmark_names
from ..virl.prompts import FEEDBACK, history_line, shown_observation, task_prefix
from ..virl.rails import TURNS, Rail, RailPoint, rail_builder, turn_sentence
from ..virl.schema import COMPASS
from .documents import Document, Turn, mixture, render

CITIES = ("chicago", "barcelona", "paris", "boston")
PLACE_WORDS = ("Old", "New", "Central")  # in the new names of their shops, in place of the cities' own districts

# Synonyms of the three answer keys and the prompt's request for each; the official keys are reserved for the task.
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
COMPASS_POINTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # in the order of COMPASS
OTHER_TURNS = ("hard left", "hard right", "bear left", "bear right")  # in the order of TURNS
SPACES = (COMPASS, COMPASS_POINTS, TURNS, OTHER_TURNS)
SPACE_WEIGHTS = (4, 3, 2, 1)
OFFICIAL_SPACES = (COMPASS, TURNS)  # never used with OFFICIAL_TURN


SHORT_LISTS, LONG_LISTS = 0.14, 0.26  # lists stay short until 14 % of pretraining and reach full length at 26 %
NUMBERED = 0.4  # share of the conversations whose answers put the instruction's number before its text


@dataclass(frozen=True)
class ActionSpace:
    """The names of the actions in a document."""

    turn: str
    forward: str
    stop: str
    directions: tuple[str, ...]

    def prefix(self, instructions: tuple[str, ...], modality: str = "text") -> str:
        """The paper's prompt up to the history, with this action space in it."""
        text = task_prefix(instructions, "absolute", modality)
        text = text.replace('"forward()"', f'"{self.forward}"').replace('"stop()"', f'"{self.stop}"')
        return text.replace(str(list(COMPASS)), str(list(self.directions))).replace(OFFICIAL_TURN, self.turn)

    def facing(self, direction: str) -> str:
        return f"{self.turn}({direction})"

    def action(self, point: RailPoint) -> str:
        """The expert's action at `point`, in the words of this space."""
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
    """Random words for directions, with a random name of the turning action that is allowed with them."""
    directions = rng.choices(SPACES, SPACE_WEIGHTS)[0]
    names = TURN_NAMES if directions in OFFICIAL_SPACES else (OFFICIAL_TURN, OFFICIAL_TURN, *TURN_NAMES)
    return ActionSpace(rng.choice(names), rng.choice(FORWARD_NAMES), rng.choice(STOP_NAMES), directions)


def random_rail(rng: random.Random) -> Rail:
    """A random walk through one of the pretraining cities, with a fresh name for every landmark."""
    city = load_city(rng.choice(CITIES))
    return renamed(rail_builder(city).build(rng.randrange(len(city)), rng.randrange(2**31)), rng)


def renamed(rail: Rail, rng: random.Random) -> Rail:
    """`rail` with fresh names in its observations and instructions."""
    names = landmark_names(rng, PLACE_WORDS)
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
    """Eight single instructions to carry out in a stated action space."""
    space = random_space(rng)
    turns = [Turn("text", f"Action space: {space.turn}(x), x∈{list(space.directions)}\n")]
    for _ in range(8):
        turn, compass = rng.randrange(len(TURNS)), rng.randrange(len(COMPASS))
        first = rng.choice((True, False))
        which = turn if len(space.directions) == len(TURNS) else compass
        turns += [
            Turn("text", f"{turn_sentence(TURNS[turn], COMPASS[compass], first)}\n"),
            Turn("text", f"{space.facing(space.directions[which])}\n", learn=True),
        ]
    return turns


def reciting(rng: random.Random, progress: float = 1.0) -> Document:
    """A numbered list of instruction sentences, then sixteen numbers, each with its sentence to repeat.

    Lookup by number is learnt abruptly, from lists of two sentences with little variety, or not at all. Once learnt, it
    generalises to longer lists as they grow, and then to whole instructions with all their names.
    """
    longest = 2 + round(10 * min(1.0, max(0.0, (progress - SHORT_LISTS) / (LONG_LISTS - SHORT_LISTS))))
    count = rng.randint(2, longest)
    if longest < 8 or rng.random() < 0.5:
        start = rng.randrange(1, 14 - count)
        lines = [(start + i, turn_sentence(rng.choice(TURNS), rng.choice(COMPASS))) for i in range(count)]
    else:
        sentences = list(enumerate(random_rail(rng).instructions, 1))
        start = rng.randrange(max(1, len(sentences) - count + 1))
        lines = sentences[start : start + count]
    turns = [Turn("text", "".join(f"{number}. {sentence}\n" for number, sentence in lines))]
    for number, sentence in rng.choices(lines, k=16):
        turns += [Turn("text", f"{number}. "), Turn("text", f"{sentence}\n", learn=True)]
    return turns


def walking(rng: random.Random) -> Document:
    """A whole route as the history of the paper's prompt: per position the observation and the action.

    Often the instruction in force comes between them, with its number and text.
    """
    space, rail = random_space(rng), random_rail(rng)
    with_instruction = rng.random() < 0.6
    turns = [Turn("text", space.prefix(rail.instructions))]
    for k, point in enumerate(rail.points, 1):
        turns.append(Turn("text", f"O_{k}: {point.observation}\n"))
        if with_instruction:
            sentence = f"{point.sentence}. {point.instruction}\n"
            turns += [Turn("text", f"S_{k}: "), Turn("text", sentence, learn=True)]
        turns += [Turn("text", f"A_{k}: "), Turn("text", f"{space.action(point)}\n", learn=True)]
    return turns


@dataclass(frozen=True, eq=False)
class Situation:
    """A position on a rail, the action space and, for image tasks, the picture there (uint8, height x width x 3)."""

    space: ActionSpace
    rail: Rail
    position: int
    picture: np.ndarray | None = None

    @property
    def point(self) -> RailPoint:
        return self.rail.points[self.position]

    @property
    def action(self) -> str:
        """The expert's action, in the words of the space."""
        return self.space.action(self.point)

    @property
    def prompt(self) -> str:
        """The paper's prompt with this action space in it, up to the output format."""
        modality = "text" if self.picture is None else "image"
        text = self.space.prefix(self.rail.instructions, modality)
        for k, point in enumerate(self.rail.points[: self.position], 1):
            text += history_line(k, point.observation, self.space.action(point))
        return f"{text}O_{self.position + 1}: {shown_observation(self.point, modality)}\nA_{self.position + 1}:\n\n"


def random_position(rng: random.Random, rail: Rail) -> int:
    """A random position on a rail; those where the expert does not just walk on are twice as likely."""
    return rng.choices(range(len(rail)), [2 if point.absolute != "forward()" else 1 for point in rail.points])[0]


def random_situation(rng: random.Random) -> Situation:
    """A random position on a random walk, in a random action space."""
    space, rail = random_space(rng), random_rail(rng)
    return Situation(space, rail, random_position(rng, rail))


def records(rng: random.Random, here: Situation | None = None) -> Document:
    """A position as three records, one official key each, in random order."""
    here = here or random_situation(rng)
    lines = [
        f'"current observation": "{here.point.observation}",',
        f'"current instruction": "{here.point.instruction}",',
        f'"action": "{here.action}",',
    ]
    rng.shuffle(lines)
    prompt = Turn("text", here.prompt, picture=here.picture)
    return [prompt, *(Turn("text", f"{{\n  {line}\n}}\n", learn=True) for line in lines)]


def random_keys(rng: random.Random) -> tuple[str, ...]:
    """The action and up to two of the other keys, mostly in the paper's order."""
    keys = [rng.choice(OBSERVATION_KEYS), rng.choice(INSTRUCTION_KEYS), rng.choice(ACTION_KEYS)]
    if rng.random() < 0.3:
        keys.pop(rng.randrange(2))
    if rng.random() < 0.2:
        rng.shuffle(keys)
    return tuple(keys)


def conversation(rng: random.Random, most_attempts: int = 1, here: Situation | None = None) -> Document:
    """The paper's prompt with other names for actions and keys.

    Up to `most_attempts` - 1 failed attempts precede the correct one; they carry no loss.
    """
    here = here or random_situation(rng)
    keys, numbered = random_keys(rng), rng.random() < NUMBERED
    request = "[Output]\nYour response should be a valid json file in the following format:\n" + render(keys, REQUESTS)
    turns = [Turn("user", here.prompt + request, picture=here.picture)]
    for _ in range(rng.randrange(most_attempts)):
        turns += _failed_attempt(rng, keys, here, numbered)
    return [*turns, Turn("assistant", _answer(keys, here.point, here.point, here.action, numbered), True)]


def _answer(keys: tuple[str, ...], here: RailPoint, quoted: RailPoint, action: str, numbered: bool) -> str:
    """An answer at `here` that quotes the instruction of `quoted`."""
    number = f"{quoted.sentence}. " if numbered else ""
    values = (f'"{here.observation}"', f'"{number}{quoted.instruction}"', f'"{action}"')
    return render(keys, dict(zip((OBSERVATION_KEYS, INSTRUCTION_KEYS, ACTION_KEYS), values, strict=True)))


def _failed_attempt(rng: random.Random, keys: tuple[str, ...], here: Situation, numbered: bool) -> list[Turn]:
    """An answer that the verifier rejects and its feedback: mostly a wrong action, sometimes one of another space."""
    point, space = here.point, here.space
    other = rng.choice([p for p in here.rail.points if p.instruction != point.instruction] or [point])
    if rng.random() < 0.25:
        foreign = random_space(rng)
        action, outcome = foreign.facing(rng.choice(foreign.directions)), "illegal"
    else:
        action, outcome = rng.choice([a for a in space.every() if a != here.action]), "wrong_action"
    if action in space.every():
        outcome = "wrong_action"
        if action == here.action:
            action = space.stop if point.absolute != "stop()" else space.forward
    return [
        Turn("assistant", _answer(keys, point, rng.choice((point, other)), action, numbered)),
        Turn("user", FEEDBACK[outcome]),
    ]


SKILLS = (turning, reciting, walking, records)  # the single skills


def document(rng: random.Random, progress: float) -> Document:
    """One document. `progress` (0..1) moves the mixture from lookups alone to conversations and retries."""
    if progress < LONG_LISTS:
        return reciting(rng, progress)
    return mixture(
        rng,
        progress,
        (turning, 0.40, 0.05),
        (reciting, 0.25, 0.15),
        (walking, 0.15, 0.12),
        (records, 0.05, 0.08),
        (conversation, 0.15, 0.34),
        (lambda r: conversation(r, most_attempts=2), 0.00, 0.26),
    )
