"""Teaching a pretrained model many rules: what it reads, how it learns, its record, and the profile that needs it."""

import json
import random
from dataclasses import replace

import pytest
import torch
from tiny_models import smollm2_policy, tiny_policy

from sftrl_lib import fingerprint, jobs, paths
from sftrl_lib.claims import comparison
from sftrl_lib.evaluation.measurements import evaluate
from sftrl_lib.evaluation.results import gather
from sftrl_lib.experiments import MAIN, foundations
from sftrl_lib.foundation import gp_l_curriculum, taught, teaching, virl_l_curriculum
from sftrl_lib.foundation.documents import Turn
from sftrl_lib.foundation.encoding import IGNORED, encode, encode_chat, encode_for
from sftrl_lib.foundation.taught import TAUGHT, Teaching
from sftrl_lib.foundation.teaching import batches, learn, teach
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points.prompts import rule_sentence
from sftrl_lib.points.rules import RULES
from sftrl_lib.profiles import SMOLLM2, SMOLLM2_SMOKE
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import train

CURRICULA = (gp_l_curriculum, virl_l_curriculum)


def documents(count=20):
    """Of all kinds, of both curricula."""
    return [c.document(random.Random(seed), seed / count) for c in CURRICULA for seed in range(count)]


@pytest.fixture(scope="module")
def small():
    """A random Llama in SmolLM2's manner."""
    return smollm2_policy([turn.content for doc in documents() for turn in doc])


