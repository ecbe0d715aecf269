"""The paper's navigation prompt, answer format and feedback (Figs. 13, 14 and 21).

With images (Fig. 13) the latest observation states only that there are four views, and whether there is an
intersection; earlier observations appear in the history as text, including landmarks.

How they differ:
* paper: Fig. 14 misspells "navgation" and "histroy" (Fig. 21 does not), and words the instructions more
  fluently than Fig. 21 and the released data do; its expert says "my" and "I" where the observation says
  "your" and "You".
* official code: another wording of the action space; no "valid json file" sentence.
* ours: Figs. 13 and 14 with Fig. 21's spelling, instructions as in Fig. 21 and the official code, the same wording
  for both action spaces so that a new rule changes only the list of directions; the expert repeats the
  observation as in the prompt. With ``verifier="official"`` the feedback is the released code's, verbatim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .rails import AT_INTERSECTION, TURNS, Rail, RailPoint
from .schema import COMPASS

ACTION_SPACES = {"absolute": COMPASS, "relative": TURNS}  # the directions x of turn_direction(x)

_TASK = """[Task Description]
{task}

[Instruction]
{instructions}
{views}
[Action space]
- "forward()": indicates moving forward for 1 step;
- "turn_direction(x)": indicates turn direction to the target heading, where x∈{directions};
- "stop()": indicates the navigation is finished;

[Observations and actions sequence]
"""

_TEXT_TASK = """You are an expert in navigation. You will receive a sequence of instructions to follow. \
You are also provided with your observation and action history in text. \
Your goal is to first analyze the instruction and identify the next sentence to be executed. \
Then, you need to provide the action to be taken based on the current observation and instruction."""

_IMAGE_TASK = """You are an expert in navigation. You will receive a sequence of instructions to follow while \
observing your surrounding street views. You are also provided with your observation and action history in text. \
Your goal is to take the action based on the current observation and instruction."""

_VIEWS = """
[Current observation]
You observe a 2x2 grid of street view images with the following headings:
[front, right
back, left]
You need to identify if any of the landmarks in the instruction are visible in the street view grid.
"""

IMAGE_OBSERVATION = "You observe an image of 4 views;"

OUTPUT_FORMAT = """[Output]
Your response should be a valid json file in the following format:
{
  "current observation": latest observation from the street view grid,
  "current instruction": analyze the full instruction and identify the sentence to be executed,
  "action": the action to be taken chosen from the action space,
}"""

FEEDBACK = {
    "correct": "Correct solution.",
    "wrong_action": "You failed this trial because your action is incorrect.",
    "illegal": "You failed this trial because your action is not in the action space.",
    "unreadable": "You failed this trial because your response has no action in the required format.",
    "no_intersection": "You failed this trial because you are not at any intersection.",
    "intersection": "You failed this trial because you are at an intersection.",
}

# The released code repeats the format after every failure, with doubled braces and without the json sentence.
_OFFICIAL_RETRY = """ and try again in the same format:
[Output]
{{
  "current observation": latest observation from the streetview grid,
  "current instruction": analyze the full instruction and identify the sentence to be executed,
  "action": the action to be taken chosen from the action space,
}}."""
OFFICIAL_FEEDBACK = {
    "correct": "Correct action.",
    "wrong_action": "you make incorrect action. Please avoid this action" + _OFFICIAL_RETRY,
    "no_intersection": "you are not at any intersection. Please avoid this observation" + _OFFICIAL_RETRY,
    "intersection": "you are at an intersection. Please avoid this observation" + _OFFICIAL_RETRY,
    "exceeded": "Exceed maximum verify steps",
}


def task_prefix(instructions: Sequence[str], actions: str = "absolute", modality: str = "text") -> str:
    """The prompt up to the history, which grows from step to step."""
    numbered = "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(instructions, 1))
    task, views = (_IMAGE_TASK, _VIEWS) if modality == "image" else (_TEXT_TASK, "")
    return _TASK.format(task=task, instructions=numbered, views=views, directions=list(ACTION_SPACES[actions]))


def shown_observation(point: RailPoint, modality: str = "text") -> str:
    """The latest observation as shown in the prompt: in the image modality without the landmark (Fig. 13)."""
    if modality == "text":
        return point.observation
    return f"{IMAGE_OBSERVATION} {AT_INTERSECTION}" if point.at_intersection else IMAGE_OBSERVATION


def task_prompt(
    instructions: Sequence[str],
    observations: Sequence[str],
    past_actions: Sequence[str],
    actions: str = "absolute",
) -> str:
    """The whole prompt at step k = len(observations): O_1, A_1, ..., O_k and an open A_k.

    `past_actions` has one entry fewer than `observations`. Raises ValueError otherwise.
    """
    if len(past_actions) != len(observations) - 1:
        raise ValueError(
            f"The history needs one action fewer than observations, "
            f"got {len(past_actions)} and {len(observations)}."
        )
    history = "".join(
        history_line(i, observation, action)
        for i, (observation, action) in enumerate(zip(observations[:-1], past_actions, strict=True), 1)
    )
    return prompt_at(task_prefix(instructions, actions) + history, len(observations), observations[-1])


def history_line(k: int, observation: str, action: str) -> str:
    """A finished step of the history."""
    return f"O_{k}: {observation}\nA_{k}: {action}\n"


def prompt_at(prefix: str, k: int, observation: str) -> str:
    """The prompt of step `k`: `prefix` (task and history), the latest observation, the output format."""
    return f"{prefix}O_{k}: {observation}\nA_{k}:\n\n{OUTPUT_FORMAT}"


def expert_response(observation: str, instruction: str, action: str) -> str:
    """The expert's answer in the official format (a trailing comma, so not strict JSON), the target of SFT.

    The values are JSON strings, so that quotation marks in shop names are escaped.
    """
    values = [json.dumps(text, ensure_ascii=False) for text in (observation, instruction, action)]
    keys = ("current observation", "current instruction", "action")
    lines = (f'  "{key}": {value},\n' for key, value in zip(keys, values, strict=True))
    return "{\n" + "".join(lines) + "}"


def expert_pairs(rail: Rail, actions: str = "absolute", modality: str = "text") -> Iterator[tuple[str, str]]:
    """(prompt, the expert's answer) at every position of `rail`: the paper's single-turn SFT examples.

    In the image modality the prompt also has the grid of views at the position, see `Navigation`.
    """
    prefix = task_prefix(rail.instructions, actions, modality)
    for k, point in enumerate(rail.points, 1):
        action = point.action(actions)
        answer = expert_response(point.observation, point.instruction, action)
        yield prompt_at(prefix, k, shown_observation(point, modality)), answer
        prefix += history_line(k, point.observation, action)
