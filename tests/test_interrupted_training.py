"""Training that is killed at any file operation, and then goes on, is the same training: all four tasks, every stage.

In the suite a kill falls on some of the operations; ``SFTRL_EVERY_KILL=1`` takes all of them (20 minutes).
"""

import os
import shutil
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_models import tiny_study

from sftrl_lib import paths
from sftrl_lib.profiles import SMOKE
from sftrl_lib.training import branches, ppo, sft
from sftrl_lib.training.branches import branch_folder, init_folder, make_init, train_branch

TASKS = {study.task.slug: study.task for study in SMOKE.studies}
KILLS = 2  # of each run in the suite, evenly spread
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """Stands for kill -9: nothing in the library may catch it."""


class Reaper:
    """Counts the file operations below a folder that Python makes, and raises `Killed` before the n-th."""

    def __init__(self):
        self.below = None
        sys.addaudithook(self.watch)

    def watch(self, event, arguments):
        if self.below is None:
            return
        writes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        )
        if writes and str(arguments[0]).startswith(self.below):
            self.count += 1
            if self.count == self.dies_at:
                self.below = None
                raise Killed

    def run(self, work, below, dies_at=0):
        """Do `work`, dying before operation `dies_at`; returns how many operations there were."""
        self.count, self.dies_at, self.below = 0, dies_at, str(below)
        try:
            work()
        finally:
            self.below = None
        return self.count


@pytest.fixture(scope="module")
def reaper():
    return Reaper()


@pytest.fixture(autouse=True)
def checkpoints_every_three_steps(monkeypatch):
    monkeypatch.setattr(branches, "train_sft", partial(sft.train_sft, save_every=3))
    monkeypatch.setattr(branches, "train_ppo", partial(ppo.train_ppo, save_every=2))


@pytest.fixture(scope="module")
def studies(tiny_folder, vision_folder):
    """A study of each task whose SFT takes 8 steps in three epochs and whose RL a few updates."""
    made = {}
    for slug, task in TASKS.items():
        folder = vision_folder if task.modality == "image" else tiny_folder
        study = tiny_study(folder, task.name)
        made[slug] = replace(
            study,
            task=task,
            checkpoints=2,
            sft=replace(study.sft, examples=24, batch_size=8, init_steps=5, group_by_length=task.name == "navigation"),
            ppo=replace(study.ppo, episodes=2, attempts=1, epochs=1, max_new_tokens=4, minibatches=1),
        )
    return made


def budget(study, steps):
    """Training compute of `steps` steps of SFT."""
    policy = branches.load_policy(study.foundation)
    tokens = sft.tokens_per_example(policy, branches.demonstrations(study))
    return 6 * policy.parameters_count * study.sft.batch_size * tokens * steps


@pytest.fixture(scope="module")
def prepared(studies, tmp_path_factory):
    """A home for each task in which there are demonstrations and an Init, and its study with a budget of 8 steps."""
    homes = {}
    for slug, study in studies.items():
        home = tmp_path_factory.mktemp(slug)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "HOME", home)
            study = replace(study, fork_flops=budget(study, 8))
            make_init(study, 0)
        homes[slug] = home, study
    return homes


STAGES = {
    "init": (lambda study: make_init(study, 0), lambda study: init_folder(study, 0)),
    "sft": (lambda study: train_branch(study, "sft", "main", "", 0), lambda s: branch_folder(s, "sft", "main", "", 0)),
    "rl": (lambda study: train_branch(study, "rl", "main", "", 0), lambda s: branch_folder(s, "rl", "main", "", 0)),
}


def result(folder):
    """What a run leaves: weights, tokens counted, log. What serves to continue is left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "training" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("slug", TASKS)
def test_a_kill_at_any_file_operation_changes_nothing(slug, stage, prepared, reaper, tmp_path, monkeypatch):
    start, study = prepared[slug]
    work, folder_of = STAGES[stage]

    def home(name):
        here = tmp_path / name
        shutil.copytree(start, here, copy_function=os.link)
        monkeypatch.setattr(paths, "HOME", here)
        if stage == "init":
            shutil.rmtree(folder_of(study))
        return here

    operations = reaper.run(lambda: work(study), home("whole"))
    expected = result(folder_of(study))
    assert any(name.endswith("model.safetensors") for name in expected) and operations > 20
    points = range(1, operations + 1)
    if not os.environ.get("SFTRL_EVERY_KILL"):
        last = np.linspace(operations / 3, operations, KILLS).astype(int)
        points = sorted({*last.tolist(), operations - 1})
    for dies_at in points:
        here = home(f"killed-{dies_at}")
        with pytest.raises(Killed):
            reaper.run(lambda: work(study), here, dies_at)
        work(study)
        found = result(folder_of(study))
        assert found.keys() == expected.keys(), f"killed at operation {dies_at} of {operations}"
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, f"killed at operation {dies_at} of {operations}: {differing}"
        shutil.rmtree(here)


def test_an_empty_trainer_state_blocks_no_restart(prepared, tmp_path, monkeypatch):
    """A kill while it is being written leaves it empty."""
    start, study = prepared["gp-l"]
    shutil.copytree(start, tmp_path / "home")
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    folder = init_folder(study, 0)
    before = result(folder)
    (folder / "finished").unlink()
    [newest] = folder.glob("training/checkpoint-5")
    (newest / "trainer_state.json").write_text("")
    make_init(study, 0)
    assert result(folder) == before
