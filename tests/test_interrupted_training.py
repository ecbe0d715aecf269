"""Training that is killed at any file operation, and then goes on, is the same training: all four tasks, every stage.

In the suite a kill falls on some of the operations; ``SFTRL_EVERY_KILL=1`` takes all of them (20 minutes).
"""

import os
import shutil
import sys
from dataclasses import replace
from functools import partial

import pytest
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths
from sftrl_lib.fingerprint import claim
from sftrl_lib.models.policy import load_policy
from sftrl_lib.runs import Run
from sftrl_lib.tasks import TASKS
from sftrl_lib.training import fork, ppo, sft

STAGES = ("init", "sft", "rl")
KILLS = (0.5, 0.8, 1.0)  # after these shares of a run's file operations it is killed in the suite
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
    for module, name, often in ((sft, "train_steps", 3), (sft, "train", 3), (ppo, "train", 2)):
        monkeypatch.setattr(module, name, partial(getattr(module, name), save_every=often))


def small_profile(key, folder):
    """A profile of one task whose SFT is to take 8 steps in three epochs, and whose RL a few updates of two."""
    profile = tiny_profile(folder, key, init_steps=5)
    study = profile.study(key)
    return with_study(
        profile,
        sft=replace(study.sft, examples=12, batch_size=4, group_by_length=study.task.name == "navigation"),
        ppo=replace(study.ppo, episodes=2, attempts=1, epochs=2, max_new_tokens=4, minibatches=1),
    )


def budget(profile, study, steps):
    """Training compute of `steps` steps of SFT."""
    policy = load_policy(study.foundation)
    tokens = sft.tokens_per_example(policy, fork.demonstrations(profile, study))
    return 6 * policy.parameters_count * study.sft.batch_size * tokens * steps


@pytest.fixture(scope="module")
def prepared(tiny_folder, vision_folder, tmp_path_factory, reaper):
    """A home for each task in which there are demonstrations and an Init, its profile with a budget of 8 steps, and how
    many file operations its Init took."""
    homes = {}
    for key, task in TASKS.items():
        home = tmp_path_factory.mktemp(key)
        profile = small_profile(key, vision_folder if task.modality == "image" else tiny_folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "HOME", home)
            profile = with_study(profile, fork_flops=budget(profile, profile.study(key), 8))
            operations = reaper.run(partial(fork.train, Run(profile, key, "init")), home)
        homes[key] = home, profile, operations
    return homes


def result(folder):
    """What a run leaves: weights, tokens counted, log. What serves to continue is left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "training" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("key", TASKS)
def test_a_kill_at_any_file_operation_changes_nothing(key, stage, prepared, reaper, tmp_path, monkeypatch):
    start, profile, operations = prepared[key]
    run = Run(profile, key, stage)

    def home(name, emptied=stage == "init"):
        here = tmp_path / name
        shutil.copytree(start, here, copy_function=os.link)
        monkeypatch.setattr(paths, "HOME", here)
        if emptied:
            shutil.rmtree(run.folder)
        return here

    whole = home("whole", emptied=False)
    if stage != "init":
        operations = reaper.run(lambda: fork.train(run), whole)
    expected = result(run.folder)
    assert any(name.endswith("model.safetensors") for name in expected) and operations > 20
    points = range(1, operations + 1)
    if not os.environ.get("SFTRL_EVERY_KILL"):
        points = [int(share * operations) for share in KILLS]
    resumed = []
    last_complete = sft.last_complete
    monkeypatch.setattr(sft, "last_complete", lambda folder: resumed.append(last_complete(folder)) or resumed[-1])
    for dies_at in points:
        here = home(f"killed-{dies_at}")
        with pytest.raises(Killed):
            reaper.run(lambda: fork.train(run), here, dies_at)
        fork.train(run)
        found = result(run.folder)
        assert found.keys() == expected.keys(), f"killed at operation {dies_at} of {operations}"
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, f"killed at operation {dies_at} of {operations}: {differing}"
        shutil.rmtree(here)
    if stage == "sft":
        ends_of_epochs = {"checkpoint-3", "checkpoint-6"}
        assert ends_of_epochs <= {checkpoint.name for checkpoint in resumed if checkpoint}


def test_an_empty_trainer_state_blocks_no_restart(prepared, tmp_path, monkeypatch):
    """A kill while it is being written leaves it empty."""
    start, profile, _ = prepared["gp-l"]
    shutil.copytree(start, tmp_path / "home")
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    run = Run(profile, "gp-l", "init")
    before = result(run.folder)
    (run.folder / "finished").unlink()
    [newest] = run.folder.glob("training/checkpoint-5")
    (newest / "trainer_state.json").write_text("")
    fork.train(run)
    assert result(run.folder) == before


def test_a_kill_while_a_folder_is_set_aside_loses_nothing(reaper, tmp_path):
    """Whichever settings come next, what was made with the first ones is there for them and for no others."""
    first, second = {"lr": 1}, {"lr": 2}

    def made(home):
        folder = claim(home / "runs" / "run", first)
        (folder / "model").write_text("first")
        (claim(folder, second) / "model").write_text("second")
        return folder

    def back(folder):
        claim(folder, first)

    operations = reaper.run(lambda: back(made(tmp_path / "whole")), tmp_path / "whole")
    assert operations > 10
    for dies_at in range(1, operations + 1):
        home = tmp_path / f"killed-{dies_at}"
        with pytest.raises(Killed):
            reaper.run(lambda home=home: back(made(home)), home, dies_at)
        folder = home / "runs" / "run"
        written = {path.read_text() for path in home.rglob("model")}
        for settings, content in ((second, "second"), (first, "first"), (second, "second")):
            model = claim(folder, settings) / "model"
            assert (model.read_text() if model.exists() else None) == (content if content in written else None)