@pytest.fixture
def base(small, tmp_path, monkeypatch):
    """It, on disk; everything is written to a folder of the test's own."""
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    small.save(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def untested(monkeypatch):
    """Nothing is measured before and after, which takes longer than these few steps."""
    monkeypatch.setattr(teaching, "capabilities", lambda *arguments: {"reading": 0.5})


@pytest.fixture
def recipe(base, monkeypatch):
    """Ten steps for it, under the name that the registry knows it by."""
    config = Teaching("taught", base, ("gp-l",), steps=10, tokens_per_step=600, warmup=2, dtype="float32", samples=2)
    monkeypatch.setitem(TAUGHT, "taught", config)
    return config


# What it reads


def test_the_tiny_models_chats_are_encoded_alike_by_their_template(tokenizer):
    policy = tiny_policy(tokenizer)
    for doc in documents():
        assert encode_chat(doc, policy) == encode(doc, tokenizer) == encode_for(policy, doc)


def test_a_conversation_is_the_chat_that_the_template_makes_and_answers_carry_loss(small):
    tokenizer = small.tokenizer
    for doc in documents():
        ids, labels = encode_for(small, doc)
        learnt = [i for i, label in enumerate(labels) if label != IGNORED]
        assert [ids[i] for i in learnt] == [labels[i] for i in learnt]
        answers = "".join(turn.content + "<|im_end|>" * (turn.role == "assistant") for turn in doc if turn.learn)
        assert tokenizer.decode([ids[i] for i in learnt]) == answers
        chat = [{"role": turn.role, "content": turn.content} for turn in doc]
        text = "".join(turn.content for turn in doc)
        if doc[0].role == "user":
            text = tokenizer.apply_chat_template(chat, tokenize=False).removesuffix("\n")
        assert tokenizer.decode(ids) == text


def test_a_picture_is_refused(small):
    doc = [Turn("user", "Look.", picture=torch.zeros(8, 8, 3).numpy())]
    with pytest.raises(ValueError, match="pictures are encoded for the models of this project alone"):
        encode_for(small, doc)


def test_nothing_that_is_tested_is_taught(small):
    """Neither the new rule, in the words of the task, nor the answer's keys together."""
    config = Teaching("x", "y", ("gp-l", "virl-l"), steps=40, tokens_per_step=2_000)
    rows = [row for ids, _, _ in batches(config, small) for row in small.tokenizer.batch_decode(ids)]
    assert len(rows) > 100 and not any(rule_sentence(RULES["distinct"]) in row for row in rows)
    assert sum("'J', 'Q', and 'K' count as" in row for row in rows) > 20, "other rules are stated"
    keys = ('"cards":', '"number":', '"formula":'), ('"current observation":', '"current instruction":', '"action":')
    for row in rows:
        for together in keys:
            assert sum(row.count(key) for key in together) <= 3 and not _in_one_answer(row, together)


def _in_one_answer(text, keys):
    return any(sum(key in answer for key in keys) > 1 for answer in text.replace("}", "{").split("{"))


def test_batches_are_the_same_from_any_step_and_any_number_of_workers(small):
    config = Teaching("x", "y", ("gp-l",), steps=20, tokens_per_step=300)
    whole = [ids for ids, _, _ in batches(config, small)]
    assert len(whole) == config.steps
    for first, workers in ((9, 0), (0, 2), (17, 2)):
        again = [ids for ids, _, _ in batches(config, small, first, workers)]
        assert all(torch.equal(a, b) for a, b in zip(whole[first:], again, strict=True))


# How it learns


def test_the_gradient_is_that_of_transformers_however_the_rows_are_cut(small):
    config = Teaching("x", "y", ("gp-l",), steps=1, tokens_per_step=1_500)
    [(ids, labels, _)] = batches(config, small)
    mask = (ids != small.tokenizer.pad_token_id).long()
    expected = small.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    wanted = torch.autograd.grad(expected, list(small.model.parameters()))
    for tokens in (1, 700, 10**6):
        small.model.zero_grad()
        assert learn(small, ids, labels, tokens) == pytest.approx(expected.item(), rel=1e-5)
        for parameter, gradient in zip(small.model.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    small.model.zero_grad()


def test_the_rate_warms_up_and_falls_to_zero():
    config = Teaching("x", "y", ("gp-l",), steps=100, warmup=10, cooldown=0.5)
    assert [config.lr_scale(step) for step in (0, 9, 40, 75, 99)] == pytest.approx([0.1, 1, 1, 0.5, 0.02])


def test_it_learns_and_says_what_it_was_taught(recipe):
    config = replace(recipe, steps=40, lr=3e-3)
    TAUGHT[config.name] = config
    folder = teach(config)
    record = json.loads((folder / "record.json").read_text())
    assert sum(record["losses"][-5:]) < 0.9 * sum(record["losses"][:5]) and len(record["losses"]) == 40
    assert 0 < record["tokens_learnt"] < record["tokens"] <= 1.2 * 40 * 600
    assert record["capabilities"]["before"].keys() == record["capabilities"]["after"].keys()
    assert "rule J=11, Q=12, K=13" in record["held_out"][0] and record["code"] == fingerprint.library()
    assert record["config"]["lr"] == 3e-3 and record["parameters"] == load_policy(folder).parameters_count
    before = load_policy(config.base).model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in load_policy(folder).model.state_dict().items())


class Killed(BaseException):
    """Stands for kill -9."""


def test_an_interrupted_teaching_goes_on_as_if_nothing_had_happened(recipe, monkeypatch, untested):
    weights = teach(recipe, save_every=3).joinpath("model.safetensors")
    whole = weights.read_bytes()
    record = json.loads((weights.parent / "record.json").read_text())
    monkeypatch.setattr(paths, "HOME", paths.HOME.with_name("again"))
    steps = []

    def mortal(*arguments):
        steps.append(1)
        if len(steps) == 8:
            raise Killed
        return learn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(teaching, "learn", mortal)
        with pytest.raises(Killed):
            teach(recipe, save_every=3)
    assert not teaching.is_there("taught")
    again = teach(recipe, save_every=3)
    assert (again / "model.safetensors").read_bytes() == whole
    resumed = json.loads((again / "record.json").read_text())
    changing = {"minutes"}
    assert {k: v for k, v in resumed.items() if k not in changing} == {
        k: v for k, v in record.items() if k not in changing
    }
    assert not (paths.HOME / "build" / "foundation" / "taught").exists()


def test_a_loss_that_is_no_number_stops_it(recipe, monkeypatch, untested):
    monkeypatch.setattr(teaching, "learn", lambda *arguments: float("nan"))
    with pytest.raises(FloatingPointError, match=r"^Step 1: teaching's loss is nan; lower lr \(0.0003\)\.$"):
        teach(recipe)
    assert not teaching.is_there("taught")


def test_another_recipe_sets_the_model_aside(recipe, untested):
    folder = teach(recipe)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    teaching.provide(SMOLLM2_SMOKE, "taught")  # there already
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    TAUGHT["taught"] = replace(recipe, steps=2)
    assert not teaching.is_there("taught")
    teaching.provide(SMOLLM2_SMOKE, "taught")
    assert teaching.is_there("taught") and len(json.loads((folder / "record.json").read_text())["losses"]) == 2
    assert len(list((paths.HOME / "build" / "replaced").glob("taught-*/model.safetensors"))) == 1


def test_what_is_not_to_be_taught_is_left_alone_and_a_missing_base_is_named(recipe, monkeypatch):
    teaching.provide(SMOLLM2_SMOKE, "gp-l")
    monkeypatch.setitem(TAUGHT, "orphan", replace(recipe, name="orphan", base="smollm2"))
    with pytest.raises(CheckpointError, match="'smollm2' has not been fetched yet: make model MODEL=smollm2"):
        teaching.provide(SMOLLM2_SMOKE, "orphan")
    assert not paths.made_models().exists()


@pytest.mark.parametrize("change", [
    {"curricula": ()}, {"curricula": ("gp-vl",)}, {"steps": 0}, {"lr": 0.0}, {"dtype": "int8"}, {"cooldown": 0.0},
])  # fmt: skip
def test_bad_recipes_are_refused(change):
    with pytest.raises(ValueError, match=f"Teaching.{next(iter(change))} must be"):
        replace(TAUGHT["smollm2-gp-l"], **change)


def test_the_command_teaches_once_and_shows_what_came_of_it(recipe, capsys, untested):
    assert teaching.main(["taught"]) == teaching.main(["taught"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("taught: taught" in line for line in lines) == 2 and any("% before" in line for line in lines)


# The profile


@pytest.fixture
def profile(recipe):
    """The profile smollm2_smoke, from the small model."""
    study = replace(SMOLLM2_SMOKE.studies[0], foundation="taught", fork_flops=1e7)
    study = replace(study, experiments=(MAIN, foundations(recipe.base)))
    return replace(SMOLLM2_SMOKE, name="toy_smollm2", studies=(study,))


def test_a_run_teaches_its_foundation_first_and_goes_through_everything(profile, recipe, untested):
    runs = [Run(profile, "gp-l", method) for method in ("init", "sft", "rl")]
    runs += [Run(profile, "gp-l", m, "foundations", f"foundation={recipe.base}") for m in ("init", "sft", "rl")]
    known = [run.identity for run in runs]
    assert not teaching.is_there("taught")
    for run in runs:
        train(run)
        evaluate(run)
    assert teaching.is_there("taught") and [run.identity for run in runs] == known
    assert not list(paths.build(profile.name).glob("runs/*/training")), "which would take the disk"
    frame = gather(profile).metrics
    assert json.loads((paths.results(profile.name) / "taught.json").read_text())["config"]["name"] == "taught"
    assert set(frame.method) == {"init", "sft", "rl"} and set(frame.experiment) == {"main", "foundations"}
    told = comparison.markdown(frame)
    assert f"another foundation model ({recipe.base})" in told and "the foundation model above" in told


def test_its_notebook_teaches_before_any_run(profile):
    found = {job.name: job for job in jobs.jobs(profile)}
    assert "02_foundation-gp-l" in found["04_init-gp-l-init-s0"].needs
    beside = [job for name, job in found.items() if name.startswith("04_init-gp-l-init-foundations")]
    assert len(beside) == 1 and "02_foundation-gp-l" not in beside[0].needs


def test_the_real_profile_is_whole():
    """Three seeds of two tasks; each study's foundation is one that is taught the task's own curriculum."""
    assert SMOLLM2.seeds == (0, 1, 2) and [study.task.key for study in SMOLLM2.studies] == ["gp-l", "virl-l"]
    for chosen in (SMOLLM2, SMOLLM2_SMOKE):
        for study in chosen.studies:
            recipe = TAUGHT[study.foundation]
            assert (recipe.base, recipe.curricula) == ("smollm2", (study.task.key,))
            assert taught.identity(study.foundation)["name"] == study.foundation
    for key in ("gp-l", "virl-l"):
        runs = [Run(SMOLLM2, key, method, "foundations", "foundation=smollm2") for method in ("rl", "sft")]
        assert all(run.init.study.foundation == "smollm2" for run in runs)
    tokens = [TAUGHT[study.foundation].steps * TAUGHT[study.foundation].tokens_per_step for study in SMOLLM2.studies]
    assert all(2e6 < count < 1e7 for count in tokens)


@pytest.mark.skipif(not paths.named_model("smollm2"), reason="make model MODEL=smollm2 has not been run")
def test_answers_fit_into_what_the_real_model_may_say():
    import numpy as np
    from transformers import AutoTokenizer

    from sftrl_lib.messages import message_text

    tokenizer = AutoTokenizer.from_pretrained(paths.named_model("smollm2"))
    for study in SMOLLM2.studies:
        source = study.task.demonstrations("expert", np.random.default_rng(0))
        answers = [message_text(next(source)["completion"][0]) for _ in range(300)]
        longest = max(len(tokenizer(answer).input_ids) for answer in answers) + 1
        assert longest <= min(study.ppo.max_new_tokens, study.evaluation.max_new_tokens)
