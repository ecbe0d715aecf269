"""MODEL=: any profile from a model of one's own, of several families, each with its own chat template and tokens."""

import json
import os
from dataclasses import replace

import pytest
import torch
from tiny_models import sharpen, tiny_profile
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from sftrl_lib import own_model, paths, pipeline
from sftrl_lib.evaluation.measurements import evaluate
from sftrl_lib.experiments import MAIN, dose, foundations
from sftrl_lib.figures import style
from sftrl_lib.models.policy import Policy
from sftrl_lib.own_model import name_of, prepare
from sftrl_lib.profiles import LAPTOP, PROFILES, SMOKE, get_profile
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import train

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = (  # of Llama 3
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN = (  # what it has thought is left out of a chat, and thinking is switched off by an empty one
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1] + '<|im_end|>\n'"
    " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GPT2 = (  # it comes without one
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] + '\nAssistant: ' }}"
    "{% else %}{{ m['content'] + '<|endoftext|>' }}{% endif %}{% endfor %}"
)
KINDS = ["sliding_attention", "full_attention"]  # of layers
FAMILIES = {
    "llama": (
        LlamaConfig, SIZES, LLAMA, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "qwen3": (Qwen3Config, SIZES, QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
    "gemma3": (
        Gemma3TextConfig,
        {**SIZES, "query_pre_attn_scalar": 8, "sliding_window": 64, "layer_types": KINDS},
        GEMMA,
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
    ),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 4096}, GPT2, ["<|endoftext|>"]),
}  # fmt: skip


def made(folder, family, **changes):
    """A random model of a family on disk, whose tokens are bytes; its last special token ends an answer."""
    config, sizes, template, special = FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*special, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=special[-1], pad_token=special[0], chat_template=template
    )
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(vocab_size=len(tokenizer), **{**sizes, **ids, **changes}))
    Policy(sharpen(model, tokenizer.eos_token_id), tokenizer).save(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")


@pytest.fixture
def base(tiny_folder, monkeypatch):
    """A profile of one task and one of pictures, small enough to be run."""
    profile = tiny_profile(tiny_folder, experiments=(MAIN, foundations("gp-l")), controls=(dose(1e8),))
    [study] = profile.studies
    seeing = replace(study, task=SMOKE.study("gp-vl").task)
    small = replace(study.evaluation, episodes_end=2, episodes_curve=2, episodes_greedy=2, attempts=2)
    study = replace(study, evaluation=small, sft=replace(study.sft, examples=8, batch_size=2), checkpoints=1)
    profile = replace(profile, name="base", toy=True, studies=(replace(study, init_steps=1, fork_flops=1e7), seeing))
    monkeypatch.setitem(PROFILES, "base", profile)
    return profile


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_both_branches(family, base, tmp_path, capsys):
    """`SFTRL_ALL_TESTS=1 make test` tries every family; else two, for the time it takes."""
    if family not in ("llama", "gemma3") and not os.environ.get("SFTRL_ALL_TESTS"):
        pytest.skip("SFTRL_ALL_TESTS=1 runs it")
    profile = prepare(base, made(tmp_path / f"My-{family}.v1", family))
    assert profile.name == f"base_my_{family}_v1" and get_profile(profile.name) == profile
    assert "left out: GP-VL, because it needs a vision-language model" in capsys.readouterr().out
    [study] = profile.studies
    assert study.task.key == "gp-l" and study.ppo.max_new_tokens == study.evaluation.max_new_tokens > 80, "bytes"
    assert [e.name for e in (*study.experiments, *study.controls)] == ["main", "dose"]
    for method in ("init", "sft", "rl"):
        run = Run(profile, "gp-l", method)
        train(run)
        assert set(evaluate(run).method) == {method}
    assert style.made_by(profile.name).startswith("toy run")


def test_pictures_stay_for_a_model_that_takes_them(base, vision_folder):
    profile = prepare(base, str(vision_folder))
    assert [study.task.key for study in profile.studies] == ["gp-l", "gp-vl"]
    assert {study.foundation for study in profile.studies} == {str(vision_folder)}


def test_the_budget_grows_with_the_parameters_and_answers_with_the_tokens(base, tmp_path):
    """Sized for a shipped model; every place that holds a budget or a length follows."""
    gp_l = LAPTOP.study("gp-l")
    laptop = replace(LAPTOP, name="base", studies=(replace(gp_l, controls=(dose(gp_l.fork_flops),)),))
    PROFILES["base"] = laptop
    profile = prepare(laptop, made(tmp_path / "llama", "llama"))
    record = json.loads(own_model.record_of(profile.name).read_text())
    shipped = json.loads((paths.SHIPPED / "gp-l" / "record.json").read_text())["parameters"]
    [study] = profile.studies
    assert study.fork_flops == pytest.approx(laptop.studies[0].fork_flops * record["parameters"] / shipped, rel=0.01)
    doses = [setting["fork_flops"] for setting in study.controls[0].arms[0].settings]
    assert doses[-1] == pytest.approx(3 * study.fork_flops, rel=0.02)
    assert study.sft == laptop.studies[0].sft and study.ppo.lr == laptop.studies[0].ppo.lr


def test_a_task_that_the_context_is_too_short_for_is_left_out_before_any_work(base, tmp_path):
    short = made(tmp_path / "short", "gpt2", n_positions=512)
    with pytest.raises(ValueError, match=r"fits no task of base: GP-L, because a chat takes [\d,]+ tokens and the"):
        prepare(base, short)
    assert not paths.HOME.exists()


@pytest.mark.parametrize("model", ["nobody/nothing", "no-such-folder", "gp-x"])
def test_a_model_that_is_not_there_stops_everything_at_once(base, model, capsys):
    assert pipeline.main(["rules", "--profile", "base", "--model", model]) == 2
    assert f"There is no model {model!r}" in capsys.readouterr().err and not paths.HOME.exists()


def test_a_model_that_is_refused_stops_everything_at_once(base, tmp_path, capsys):
    """A chat template that never writes the end of an answer, as Gemma's with its eos as shipped."""
    folder = made(tmp_path / "gemma", "gemma3")
    settings = tmp_path / "gemma" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "<bos>"}))
    (tmp_path / "gemma" / "digests.json").unlink(missing_ok=True)
    assert pipeline.main(["rules", "--profile", "base", "--model", folder]) == 2
    assert "ends an answer with '<end_of_turn>'" in capsys.readouterr().err and not paths.HOME.exists()


