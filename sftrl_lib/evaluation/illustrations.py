"""Pictures of the episodes that figures show: made once, beside the tables, so that figures draw from files alone.

Figs. 11 and 13 show the model's input, large and as the model saw it, Fig. 4 a map. All need the environments; the
figures do not.
"""

from __future__ import annotations

import io
import json

from PIL.Image import Image, fromarray

from .. import paths, tables
from ..files import write_atomically
from ..seeds import resets
from ..task import Task
from ..tasks import TASKS
from ..transcripts import Episode, Turn, best_example, exchanges, main_episodes, picture_name

WALKED_BY = ("rl", "sft", "init")  # methods whose walk is shown on a map, in order of preference


def illustrate(profile: str) -> list[str]:
    """Write the pictures for a profile's figures to ``results/<profile>/pictures``; returns the file names.

    Files that no figure needs any more are removed.
    """
    transcripts = tables.read_transcripts(profile)
    folder = paths.pictures(profile)
    contents: dict[str, bytes | str] = {}
    for task in TASKS.values():
        if found := best_example(transcripts, task):
            episode, turns = found
            for seen, image in enumerate((task.picture(episode, turns[0]), seen_picture(task, episode, turns[0]))):
                if image:
                    png = io.BytesIO()
                    image.save(png, "png", optimize=True)
                    contents[f"{picture_name(episode, turns[0], bool(seen))}.png"] = png.getvalue()
    for name in dict.fromkeys(task.name for task in TASKS.values()):
        if found := best_walk(transcripts, name):
            episode, scene = found
            contents[f"{picture_name(episode)}.json"] = json.dumps(scene, ensure_ascii=False) + "\n"
    for name, content in contents.items():
        write_atomically(folder / name, content)
    for old in folder.glob("*"):
        if old.name not in contents:
            old.unlink()
    return sorted(contents)


def seen_picture(task: Task, episode: Episode, turn: Turn) -> Image | None:
    """The picture at a turn in the pixels that the model saw: the environment is taken through the answers again.

    None in text, and if today's environment deals another episode than the transcript's.
    """
    if task.modality == "text" or episode["split"] not in task.splits:
        return None
    dealt = resets(task, episode["split"], episode["seed"], int(episode["episode"]) + 1)[-1]
    env = task.make_env(task.split(episode["split"]), max_attempts=len(episode["turns"]) + 1)
    observation, info = env.reset(**dealt)
    if "rail" in info:
        same = [list(point.geocode) for point in info["rail"].points] == episode.get("path")
    else:
        same = [info["cards"], info.get("suits")] == [episode.get("cards"), episode.get("suits")]
    for before in episode["turns"]:
        if not same or before is turn or before == turn:
            break
        observation, *_, info = env.step(str(before["output"]))
        same = info["outcome"] == before["outcome"]
    return fromarray(observation["image"]) if same else None


def best_walk(transcripts: list[Episode], name: str) -> tuple[Episode, dict] | None:
    """The episode that makes the clearest map, and its map: arrived, three or four legs with landmarks, by RL, short.

    None if the task has no maps, or no episode can be put on one.
    """
    ranked = []
    tasks = {task.modality: task for task in TASKS.values() if task.name == name}
    for number, episode in main_episodes(transcripts, name):
        if not episode["turns"] or (scene := tasks[episode["modality"]].scene(episode)) is None:
            continue
        legs = scene["legs"]
        bare = sum(leg["landmark"] is None for leg in legs)
        corrected = any(len(turns) > 1 for turns in exchanges(episode))
        rank = (not episode.get("success"), abs(len(legs) - 3.4) > 1, bare, not corrected,
                WALKED_BY.index(episode["method"]), abs(len(episode["path"]) - 11), number)  # fmt: skip
        ranked.append((rank, episode, scene))
    return min(ranked, key=lambda item: item[0], default=(None,))[1:] or None
