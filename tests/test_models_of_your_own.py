"""Models that users bring: what cannot be trained on is refused when it is loaded, in one sentence with a cure."""

import json
import shutil
import threading
import time
import warnings
from datetime import date

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_rollout import CHATML, chatml_policy  # noqa: F401  (a fixture)
from tiny_models import tiny_profile

from sftrl_lib import paths
from sftrl_lib.configs import LoRAConfig
from sftrl_lib.models import chat_template
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import check_model, load_policy
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import final_policy, train


@pytest.fixture
def folder(chatml_policy, tmp_path):  # noqa: F811
    """A small Qwen with a ChatML template and a critic."""
    chatml_policy.save(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def vision(vision_folder, tmp_path):
    return shutil.copytree(vision_folder, tmp_path / "seeing")


@pytest.fixture
def adapters(folder):
    """LoRA adapters for the model in `folder`."""
    load_policy(folder, lora=LoRAConfig(rank=2, alpha=4.0)).save(folder.parent / "adapted")
    return folder.parent / "adapted"


def refusal(source, use=load_policy, **options):
    with pytest.raises(CheckpointError) as error:
        use(source, **options)
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 500
    return message


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def with_template(folder, template, **tokenizer):
    (folder / "chat_template.jinja").write_text(template)
    edit(folder / "tokenizer_config.json", **tokenizer)
    return folder


# The end of an answer

CLOSED_AT_THE_END = CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"  # as in Phi-3


@pytest.mark.parametrize("template", [CHATML, CLOSED_AT_THE_END], ids=["never", "only at the end"])
@pytest.mark.parametrize("eos", ["<|endoftext|>", "<|im_start|>", None])
def test_an_eos_that_the_template_does_not_write_is_refused_with_the_one_it_writes(folder, template, eos):
    message = refusal(with_template(folder, template, eos_token=eos))
    assert "ends an answer with '<|im_end|>'" in message and f"eos_token is {eos!r}" in message
    assert '"eos_token": "<|im_end|>" in the tokenizer_config.json' in message
    policy = load_policy(with_template(folder, template, eos_token="<|im_end|>"))  # what it says helps
    assert policy.tokenizer.decode(policy.end_token) == "<|im_end|>"
    assert policy.tokenizer.decode(policy.continuation_ids("b")) == "\n<|im_start|>user\nb<|im_end|>\n" + (
        "<|im_start|>assistant\n"
    )


def test_an_answer_that_nothing_ends_is_refused(folder, vision):
    """As in LLaVA 1.5 (no token at all) and GLM-4 (the next role, which a finished chat does not have)."""
    for template in (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}",
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}",
    ):
        for eos in ("<|im_end|>", "<|im_start|>"):
            assert "no token that ends every answer" in refusal(with_template(folder, template, eos_token=eos))
    seen = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    assert "no token that ends every answer" in refusal(with_template(vision, seen))


def test_a_template_that_leaves_messages_out_is_refused(folder):
    for template in ("Hello<|im_end|>", CHATML.replace("messages %}", "messages if message['role'] == 'user' %}")):
        assert "leaves out messages" in refusal(with_template(folder, template))


# Templates that fail, loop or depend on the day

FAILING = {
    "{{ messages.__class__.__mro__ }}": "unsafe",
    "{{ raise_exception('only tools') }}": "only tools",
    "{{ nothing.more }}": "'nothing' is undefined",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{% for i in range(1000000) %}{% endfor %}": "Range too big",
    "{% if %}": "Expected an expression",
    "{{ 'a' + 1 }}": "str",
}


@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_fails_is_named(folder, template):
    message = refusal(with_template(folder, template + CHATML))
    assert str(folder) in message and FAILING[template] in message and "correct it, or choose another" in message


