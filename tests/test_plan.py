"""The plan of a profile: its formulas by hand, beside a measurement, and for the paper's own scale."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig

from sftrl_lib import paths, plan
from sftrl_lib.plan import MACHINES, Lengths, Machine, Planner, Shape
from sftrl_lib.profiles import PROFILES
from sftrl_lib.runs import Run

PAPER = PROFILES["paper"]
SHAPE = Shape(1_000, layers=2, hidden=8, inner=16, queries=8, keys=4, vocabulary=50)
SLOW = Machine("slow", memory=1e6, flops=1e9, flops32=1e8, bandwidth=1e6)


def test_the_shape_of_a_model_is_counted_without_its_weights():
    config = LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    by_hand = 50 * 8 + 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16 + 2 * 8) + 8
    assert Shape.of(config) == Shape(by_hand, 2, 8, 16, 8, 4, 50)


def test_memory_by_hand():
    """Two GPUs: 64 rows each, 100 learnt tokens at a time."""
    profile = replace(PAPER, name="checked", micro_batch_tokens=100, gradient_checkpointing=False)
    study, lengths = profile.studies[0], Lengths(100, 20, 30, 1, True)
    study = replace(study, ppo=replace(study.ppo, episodes=128, attempts=2, max_new_tokens=50))
    found = Planner(profile, SLOW, gpus=2).memory(study, SHAPE, lengths)
    slots = 100 + 2 * 20 + 30 + 50  # longer than 100, so that is what is learnt from
    assert found.states == 16 * 1_000 / 2 and found.copy == 2 * 1_000
    assert found.cache == 2 * 2 * 4 * 2 * 64 * slots
    assert found.activations == slots * 2 * (24 * 8 + 2 * (2 * 8 + 2 * 4 + 4 * 16))
    assert found.logits == 4 * 4 * slots * 50
    assert found.loading == 6 * 1_000 and found.total == sum((found.states, found.copy, found.cache, found.activations,
                                                              found.logits))  # fmt: skip
    assert replace(found, loading=1e9).total == 1e9
    whole = Planner(profile, SLOW, gpus=2, shared=False).memory(study, SHAPE, lengths)
    assert whole.states == 16 * 1_000 and whole.copy == 0 and whole.cache == 2 * found.cache  # float32


def test_hours_by_hand():
    run = Run(PAPER, "gp-l", "sft")
    found = Planner(PAPER, MACHINES["h100-80gb"], gpus=8, mfu=0.5).estimate(run, SHAPE, Lengths(100, 20, 30, 1, True))
    assert found.hours == pytest.approx(1e19 * 4 / 3 / (8 * 989e12 * 0.5) / 3600)
    assert found.steps == -(-(10**19) // (6 * 1_000 * 128 * 120))
    init = Planner(PAPER, MACHINES["h100-80gb"], gpus=8).estimate(run.init, SHAPE, Lengths(100, 20, 30, 1, True))
    assert init.steps == 400 and init.flops == 400 * 6 * 1_000 * 128 * 120


def test_what_rl_spends_is_its_budget():
    """Updates of learning (6 N) and reading (2 N) add up to the branch's compute, to within one update."""
    run, lengths = Run(PAPER, "gp-l", "rl"), Lengths(300, 60, 0, 1, True)
    shape = replace(SHAPE, parameters=10**10)
    planner = Planner(replace(PAPER, name="checked", gradient_checkpointing=False), MACHINES["h100-80gb"], 8)
    found = planner.estimate(run, shape, lengths)
    rate = 8 * 989e12 * planner.mfu * 3600
    # Rollouts are read once while they are played, prompts in one go, and once more for the corrected probabilities.
    spent = (found.learning + found.reading) * rate - found.steps * 2 * 10**10 * run.config.episodes * 300
    one = spent / found.steps
    assert run.study.fork_flops <= spent < run.study.fork_flops + one


