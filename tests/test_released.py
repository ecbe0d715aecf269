"""The official project's SFT data, routes and checkpoints, on miniatures of the same form."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_routes_of_your_own import write_pictures
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths
from sftrl_lib.evaluation import released
from sftrl_lib.evaluation.measurements import merge
from sftrl_lib.experiments import MAIN
from sftrl_lib.figures.draw import draw
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points.demonstrations import demonstration
from sftrl_lib.tasks import TASKS
from sftrl_lib.training import sft
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.virl import generate_city, write_city

HUMAN = ("human", "gpt")


def conversation(*turns, image=None):
    said = [{"from": HUMAN[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"image": image, "conversations": said}


@pytest.fixture
def file(tmp_path):
    """GP-L's SFT data: prompt and answer, as the release has them."""
    rng = np.random.default_rng(0)
    rows = [demonstration(rng) for _ in range(16)]
    pairs = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]
    path = tmp_path / "sft.json"
    path.write_text(json.dumps([conversation(*pair) for pair in pairs]))
    return path


def test_every_answer_of_a_conversation_is_an_example(tmp_path):
    path = tmp_path / "sft.json"
    path.write_text(json.dumps([conversation("q", "a", "no", "b"), conversation("p", "c")]))
    rows = released.sft_data(path).to_list()
    assert [len(row["prompt"]) for row in rows] == [1, 3, 1]
    assert [row["completion"][0]["content"] for row in rows] == ["a", "b", "c"]
    assert [message["role"] for message in rows[1]["prompt"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("named", ["0.png", ["0.png"]])
def test_pictures_come_along(named, tmp_path):
    Image.new("RGB", (4, 2), "red").save(tmp_path / "0.png")
    (tmp_path / "sft.json").write_text(json.dumps([conversation("<image>\nWhat?", "Red.", image=named)]))
    [row] = released.sft_data(tmp_path / "sft.json")
    assert row["images"][0].size == (4, 2)
    assert [part["type"] for part in row["prompt"][0]["content"]] == ["image", "text"]
    assert row["prompt"][0]["content"][1]["text"] == "What?"


@pytest.mark.parametrize(("content", "words"), [
    ("{}", "no list of conversations"),
    ("[", "holds no SFT data"),
    ('[{"conversations": [{"from": "gpt", "value": "a"}]}]', "entry 0 is no conversation .*begins with an answer"),
    ('[{"conversations": [{"from": "robot", "value": "a"}]}]', "entry 0 is no conversation .*robot"),
    ('[{"image": "x.png", "conversations": []}]', "entry 0 is no conversation"),
])  # fmt: skip
def test_data_of_another_form_are_named(content, words, tmp_path):
    (tmp_path / "sft.json").write_text(content)
    with pytest.raises(ValueError, match=rf"sft\.json.*{words}"):
        released.sft_data(tmp_path / "sft.json")


@pytest.mark.parametrize("key", ["virl-l", "virl-vl"])
def test_the_task_runs_on_the_released_routes(key, tmp_path):
    for name in ("nyc_1k_routes", "VLN_mini"):
        write_city(generate_city("paris", routes=2), tmp_path / name)
        if key == "virl-vl":
            write_pictures(tmp_path / name)
    task = released.navigation(TASKS[key], tmp_path)
    assert "heldout" not in task.splits and ("visual_ood" in task.splits) == (key == "virl-vl")
    for split, arguments in task.splits.items():
        env = task.make_env(arguments, 2)
        _, info = env.reset(**task.resets(split, [0])[0])
        over = False
        while not over:
            _, reward, over, _, info = env.step(task.expert(env, info))
            assert reward == 1
        assert info["success"]
    with pytest.raises(ValueError, match="There is no folder"):
        released.navigation(TASKS[key], tmp_path / "nowhere")


def test_init_tests_and_figures_run_on_what_was_released(file, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    policy = load_policy(tiny_folder)
    profile = with_study(tiny_profile(tiny_folder), experiments=(MAIN,))
    [study] = profile.studies
    config, compute, data = replace(study.sft, batch_size=4), Compute(policy.parameters_count), released.sft_data(file)
    branch = Branch(policy, TASKS["gp-l"], config, tmp_path / "init", compute, 0.0, checkpoints=0, data=data)
    sft.train_steps(branch, 2)
    policy.save(tmp_path / "trained")
    ends = {"init": tmp_path / "trained", "sft": tmp_path / "trained", "rl": tiny_folder}
    rows = released.test_checkpoints(profile, "gp-l", ends)
    assert set(rows["method"]) == set(ends) and set(rows["split"]) == set(TASKS["gp-l"].splits)
    again = released.test_checkpoints(profile, "gp-l", ends)  # nothing is played twice
    order = ["method", "setting", "split", "metric", "n"]
    same = (frame.sort_values(order, ignore_index=True) for frame in (again, rows))
    pd.testing.assert_frame_equal(*same, check_dtype=False)
    merge(profile)
    assert {one["method"] for one in draw(6, "tiny").data["series"]} == {"init", "sft", "rl"}
