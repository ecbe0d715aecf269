"""The fork end to end on a tiny random model: reproducible, killable, at equal compute, and clear about bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny_models import tiny_study

from sftrl_lib import paths
from sftrl_lib.evaluation import measurements
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.profiles import get_profile
from sftrl_lib.tasks import GP_L
from sftrl_lib.training import branches, ppo, sft
from sftrl_lib.training.branches import (
    branch_folder,
    check_run,
    final_policy,
    init_folder,
    init_policy,
    make_init,
    train_branch,
)
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.ppo import train_ppo
from sftrl_lib.training.snapshots import snapshots

MAIN = ("sft", "rl")


def reproduce(study, seed=0):
    """Everything that main's tables are made of."""
    make_init(study, seed)
    measurements.evaluate_init(study, seed)
    for method in MAIN:
        train_branch(study, method, "main", "", seed)
        measurements.evaluate_branch(study, method, "main", "", seed)


def outcome(home):
    """The tables, transcripts, weights and logs below `home`, as bytes; what serves to continue is left out."""
    kept = {".csv", ".jsonl", ".safetensors", ".json"}
    left_out = {"training", "data"}
    files = [p for p in sorted(home.rglob("*")) if p.suffix in kept and not left_out & set(p.parts)]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def study(tiny_folder):
    return tiny_study(tiny_folder)


@pytest.fixture(scope="module")
def uninterrupted(study, tmp_path_factory):
    """A home in which main has run through, and every batch of rollouts that its RL branch trained on."""
    home, played = tmp_path_factory.mktemp("home"), []

    def watched(*args, **kwargs):
        played.append(original(*args, **kwargs))
        return played[-1]

    original = ppo.rollout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        patch.setattr(ppo, "rollout", watched)
        reproduce(study)
    return home, played


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


# The same again


def test_same_seed_same_tables(study, uninterrupted, home):
    reproduce(study)
    expected = outcome(uninterrupted[0])
    assert outcome(home) == expected
    assert sum(name.endswith("metrics.csv") for name in expected) == 3
    assert sum(name.endswith("model.safetensors") for name in expected) == 1 + 2 * study.checkpoints


def test_what_is_finished_is_not_done_again(study, uninterrupted, monkeypatch):
    home, _ = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    for name in ("train_sft", "train_ppo"):
        monkeypatch.setattr(branches, name, lambda *args, **kwargs: pytest.fail("trained again"))
    monkeypatch.setattr(measurements, "play", lambda *args: pytest.fail("played again"))
    reproduce(study)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_another_seed_is_another_run(study, uninterrupted, home):
    make_init(study, 1)
    [model] = home.rglob("step-00000/model.safetensors")
    [same] = (uninterrupted[0]).rglob("gp-l-init-s0/step-00000/model.safetensors")
    assert model.read_bytes() != same.read_bytes()


# Killed

CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from tiny_models import tiny_study
from sftrl_lib.training import branches, ppo, sft
from functools import partial

method, dies_at, done = sys.argv[1], int(sys.argv[2]), 0

def mortal(function):
    def call(*args, **kwargs):
        global done
        done += 1
        if done == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