@pytest.mark.parametrize("which", ["folder", "vision"])
def test_a_template_that_never_ends_is_stopped(which, request, monkeypatch):
    monkeypatch.setattr(chat_template, "LIMIT", 0.3)
    folder, loops = request.getfixturevalue(which), "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    before, begin = threading.active_count(), time.monotonic()
    assert "does not finish" in refusal(with_template(folder, loops))
    while threading.active_count() > before and time.monotonic() < begin + 20:
        time.sleep(0.01)
    assert threading.active_count() == before


CLOCK = (  # as in Llama 3.2
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}{{ 'Today Date: ' + date_string }}"
)


def test_a_template_that_prints_the_date_is_noticed_once(folder):
    with_template(folder, CLOCK + CHATML)
    with pytest.warns(UserWarning, match="writes today's date") as found:
        policy = load_policy(folder)
    assert len(found) == 1
    assert str(date.today().year) in policy.tokenizer.decode(policy.prompt_ids([{"role": "user", "content": "hi"}]))
    other = shutil.copytree(folder, folder.with_name("snapshot"))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for source in (folder, other, folder):
            load_policy(source)
    assert len([w for w in found if "date" in str(w.message)]) == 1


@pytest.mark.parametrize("template", [
    CLOCK.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'"),
    "{% set date_string = '26 Jul 2024' %}" + CLOCK,
    "{% if tools %}{{ strftime_now('%d') }}{% endif %}",
], ids=["replaced", "set before", "not in our chats"])  # fmt: skip
def test_a_pinned_date_is_fine(folder, template):
    with_template(folder, template + CHATML)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_policy(folder)


# Weights


