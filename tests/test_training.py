"""The fork end to end on a tiny random model: reproducible, killable, at equal compute, and clear about bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths, tables
from sftrl_lib.evaluation import measurements
from sftrl_lib.experiments import MAIN, OVERFITTED, Arm, Experiment
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points.task import GP_L, PointsTask
from sftrl_lib.profiles import get_profile
from sftrl_lib.runs import Run, main_run
from sftrl_lib.seeds import TEST_EPISODES, TEST_SAMPLING, stream
from sftrl_lib.training import fork, ppo, sft
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.loop import Progress
from sftrl_lib.training.snapshots import snapshots

METHODS = ("init", "sft", "rl")


def run_of(profile, method, *more, seed=0):
    return Run(profile, "gp-l", method, *more, seed=seed)


def reproduce(profile):
    """Everything that main's tables are made of."""
    for method in METHODS:
        fork.train(run_of(profile, method))
        measurements.evaluate(run_of(profile, method))


def outcome(home):
    """The tables, transcripts, weights and logs below `home`, as bytes; what serves to continue is left out."""
    kept = {".csv", ".jsonl", ".safetensors", ".json"}
    left_out = {"training", "data"}
    files = [p for p in sorted(home.rglob("*")) if p.suffix in kept and not left_out & set(p.parts)]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def profile(tiny_folder):
    return tiny_profile(tiny_folder)


@pytest.fixture(scope="module")
def study(profile):
    return profile.study("gp-l")


@pytest.fixture(scope="module")
def uninterrupted(profile, tmp_path_factory):
    """A home in which main has run through, and every batch of rollouts that its RL branch trained on."""
    home, played = tmp_path_factory.mktemp("home"), []

    def watched(*args, **kwargs):
        played.append(original(*args, **kwargs))
        return played[-1]

    original = ppo.rollout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        patch.setattr(ppo, "rollout", watched)
        reproduce(profile)
    return home, played


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


# The same again


def test_same_seed_same_tables(profile, study, uninterrupted, home):
    reproduce(profile)
    expected = outcome(uninterrupted[0])
    assert outcome(home) == expected
    assert sum(name.endswith("metrics.csv") for name in expected) == 3
    assert sum(name.endswith("model.safetensors") for name in expected) == 2 + 2 * study.checkpoints


def no_training(monkeypatch):
    for module, name in ((sft, "train"), (sft, "train_steps"), (ppo, "train")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: pytest.fail("trained again"))


def test_what_is_finished_is_not_done_again(profile, uninterrupted, monkeypatch):
    home, _ = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    no_training(monkeypatch)
    monkeypatch.setattr(measurements, "play", lambda *args: pytest.fail("played again"))
    reproduce(profile)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_another_seed_is_another_run(profile, uninterrupted, home):
    fork.train(run_of(profile, "init", seed=1))
    [model] = home.rglob("step-00000/model.safetensors")
    [same] = (uninterrupted[0]).rglob("gp-l-init-s0/step-00000/model.safetensors")
    assert model.read_bytes() != same.read_bytes()


# Killed

CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from tiny_models import tiny_profile
from sftrl_lib.runs import Run, main_run
from sftrl_lib.training import fork, ppo, sft
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