ppo.update_policy = mortal(ppo.update_policy)
sft._Snapshots.on_step_end = mortal(sft._Snapshots.on_step_end)
branches.train_sft = partial(sft.train_sft, save_every=4)
branches.train_branch(tiny_study({model!r}), method, "main", "", 0)
"""


def test_a_killed_run_goes_on_as_if_nothing_had_happened(study, uninterrupted, home, monkeypatch):
    """kill -9 in the middle of SFT and of PPO, in processes of their own; then the same bytes as without."""
    make_init(study, 0)
    measurements.evaluate_init(study, 0)
    code = CHILD.format(tests=os.path.dirname(__file__), model=study.foundation)
    environment = {**os.environ, "SFTRL_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    for method, dies_at in (("sft", 10), ("rl", 9)):
        command = [sys.executable, "-c", code, method, str(dies_at)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        folder = branch_folder(study, method, "main", "", 0)
        assert not (folder / "finished").exists() and (folder / "training").is_dir()
        assert 0 < len(list(folder.glob("step-*"))) < study.checkpoints
    assert progress(branch_folder(study, "rl", "main", "", 0)) == 5
    steps, original = [], sft._Snapshots.on_step_end

    def watched(self, args, state, control, **kwargs):
        steps.append(state.global_step)
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(sft._Snapshots, "on_step_end", watched)
    for method in MAIN:
        train_branch(study, method, "main", "", 0)
        measurements.evaluate_branch(study, method, "main", "", 0)
    assert steps[0] == 9, "SFT goes on after its last checkpoint, step 8"
    assert outcome(home) == outcome(uninterrupted[0])


def progress(folder):
    return json.loads((folder / "training" / "progress.json").read_text())["progress"]["update"]


def test_a_run_does_not_go_on_with_another_configuration(study, home):
    """Neither PPO's own checkpoint nor a branch's folder mixes two configurations."""
    small = replace(study, fork_flops=3e8)
    make_init(small, 0)
    train_branch(small, "rl", "main", "", 0)
    with pytest.raises(CheckpointError, match="another configuration"):
        train_branch(study, "rl", "main", "", 0)
    policy = load_policy(study.foundation)
    compute = Compute(policy.parameters_count)

    def run(lr):
        config = replace(study.ppo, lr=lr)
        train_ppo(policy, lambda: branches.training_env(study.task, 2), config, compute, 1e7, 1, home / "alone", 0)

    run(1e-3)
    with pytest.raises(CheckpointError, match="another configuration"):
        run(2e-3)


# Compute


def test_flops_by_hand():
    """X = 6 N (D_init + D_train) + 2 N D_buffer, paper C.3."""
    spent = Compute(parameters=1_000, init_tokens=10, trained_tokens=200, buffer_tokens=3_000)
    assert spent.init_flops == 60_000
    assert spent.fork_flops == 1_200_000 + 6_000_000
    assert spent.flops == 7_260_000
    assert spent.measured_lambda == 15
    assert Compute(**spent.to_dict()) == spent and Compute(7).flops == 0


def test_the_accounts_of_rl(study, uninterrupted, monkeypatch):
    """Counted again from the rollouts themselves and from the table."""
    home, played = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    end = snapshots(branch_folder(study, "rl", "main", "", 0))[-1]
    conversations = [c for episodes in played for episode in episodes for c in episode.conversations]
    assert end.step == len(played) and len(played[0]) == study.ppo.episodes
    hands = {tuple(tuple(episode.info["cards"]) for episode in episodes) for episodes in played}
    assert len(hands) == len(played), "every update deals its own hands"
    assert end.compute.trained_tokens == study.ppo.epochs * sum(len(c.ids) for c in conversations)
    assert end.compute.buffer_tokens == sum(len(c.ids) - 1 for c in conversations)
    parameters = load_policy(study.foundation).model.num_parameters()
    init = snapshots(init_folder(study, 0))[-1].compute
    assert end.compute.parameters == init.parameters == parameters
    assert end.compute.init_tokens == init.init_tokens > 0 and init.trained_tokens == init.buffer_tokens == 0
    frame = measurements.evaluate_branch(study, "rl", "main", "", 0)
    tokens = init.init_tokens + end.compute.trained_tokens
    expected = 6.0 * parameters * tokens + 2.0 * parameters * end.compute.buffer_tokens
    assert set(frame[frame.step == end.step].train_flops) == {expected}


def test_both_branches_get_the_same_compute(study, uninterrupted, monkeypatch):
    """Within one optimiser step (SFT) or one update (RL) of the study's budget."""
    home, played = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    tuned, rl = (snapshots(branch_folder(study, method, "main", "", 0)) for method in MAIN)
    n = rl[-1].compute.parameters
    largest_update = max(sum(len(c.ids) for e in episodes for c in e.conversations) for episodes in played)
    over = rl[-1].compute.fork_flops - study.fork_flops
    assert 0 <= over <= n * (6 * study.ppo.epochs + 2) * largest_update
    one_step = tuned[-1].compute.fork_flops / tuned[-1].step
    assert abs(tuned[-1].compute.fork_flops - study.fork_flops) <= one_step
    for found in (tuned, rl):
        assert len(found) == study.checkpoints
        shares = [snapshot.compute.fork_flops / study.fork_flops for snapshot in found]
        assert shares == pytest.approx([0.5, 1.0], abs=0.1)
    assert rl[-1].step > 8 and tuned[-1].step > 10, "the budgets of the tests mean something"