def change_weights(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("which", ["folder", "vision", "adapters"])
def test_every_single_tensor_is_needed(which, request):
    source = request.getfixturevalue(which)
    file = source / ("adapter_model.safetensors" if which == "adapters" else "model.safetensors")
    whole = file.read_bytes()
    for name in load_file(file):
        change_weights(file, lambda tensors, name=name: tensors.pop(name))
        message = refusal(source)
        assert "lacks tensors" in message and str(source) in message and name.split(".")[-2] in message
        file.write_bytes(whole)
    load_policy(source)


def test_tensors_that_the_model_does_not_have_or_has_in_another_shape(folder, adapters):
    for source, name in ((folder, "model.safetensors"), (adapters, "adapter_model.safetensors")):
        whole = (source / name).read_bytes()
        change_weights(source / name, lambda tensors: tensors.update(stray=torch.zeros(2)))
        assert "has unknown tensors (" in refusal(source) and "stray" in refusal(source)
        (source / name).write_bytes(whole)
    change_weights(folder / "model.safetensors", lambda t: t.update({"model.norm.weight": torch.ones(5)}))
    assert "has misshapen tensors (model.norm.weight)" in refusal(folder)


def test_buffers_that_old_checkpoints_saved_are_ignored(folder):
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    change_weights(folder / "model.safetensors", lambda tensors: tensors.update(old))
    load_policy(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value, folder, vision, adapters):
    def poison(tensors):
        tensors[min(tensors)].view(-1)[-1] = value

    broken = [(adapters, "adapter_model"), (vision, "model"), (folder, "value_head"), (folder, "model")]
    for source, name in broken:
        change_weights(source / f"{name}.safetensors", poison)
        message = refusal(source)
        assert "not finite in float32" in message and str(source) in message


def test_values_may_be_finite_in_one_type_alone(folder):
    change_weights(folder / "model.safetensors", lambda t: t["model.norm.weight"].fill_(1e6))
    load_policy(folder, dtype="bfloat16")
    assert "not finite in float16 (model.norm.weight)" in refusal(folder, dtype="float16")


# Files


@pytest.mark.parametrize("name, damage", [
    ("config.json", b"{"), ("config.json", b"[]"), ("config.json", b"\xff"), ("config.json", b"[" * 100_000),
    ("model.safetensors", b""), ("model.safetensors", None),
    ("tokenizer.json", b"{"), ("tokenizer_config.json", b"{"), ("value_head.safetensors", None),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_a_damaged_file_is_named_with_its_cure(folder, name, damage):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-4] if damage is None else damage)
    message = refusal(folder)
    assert message.startswith(f"{file} is damaged (") and "; restore the file, or make or download" in message
    if name == "config.json":
        assert refusal(folder, check_model) == message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_adapters_are_named(adapters, name):
    (adapters / name).write_bytes(b"{")
    assert str(adapters / name) in refusal(adapters)


def test_the_model_below_adapters_is_named(adapters, folder):
    (folder / "model.safetensors").write_bytes(b"{")
    assert refusal(adapters).startswith(f"{folder / 'model.safetensors'} is damaged (")
    edit(adapters / "adapter_config.json", base_model_name_or_path=None)
    assert "does not name its base model (base_model_name_or_path is None)" in refusal(adapters)


def test_a_critic_of_another_model_is_refused(folder):
    change_weights(folder / "value_head.safetensors", lambda tensors: tensors.pop("layers.0.bias"))
    assert "ValueHead" in refusal(folder)


def test_a_model_too_large_for_the_memory_is_not_called_damaged(folder, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("transformers.Qwen2ForCausalLM.to", full)
    assert "does not fit into memory (CUDA out of memory." in refusal(folder)


def test_the_cure_of_a_damaged_snapshot_works(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    run = Run(tiny_profile(tiny_folder), "gp-l", "init")
    [snapshot] = train(run)
    before = final_policy(run).model.state_dict()
    change_weights(snapshot.folder / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    assert f"; remove {str(run.folder)!r} and run the step that makes it again." in refusal(run, final_policy)
    shutil.rmtree(run.folder)
    train(run)
    after = final_policy(run).model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


# Code that comes with a model

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlavaProcessor, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
class Config(Qwen2Config):
    model_type = "mine"
class Model(Qwen2ForCausalLM):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
class Reader(LlavaProcessor):
    pass
"""
MODEL = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}


@pytest.fixture
def marker(folder, vision, monkeypatch):
    """A file that exists once the code in `folder` or `vision` has run; all questions are answered with yes."""
    marker = folder.parent / "ran"
    for source in (folder, vision):
        (source / "own.py").write_text(CODE.format(marker=str(marker)))
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    return marker


@pytest.mark.parametrize("use", [check_model, load_policy])
def test_a_model_that_needs_code_of_its_own_is_refused(folder, marker, use):
    edit(folder / "config.json", model_type="mine", auto_map=MODEL)
    message = refusal(folder, use)
    assert str(folder) in message and "needs Python code of its own, which is never run here" in message
    assert not marker.exists()


def test_code_that_is_not_needed_does_not_run(folder, vision, marker):
    """Where transformers knows the model, its own code is used."""
    edit(folder / "config.json", auto_map=MODEL)
    edit(folder / "tokenizer_config.json", tokenizer_class="Tokens", auto_map={"AutoTokenizer": [None, "own.Tokens"]})
    edit(vision / "processor_config.json", auto_map={"AutoProcessor": "own.Reader"})
    policy, seeing = load_policy(folder), load_policy(vision)
    for part in (policy.model, policy.tokenizer, seeing.processor):
        assert type(part).__module__.startswith("transformers.")
    assert not marker.exists()


# Hub names


@pytest.mark.parametrize("use", [check_model, load_policy])
@pytest.mark.parametrize("name", ["some-owner/some-model", "models/mine", "gp-x"])
def test_offline_is_named_where_a_hub_name_fails(use, name, monkeypatch):
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    message = refusal(name, use)
    assert repr(name) in message and "HF_HUB_OFFLINE=1 forbids downloads" in message
    assert "`HF_HUB_OFFLINE=0 make ...`, or give a folder" in message
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    assert "`HF_HUB_OFFLINE=0 TRANSFORMERS_OFFLINE=0 make ...`" in refusal(name, use)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(variable, "0")  # too late for the libraries, so this makes no connection
    assert "OFFLINE" not in refusal(name, use)


def test_a_folder_that_is_not_there_has_nothing_to_do_with_the_hub(tmp_path):
    message = refusal(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in message and "OFFLINE" not in message
