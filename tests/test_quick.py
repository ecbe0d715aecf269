"""`evaluate(model, task)`: any model in one line, with the numbers that its tests as a checkpoint would give."""

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftrl_lib.configs import LoRAConfig, Protocol
from sftrl_lib.evaluation.episodes import play
from sftrl_lib.evaluation.quick import evaluate
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.tasks import TASKS

HOW = {"episodes": 6, "attempts": 2, "max_new_tokens": 6, "device": "cpu"}


def test_a_folder_is_tested_as_a_checkpoint_is(tiny_folder):
    found = evaluate(tiny_folder, "gp-l", ["id", "rule_ood"], **HOW).set_index(["split", "metric"])
    for split in ("id", "rule_ood"):
        episodes = play(load_policy(tiny_folder), TASKS["gp-l"], split, Protocol(6, 2, 1.0, 6), 0)
        expected = TASKS["gp-l"].measure(split, episodes)
        assert {m: (found.loc[(split, m), "value"], found.loc[(split, m), "n"]) for m in expected} == expected
    assert set(found["model"]) == {str(tiny_folder)} and set(found["attempts"]) == {2}
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


def test_all_splits_and_the_papers_attempts_are_the_default(tiny_folder):
    found = evaluate(tiny_folder, TASKS["virl-l"], episodes=1, max_new_tokens=2, device="cpu")
    assert list(found["split"].unique()) == ["id", "heldout", "rule_ood"] and set(found["attempts"]) == {2}


@pytest.mark.parametrize("how", ["its own tokenizer", "a tokenizer", "adapters", "a policy"])
def test_models_that_are_loaded_already(how, tiny_folder, tmp_path):
    policy = load_policy(tiny_folder)
    given = {"model": policy}
    if how == "adapters":
        load_policy(tiny_folder, lora=LoRAConfig(rank=2, alpha=4.0)).save(tmp_path)
        given = {"model": tmp_path}
    elif how != "a policy":
        model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).train()
        given = {"model": model}
        if how == "a tokenizer":
            model.name_or_path = "nowhere"
            given["tokenizer"] = AutoTokenizer.from_pretrained(tiny_folder)
    expected = evaluate(tiny_folder, "gp-l", ["id"], **HOW)
    found = evaluate(given["model"], "gp-l", ["id"], tokenizer=given.get("tokenizer"), **HOW)
    pd.testing.assert_frame_equal(found.drop(columns="model"), expected.drop(columns="model"))
    if "tokenizer" in how:
        assert given["model"].training, "a model that trains goes on training"


def test_pictures(vision_folder):
    found = evaluate(vision_folder, "gp-vl", ["visual_ood"], **HOW)
    assert set(found["modality"]) == {"image"} and "recognition" in set(found["metric"])


def test_what_cannot_be_tested_is_named_before_any_work(tiny_folder, tokenizer):
    with pytest.raises(ValueError, match="Unknown task 'chess'"):
        evaluate("nowhere", "chess")
    with pytest.raises(ValueError, match="Unknown split 'visual_ood' of GP-L"):
        evaluate("nowhere", "gp-l", ["visual_ood"])
    with pytest.raises(CheckpointError, match="There is no model 'nowhere'"):
        evaluate("nowhere", "gp-l")
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.name_or_path = "nowhere"
    with pytest.raises(CheckpointError, match="There is no tokenizer in 'nowhere' .*; give it as tokenizer="):
        evaluate(model, "gp-l")