# The other branches


def test_rl_without_init(study, home):
    """Starts at the foundation model, needs no Init and costs none."""
    small = replace(study, fork_flops=2e8)
    found = train_branch(small, "rl_no_init", "no_init", "lr=0.0002", 0)
    assert found[-1].compute.init_tokens == 0 and "lr0.0002" in str(found[-1].folder)
    assert not init_folder(small, 0).exists()
    frame = measurements.evaluate_branch(small, "rl_no_init", "no_init", "lr=0.0002", 0)
    assert set(frame.setting) == {"lr=0.0002"} and set(frame.method) == {"rl_no_init"}


def test_rl_from_an_overfitted_checkpoint(study, home):
    """It begins at the end of that SFT, whose compute counts as spent before, and has a budget of its own."""
    small = replace(study, fork_flops=study.fork_flops / 4, overfit_lr=0.01)
    with pytest.raises(CheckpointError, match="run the step that makes it first"):
        train_branch(small, "rl", "overfitted", "lr=1e-06", 0)
    [end] = train_branch(small, "sft", "overfitted", "lr=0.01", 0)
    found = train_branch(small, "rl", "overfitted", "lr=1e-06", 0)
    assert found[0].compute.init_tokens == end.compute.init_tokens + end.compute.trained_tokens
    assert found[-1].compute.fork_flops >= small.fork_flops
    begin, after = (load_policy(snapshot.folder).model.state_dict() for snapshot in (end, found[0]))
    init = init_policy(small, 0).model.state_dict()
    for name, weights in begin.items():
        assert (after[name] - weights).abs().max() < 1e-3, "at such a rate RL hardly moves"
    assert max((begin[name] - init[name]).abs().max() for name in begin) > 1e-2, "SFT at its rate does"
    frame = measurements.evaluate_branch(small, "sft", "overfitted", "lr=0.01", 0)
    assert frame.step.nunique() == 1 and set(frame.experiment) == {"overfitted"}


def test_a_branch_makes_its_init_if_there_is_none(study, uninterrupted, home):
    train_branch(replace(study, fork_flops=1e8), "rl", "main", "", 0)
    found = init_folder(study, 0).relative_to(home) / "step-00000" / "model.safetensors"
    assert (home / found).read_bytes() == (uninterrupted[0] / found).read_bytes()


def test_attempts_kl_and_suboptimal_data(study, home, monkeypatch):
    small = replace(study, fork_flops=study.fork_flops / 6, ppo=replace(study.ppo, kl_coef=0.1, ratio="sequence"))
    make_init(small, 0)
    limits = []
    original = branches.training_env
    monkeypatch.setattr(branches, "training_env", lambda task, n: limits.append(n) or original(task, n))
    train_branch(small, "rl", "attempts", "attempts=3", 0)
    assert set(limits) == {3}
    log = json.loads((branch_folder(small, "rl", "attempts", "attempts=3", 0) / "log.json").read_text())
    assert log and all("kl_to_init" in entry for entry in log)
    [*_, end] = train_branch(small, "sft_suboptimal", "suboptimal", "", 0)
    assert end.compute.fork_flops == pytest.approx(small.fork_flops, rel=0.5)
    assert (paths.data(small.profile) / "gp-l-suboptimal").is_dir()