ppo.learn = mortal(ppo.learn)
sft._Snapshots.on_step_end = mortal(sft._Snapshots.on_step_end)
sft.train = partial(sft.train, save_every=4)
fork.train(Run(tiny_profile({model!r}), "gp-l", method))
"""


def test_a_killed_run_goes_on_as_if_nothing_had_happened(profile, study, uninterrupted, home, monkeypatch):
    """kill -9 in the middle of SFT and of PPO, in processes of their own; then the same bytes as without."""
    fork.train(run_of(profile, "init"))
    code = CHILD.format(tests=os.path.dirname(__file__), model=study.foundation)
    environment = {**os.environ, "SFTRL_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    for method, dies_at in (("sft", 10), ("rl", 9)):
        command = [sys.executable, "-c", code, method, str(dies_at)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        folder = run_of(profile, method).folder
        assert not (folder / "finished").exists() and (folder / "training").is_dir()
        extra = method == "rl"  # where the paper's lambda ends it
        assert 0 < len(list(folder.glob("step-*"))) < study.checkpoints + extra
    assert progress(run_of(profile, "rl").folder) == 5
    steps, original = [], sft._Snapshots.on_step_end

    def watched(self, args, state, control, **kwargs):
        steps.append(state.global_step)
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(sft._Snapshots, "on_step_end", watched)
    reproduce(profile)
    assert steps[0] == 9, "SFT goes on after its last checkpoint, step 8"
    assert outcome(home) == outcome(uninterrupted[0])


def progress(folder):
    return json.loads((folder / "training" / "progress.json").read_text())["progress"]["update"]


# Other settings


def test_a_trainer_does_not_go_on_with_another_configuration(study, home):
    """A trainer's own checkpoint belongs to one configuration, seed and budget."""
    policy = load_policy(study.foundation)

    def go(lr=1e-3, seed=0, budget=1e7):
        config, compute = replace(study.ppo, lr=lr), Compute(policy.parameters_count)
        ppo.train(Branch(policy, GP_L, config, home / "alone", compute, budget, seed=seed))

    go()
    for other in ({"lr": 2e-3}, {"seed": 1}, {"budget": 2e7}):
        with pytest.raises(CheckpointError, match="another configuration; remove it or choose another folder.$"):
            go(**other)


def test_a_run_with_other_settings_is_set_aside_and_comes_back(profile, study, home, monkeypatch, capsys):
    """Two settings never mix in a folder; Init, which is the same for both, is made once."""
    first = with_study(profile, fork_flops=1e8)
    second = with_study(first, ppo=replace(study.ppo, lr=2e-3))
    fork.train(run_of(first, "rl"))
    made = outcome(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "train_steps", lambda *args, **kwargs: pytest.fail("made Init again"))
        fork.train(run_of(second, "rl"))
    [aside] = (home / "build" / "tiny" / "replaced").iterdir()
    assert outcome(aside) == outcome_of("gp-l-rl-main-s0", made)
    assert f"gp-l-rl-main-s0 was made with other settings (config.lr: default -> 0.002); it is kept in {aside}.\n" in (
        capsys.readouterr().out
    )
    assert outcome_of("gp-l-rl-main-s0", outcome(home)) != outcome(aside)
    no_training(monkeypatch)
    fork.train(run_of(first, "rl"))
    assert {name: data for name, data in outcome(home).items() if "replaced" not in name} == made
    fork.train(run_of(second, "rl"))
    assert "was there from before and is used again." in capsys.readouterr().out


def outcome_of(run, everything):
    """The part of an `outcome` that lies in the folder of a run."""
    below = f"build/tiny/runs/{run}/"
    return {name.removeprefix(below): data for name, data in everything.items() if name.startswith(below)}


def test_another_init_is_another_branch(profile, home):
    """What a branch starts from is among what it was made with."""
    small = with_study(profile, fork_flops=1e8)
    fork.train(run_of(small, "sft"))
    fork.train(run_of(with_study(small, init_steps=2), "sft"))
    aside = {path.name.rpartition("-")[0] for path in (home / "build" / "tiny" / "replaced").iterdir()}
    assert aside == {"gp-l-init-s0", "gp-l-sft-main-s0"}


def test_demonstrations_are_made_again_when_there_are_to_be_more(profile, study, home):
    more = with_study(profile, sft=replace(study.sft, examples=70))
    for made in (profile, more, profile):
        assert len(fork.demonstrations(made, made.study("gp-l"))) == made.study("gp-l").sft.examples