def test_the_papers_model_is_known_without_a_download():
    """10.7 B parameters, as published; its checkpoint is said to be so large."""
    shape = Shape.of(plan.config_of("meta-llama/Llama-3.2-11B-Vision-Instruct"))
    assert shape.parameters == pytest.approx(10.67e9, rel=2e-3)
    assert (shape.layers, shape.crossing, shape.picture) == (32, 8, 4 * 1_601)


def test_the_dry_run_of_the_paper(capsys):
    """One line for each run, and memory that fits 8 x 80 GB in shares only."""
    assert plan.main(["--profile", "paper", "--gpu", "h100-80gb", "--gpus", "8", "--price", "2.5"]) == 0
    text = capsys.readouterr().out
    assert text.count("main-s0") == 8 and text.count("init-s0") == 4
    assert "GP-VL: meta-llama" in text and " at 2.5 an hour" in text
    assert text.count(", fits") == 4
    assert plan.main(["--gpu", "h100-80gb", "--ddp"]) == 0
    assert capsys.readouterr().out.count("DOES NOT FIT") == 4


def test_smollm2_is_known_before_it_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert plan.parameters_of("smollm2-gp-l") == 134_515_008  # as published
    assert plan.main(["--profile", "smollm2", "--gpus", "1", "--seeds", "5"]) == 0
    text = capsys.readouterr().out
    assert text.count(", fits") == 2 and "gp-l-rl-main-s5" in text and "-s0" not in text


def test_weights_that_play_in_float32_are_read_and_multiplied_as_such():
    """Mixed precision: the whole weights play and are tested in float32, a copy of shards plays in bfloat16."""
    whole, shards = (Planner(PAPER, MACHINES["h100-80gb"], gpus=2, shared=shared) for shared in (False, True))
    assert [p.playing(p.copied) for p in (whole, shards)] == [4, 2] and shards.playing(copied=False) == 4
    assert whole.rate(4) == pytest.approx(67 / 989 * whole.rate(2))


def test_the_formulas_beside_what_a_bench_measured():
    """One PPO update of the laptop's model on a core: within a factor of two and a half."""
    [record] = (paths.ROOT / "results/bench").glob("intel-*.json")
    for name, (estimated, measured) in plan.check(record).items():
        assert 0.4 < estimated / measured < 2.5, name


@pytest.mark.parametrize("arguments, message", [
    (["--gpu", "abacus"], "GPU='abacus' is not known; use one of a100-40gb"),
    (["--gpus", "0"], "GPUS is a whole number from 1"),
    (["--profile", "nobody"], "Unknown profile 'nobody'"),
    (["--check", "results/bench/nvidia-h200.json"], "nvidia-h200.json has no row of a CPU"),
])  # fmt: skip
def test_bad_words_are_one_sentence(capsys, arguments, message):
    assert plan.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_papers_numbers():
    """What the sources say outright; the rest of the profile is marked as ours."""
    assert {s.task.key: s.init_steps for s in PAPER.studies} == {"gp-l": 400, "virl-l": 25, "gp-vl": 400, "virl-vl": 25}
    assert {s.task.key: (s.sft.lr, s.ppo.lr) for s in PAPER.studies} == {
        "gp-l": (1e-6, 1e-6), "virl-l": (1e-6, 1e-6), "gp-vl": (5e-7, 1e-6), "virl-vl": (5e-7, 1e-7),
    }  # fmt: skip
    for study in PAPER.studies:
        ppo = study.ppo
        assert (ppo.clip, ppo.epochs, ppo.gamma, ppo.gae_lambda, ppo.max_grad_norm) == (0.1, 4, 0.9, 0.95, 0.01)
        assert ppo.lr * ppo.lr_end == pytest.approx(1e-9) and ppo.ratio == "sequence" and ppo.temperature == 0.2
        assert study.sft.batch_size == 128 and ppo.attempts == (5 if study.task.key.startswith("gp") else 2)
    assert PAPER.studies[2].experiment("sft_tuning").arms[0].settings[0] == {"lr": 1e-7, "frozen": "none"}
    assert len(PAPER.studies[2].experiment("sft_tuning").arms[0].settings) == 10  # Fig. 16