def test_the_pipeline_runs_the_profile_under_the_name_that_make_asks_for(base, tmp_path, capsys):
    folder = made(tmp_path / "llama", "llama")
    assert pipeline.main(["name", "--profile", "base", "--model", folder]) == 0
    name = capsys.readouterr().out.strip()
    assert pipeline.main(["rules", "--profile", "base", "--model", folder]) == 0
    rules = (paths.build(name) / "rules.mk").read_text()
    assert f"--profile {name}" in rules and "05_train-gp-l-rl-main-s0" in rules and "gp-vl" not in rules
    assert pipeline.main(["list", "--profile", name]) == 0
    assert pipeline.main(["name", "--profile", "base"]) == 0 and capsys.readouterr().out.endswith("base\n")


def test_another_model_of_the_same_name_is_told_apart(base, tmp_path):
    first, second = (made(tmp_path / place / "llama", "llama") for place in ("a", "b"))
    profile = prepare(base, first)
    assert prepare(base, first) == profile
    with pytest.raises(ValueError, match=f"is of another model, {first!r}; rename the folder of {second!r}, or remove"):
        prepare(base, second)


def test_names_and_damaged_records(base):
    assert name_of("laptop", "Qwen/Qwen2.5-0.5B-Instruct") == "laptop_qwen2_5_0_5b_instruct"
    with pytest.raises(ValueError, match="has no letter or digit"):
        name_of("laptop", "--")
    for unknown in ("laptop_unknown", "../x"):
        with pytest.raises(ValueError, match=f"Unknown profile '{unknown}'"):
            get_profile(unknown)
    for text in ("{", "[]", '{"profile": "base"}'):
        own_model.record_of("base_x").parent.mkdir(parents=True, exist_ok=True)
        own_model.record_of("base_x").write_text(text)
        with pytest.raises(ValueError, match="model.json is damaged .* remove it and give MODEL= again"):
            get_profile("base_x")