def test_a_profile_says_how_gradients_are_computed(profile, tmp_path, monkeypatch):
    """In both branches: activation checkpointing gives the same bytes, bfloat16 products other float32 weights."""
    small, ends, loaded, original = with_study(profile, fork_flops=1e8), [], [], fork._load

    def watched(*args, **kwargs):
        loaded.append(original(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(fork, "_load", watched)
    for change in ({}, {"gradient_checkpointing": True}, {"dtype": "mixed"}):
        loaded.clear()
        monkeypatch.setattr(paths, "HOME", tmp_path / str(len(ends)))
        runs = [run_of(replace(small, **change), method) for method in ("sft", "rl")]
        ends.append([load_file(fork.train(run)[-1].folder / "model.safetensors") for run in runs])
        states = {(policy.decoder.layers[0].gradient_checkpointing, policy.mixed) for policy in loaded}
        assert states == {("gradient_checkpointing" in change, "dtype" in change)}, "after training as well"
    for plain, recomputed, mixed in zip(*ends, strict=True):
        assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
        assert {weight.dtype for weight in mixed.values()} == {torch.float32}
        moved = max((plain[name] - mixed[name]).abs().max().item() for name in plain)
        assert 0 < moved < 0.1


# Compute


def test_flops_by_hand():
    """X = 6 N (D_init + D_train) + 2 N D_buffer, paper C.3."""
    spent = Compute(parameters=1_000, init_tokens=10, trained_tokens=200, buffer_tokens=3_000)
    assert spent.init_flops == 60_000
    assert spent.fork_flops == 1_200_000 + 6_000_000
    assert spent.flops == 7_260_000
    assert spent.measured_lambda == 15
    assert spent.by_lambda(6) == 60_000 + 1_200_000 + 2 * 1_000 * 6 * 200 and spent.by_lambda(None) == spent.flops
    assert Compute(1_000, 10, 200).by_lambda(6) == 1_260_000, "without rollouts there is nothing to estimate"
    assert Compute(**spent.to_dict()) == spent and Compute(7).flops == 0


def test_the_accounts_of_rl(profile, study, uninterrupted, monkeypatch):
    """Counted again from the rollouts themselves and from the table."""
    home, played = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    end = snapshots(run_of(profile, "rl").folder)[-1]
    conversations = [c for episodes in played for episode in episodes for c in episode.conversations]
    assert end.step == len(played) and len(played[0]) == study.ppo.episodes
    hands = {tuple(tuple(episode.info["cards"]) for episode in episodes) for episodes in played}
    assert len(hands) == len(played), "every update deals its own hands"
    assert end.compute.trained_tokens == study.ppo.epochs * sum(len(c.ids) for c in conversations)
    assert end.compute.buffer_tokens == sum(len(c.ids) - 1 for c in conversations)
    parameters = load_policy(study.foundation).model.num_parameters()
    init = snapshots(run_of(profile, "init").folder)[-1].compute
    assert end.compute.parameters == init.parameters == parameters
    assert end.compute.init_tokens == init.init_tokens > 0 and init.trained_tokens == init.buffer_tokens == 0
    frame = measurements.evaluate(run_of(profile, "rl"))
    tokens = init.init_tokens + end.compute.trained_tokens
    expected = 6.0 * parameters * tokens + 2.0 * parameters * end.compute.buffer_tokens
    assert set(frame[frame.step == end.step].train_flops) == {expected}


def test_both_branches_get_the_same_compute(profile, study, uninterrupted, monkeypatch):
    """Within one optimiser step (SFT) or one update (RL) of the study's budget."""
    home, played = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    tuned, rl = (snapshots(run_of(profile, method).folder) for method in ("sft", "rl"))
    n = rl[-1].compute.parameters
    largest_update = max(sum(len(c.ids) for e in episodes for c in e.conversations) for episodes in played)
    over = rl[-1].compute.fork_flops - study.fork_flops
    assert 0 <= over <= n * (6 * study.ppo.epochs + 2) * largest_update
    one_step = tuned[-1].compute.fork_flops / tuned[-1].step
    assert abs(tuned[-1].compute.fork_flops - study.fork_flops) <= one_step
    for found, extra in ((tuned, 0), (rl, 1)):
        assert len(found) == study.checkpoints + extra
        shares = [snapshot.compute.fork_flops / study.fork_flops for snapshot in found[extra:]]
        assert shares == pytest.approx([0.5, 1.0], abs=0.1)
    assert rl[-1].step > 8 and tuned[-1].step > 10, "the budgets of the tests mean something"


def test_rl_keeps_the_checkpoint_at_which_the_papers_lambda_ends_it(profile, study, uninterrupted, monkeypatch):
    """It is tested as the end is, and its compute by that account is the budget of both branches."""
    home, _ = uninterrupted
    monkeypatch.setattr(paths, "HOME", home)
    found, factor = snapshots(run_of(profile, "rl").folder), study.task.paper_lambda
    spent = [one.compute.by_lambda(factor) - one.compute.init_flops for one in found]
    before, here = found[0], found[0].compute
    assert spent[0] >= study.fork_flops > spent[0] * (1 - 1.5 / before.step)
    assert spent[0] == pytest.approx((6 + 2 * factor) * here.parameters * here.trained_tokens)
    assert all(one > spent[0] for one in spent[1:])
    frame = measurements.evaluate(run_of(profile, "rl"))
    ends = frame[frame.n == study.evaluation.episodes_end]
    assert set(ends[ends.setting == "sampled"].step) == {before.step, found[-1].step}
    assert set(tables.paper_ends(tables.validate(frame[frame.setting == "sampled"])).step) == {before.step}
    tuned = tables.validate(measurements.evaluate(run_of(profile, "sft")))
    assert (tuned.paper_flops == tuned.train_flops).all() and set(tuned.measured_lambda) == {0}
    assert set(frame.measured_lambda) == {one.compute.measured_lambda for one in found}


# The other branches


def test_rl_without_init(profile, home):
    """Starts at the foundation model, needs no Init and costs none."""
    small = with_study(profile, fork_flops=2e8)
    run = run_of(small, "rl_no_init", "no_init", "lr=0.0002")
    found = fork.train(run)
    assert found[-1].compute.init_tokens == 0 and "lr0.0002" in str(found[-1].folder)
    assert not run_of(small, "init").folder.exists() and not paths.data("tiny").exists()
    frame = measurements.evaluate(run)
    assert set(frame.setting) == {"lr=0.0002"} and set(frame.method) == {"rl_no_init"}


def test_rl_from_an_overfitted_checkpoint(profile, study, home):
    """It begins at the end of that SFT, whose compute counts as spent before, and has a budget of its own.

    The SFT is made first where it is not there, and Init before it.
    """
    sft_arm, rl_arm = OVERFITTED.arms
    overfitted = replace(OVERFITTED, arms=(
        replace(sft_arm, settings=({"lr": 0.01},)), replace(rl_arm, after=("sft", {"lr": 0.01}))
    ))  # fmt: skip
    small = with_study(profile, fork_flops=study.fork_flops / 4, experiments=(*study.experiments[:1], overfitted))
    tuned, rl = run_of(small, "sft", "overfitted", "lr=0.01"), run_of(small, "rl", "overfitted", "lr=1e-06")
    found = fork.train(rl)
    [init], [end] = snapshots(run_of(small, "init").folder), snapshots(tuned.folder)
    assert end.compute.init_tokens == init.compute.init_tokens > 0
    assert found[0].compute.init_tokens == end.compute.init_tokens + end.compute.trained_tokens
    assert found[-1].compute.fork_flops >= rl.study.fork_flops
    before, begin, after = (load_policy(snapshot.folder).model.state_dict() for snapshot in (init, end, found[0]))
    for name, weights in begin.items():
        assert (after[name] - weights).abs().max() < 1e-3, "at such a rate RL hardly moves"
    assert max((begin[name] - before[name]).abs().max() for name in begin) > 1e-2, "SFT at its rate does"
    frame = measurements.evaluate(tuned)
    assert frame.step.nunique() == 1 and set(frame.experiment) == {"overfitted"}


def test_a_branch_makes_its_init_if_there_is_none(profile, uninterrupted, home):
    small = with_study(profile, fork_flops=1e8)
    fork.train(run_of(small, "rl"))
    found = run_of(small, "init").folder.relative_to(home) / "step-00000" / "model.safetensors"
    assert (home / found).read_bytes() == (uninterrupted[0] / found).read_bytes()


def test_attempts_kl_and_suboptimal_data(profile, study, home, monkeypatch):
    config = replace(study.ppo, kl_coef=0.1, ratio="sequence")
    small = with_study(profile, fork_flops=study.fork_flops / 6, ppo=config)
    limits = []
    original = PointsTask.training_env
    monkeypatch.setattr(PointsTask, "training_env", lambda task, n: limits.append(n) or original(task, n))
    run = run_of(small, "rl", "attempts", "attempts=3")
    fork.train(run)
    assert set(limits) == {3}
    log = json.loads((run.folder / "log.json").read_text())
    assert log and all("kl_to_init" in entry for entry in log)
    [*_, end] = fork.train(run_of(small, "sft_suboptimal", "suboptimal"))
    assert end.compute.fork_flops == pytest.approx(run.study.fork_flops, rel=0.5)
    assert (paths.data("tiny") / "gp-l-suboptimal").is_dir()


def test_no_seed_of_training_is_one_of_a_test():
    """NumPy pads with zeros: [1, 0] and [1, 0, 0] were one stream, so that seed 1 trained on the tests' hands."""
    trained = {seed for run in range(6) for update in range(6) for seed in Progress(update, 0.0).seeds(run, 50)}
    for purpose in (TEST_EPISODES, TEST_SAMPLING):
        for seed in range(6):
            for split in range(4):
                assert not trained & set(stream(purpose, seed, split, count=200))


def test_rl_never_meets_a_heldout_hand():
    from sftrl_lib.points import is_heldout

    env = GP_L.training_env(5)
    infos = [env.reset(seed=i)[1] for i in range(300)]
    assert not any(is_heldout(info["numbers"]) for info in infos)
    assert {n for info in infos for n in info["numbers"]} == set(range(1, 11))


def test_models_are_ready_to_play(profile, uninterrupted, monkeypatch):
    monkeypatch.setattr(paths, "HOME", uninterrupted[0])
    chat = [{"role": "user", "content": "1+1"}]
    init, tuned, rl = (fork.final_policy(run_of(profile, method)) for method in METHODS)
    assert init.prompt_ids(chat) == tuned.prompt_ids(chat)
    assert rl.value_head is not None


# Bad input


def sentence(error):
    message = str(error.value)
    return message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("run, words", [
    (("grpo", "main", ""), ("'grpo'", "init, sft, rl")),
    (("rl", "mian", ""), ("'mian'", "main, attempts, no_init, suboptimal")),
    (("init", "mian", ""), ("'mian'", "main, attempts, no_init, suboptimal")),
    (("rl_no_init", "overfitted", "lr=0.1"), ("'overfitted'", "sft and rl")),
    (("sft", "attempts", "attempts=3"), ("'attempts'", "rl", "'sft'")),
    (("rl", "sensitivity", ""), ("'sensitivity'", "nothing", "'rl'")),
    (("rl", "main", "lr=1"), ("no setting", "'lr=1'")),
    (("init", "main", "lr=1"), ("foundation and init_steps", "'lr'")),
    (("rl", "attempts", ""), ("'attempts=1'", "''")),
    (("rl", "attempts", "lr=1"), ("'attempts=1'", "'lr=1'")),
    (("rl", "attempts", "atempts=1"), ("'attempts=1'", "'atempts=1'")),
    (("rl", "attempts", "attempts=0"), ("PPOConfig.attempts", "whole number of at least 1", "got 0.")),
    (("rl", "attempts", "attempts=2.5"), ("PPOConfig.attempts", "whole number of at least 1", "got 2.5.")),
    (("rl", "attempts", "attempts=-1"), ("PPOConfig.attempts", "whole number of at least 1", "got -1.")),
    (("rl_no_init", "no_init", "lr=1.2.3"), ("'name=number;name=word'", "'lr=1.2.3'")),
    (("rl_no_init", "no_init", "lr=1e"), ("'name=number;name=word'", "'lr=1e'")),
    (("rl_no_init", "no_init", "lr=1;lr=2"), ("'name=number;name=word'", "'lr=1;lr=2'")),
    (("rl_no_init", "no_init", "lr=0"), ("PPOConfig.lr", "above 0", "got 0.0.")),
    (("rl_no_init", "no_init", "lr=nan"), ("PPOConfig.lr", "above 0", "got nan.")),
    (("sft_suboptimal", "suboptimal", "x"), ("no setting", "'x'")),
    (("sft", "sft_tuning", "lr=0.001"), ("'lr=0.0001;frozen=none'", "'lr=0.001'")),
    (("sft", "sft_tuning", "lr=0.001;frozen=eyes"), ("SFTConfig.frozen", "'vision+adapter'", "got 'eyes'.")),
])  # fmt: skip
def test_runs_that_no_experiment_knows(profile, home, run, words):
    with pytest.raises(ValueError) as error:
        run_of(profile, *run)
    assert all(word in str(error.value) for word in words) and sentence(error)
    assert not any(home.iterdir()), "an error comes before anything is written"


@pytest.mark.parametrize("key, seed, words", [
    ("chess", 0, ("'chess'", "gp-l, virl-l, gp-vl, virl-vl")),
    ("virl-l", 0, ("'tiny'", "'virl-l'", "it has gp-l")),
    *(("gp-l", seed, ("whole number from 0 to 2**32 - 1", repr(seed))) for seed in (-1, 1.0, True, 2**32, "0")),
])  # fmt: skip
def test_runs_that_cannot_be(profile, key, seed, words):
    with pytest.raises(ValueError) as error:
        Run(profile, key, "rl", seed=seed)
    assert all(word in str(error.value) for word in words) and sentence(error)


def test_a_changed_profile_needs_a_name_of_its_own():
    """Its runs would lie among those of the profile that is known by the name."""
    smoke = get_profile("smoke")
    with pytest.raises(ValueError, match="'smoke'; give this one a name of its own.*name='mine'") as error:
        run_of(replace(smoke, seeds=(9,)), "rl")
    assert sentence(error)
    assert run_of(replace(smoke, seeds=(9,), name="mine"), "rl").folder != run_of(smoke, "rl").folder


def test_a_kl_penalty_needs_init(profile, study):
    penalised = with_study(profile, ppo=replace(study.ppo, kl_coef=0.1))
    for method, experiment, setting in (("rl_no_init", "no_init", "lr=0.001"), ("rl", "overfitted", "lr=0.0003")):
        with pytest.raises(ValueError, match="kl_coef needs Init as the reference") as error:
            run_of(penalised, method, experiment, setting)
        assert sentence(error)


def test_settings_that_are_known(profile):
    """They are applied to what they are fields of; one that the experiment does not have will do as well."""
    assert run_of(profile, "rl", "attempts", "attempts=10").config.attempts == 10
    assert run_of(profile, "rl_no_init", "no_init", "lr=5e-05").config.lr == 5e-5
    tuned = run_of(profile, "sft", "sft_tuning", "lr=0.0010;frozen=vision")
    assert (tuned.config.lr, tuned.config.frozen, tuned.setting) == (1e-3, "vision", "lr=0.001;frozen=vision")
    assert run_of(profile, "rl").overrides == {}


def test_an_experiment_may_vary_what_init_depends_on(profile):
    """Each of its runs then starts from an Init of its own."""
    steps = Experiment("init_steps", "none", (Arm("sft", ({"init_steps": 1}, {"init_steps": 3})),))
    varied = with_study(profile, experiments=(MAIN, steps))
    short, same = (run_of(varied, "sft", "init_steps", f"init_steps={n}") for n in (1, 3))
    assert short.init.study.init_steps == 1 and short.init.folder != run_of(varied, "init").folder
    assert short.start == short.init and short.init.identity != run_of(varied, "init").identity
    assert main_run(short) is None and main_run(same) == run_of(varied, "sft")


def test_a_missing_foundation_model(profile, tiny_folder, home):
    """Is named, leaves nothing behind, and the run works once the model is there."""
    missing = with_study(profile, foundation=str(home / "models" / "later"), fork_flops=1e8)
    for run in (run_of(missing, "init"), run_of(missing, "rl_no_init", "no_init", "lr=0.1")):
        with pytest.raises(CheckpointError, match="later") as error:
            fork.train(run)
        assert sentence(error) and not any(home.iterdir())
    shutil.copytree(tiny_folder, home / "models" / "later")
    assert fork.train(run_of(missing, "init"))[0].compute.init_tokens > 0


def test_an_unknown_profile():
    with pytest.raises(ValueError, match="'huge'; use one of .*laptop") as error:
        get_profile("huge")
    assert sentence(error)


def test_checkpoints_of_other_settings_are_not_tested(profile, home):
    """They would be recorded as those of the new settings."""
    small = with_study(profile, fork_flops=1e8)
    fork.train(Run(small, "gp-l", "rl"))
    changed = with_study(small, ppo=replace(small.studies[0].ppo, clip=0.3))
    for use in (measurements.evaluate, fork.final_policy):
        with pytest.raises(CheckpointError, match="other settings .config.clip: default -> 0.3.; train it first"):
            use(Run(changed, "gp-l", "rl"))