def test_rl_never_meets_a_heldout_hand():
    from sftrl_lib.points import is_heldout

    env = branches.training_env(GP_L, 5)
    infos = [env.reset(seed=i)[1] for i in range(300)]
    assert not any(is_heldout(info["numbers"]) for info in infos)
    assert {n for info in infos for n in info["numbers"]} == set(range(1, 11))


def test_models_are_ready_to_play(study, uninterrupted, monkeypatch):
    monkeypatch.setattr(paths, "HOME", uninterrupted[0])
    chat = [{"role": "user", "content": "1+1"}]
    assert init_policy(study, 0).prompt_ids(chat) == final_policy(study, "sft", 0).prompt_ids(chat)
    assert final_policy(study, "rl", 0).value_head is not None


# Bad input


def sentence(error):
    message = str(error.value)
    return message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("run, words", [
    (("grpo", "main", ""), ("'grpo'", "sft, rl")),
    (("rl", "mian", ""), ("'mian'", "main, attempts, no_init, suboptimal")),
    (("rl_no_init", "overfitted", "lr=0.1"), ("'overfitted'", "sft and rl")),
    (("sft", "attempts", "attempts=3"), ("'attempts'", "rl", "'sft'")),
    (("rl", "main", "lr=1"), ("no setting", "'lr=1'")),
    (("rl", "attempts", ""), ("'attempts=1'", "''")),
    (("rl", "attempts", "lr=1"), ("'attempts=1'", "'lr=1'")),
    (("rl", "attempts", "attempts=0"), ("'attempts=1'", "'attempts=0'")),
    (("rl", "attempts", "attempts=2.5"), ("'attempts=1'", "'attempts=2.5'")),
    (("rl", "attempts", "attempts=-1"), ("'attempts=1'", "'attempts=-1'")),
    (("rl_no_init", "no_init", "lr=1.2.3"), ("'lr=0.001'", "'lr=1.2.3'")),
    (("rl_no_init", "no_init", "lr=1e"), ("'lr=0.001'", "'lr=1e'")),
    (("rl_no_init", "no_init", "lr=0"), ("'lr=0.001'", "'lr=0'")),
    (("sft_suboptimal", "suboptimal", "x"), ("no setting", "'x'")),
    (("sft", "sft_tuning", "lr=0.001"), ("'lr=0.001;frozen=none'", "'lr=0.001'")),
    (("sft", "sft_tuning", "lr=0.001;frozen=eyes"), ("'lr=0.001;frozen=none'", "frozen=eyes")),
])  # fmt: skip
def test_runs_that_no_experiment_knows(study, home, run, words):
    for call in (check_run, lambda *r: train_branch(study, *r, 0)):
        with pytest.raises(ValueError) as error:
            call(*run)
        assert all(word in str(error.value) for word in words) and sentence(error)
    with pytest.raises(ValueError):
        measurements.evaluate_branch(study, *run, 0)
    assert not any(home.iterdir()), "an error comes before anything is written"


def test_settings_that_are_known():
    assert check_run("rl", "attempts", "attempts=10") == {"attempts": 10}
    assert check_run("rl_no_init", "no_init", "lr=5e-05") == {"lr": 5e-5}
    assert check_run("rl", "main") == {}


def test_a_missing_foundation_model(study, tiny_folder, home):
    """Is named, leaves nothing behind, and the run works once the model is there."""
    missing = replace(study, foundation=str(home / "models" / "later"), fork_flops=1e8)
    for attempt in (lambda: make_init(missing, 0), lambda: train_branch(missing, "rl_no_init", "no_init", "lr=0.1", 0)):
        with pytest.raises(CheckpointError, match="later") as error:
            attempt()
        assert sentence(error) and not any(home.iterdir())
    shutil.copytree(tiny_folder, home / "models" / "later")
    assert make_init(missing, 0).compute.init_tokens > 0


def test_an_unknown_profile():
    with pytest.raises(ValueError, match="'huge'.*smoke, laptop") as error:
        get_profile("huge")
    assert sentence(error)
