"""Checkpoints as players: who is found, what they say with which probability, and shipping them."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tiny_models import reference_logits, tiny_policy, tiny_profile, tiny_vision_policy

from sftrl_lib import paths
from sftrl_lib.configs import LoRAConfig, Protocol
from sftrl_lib.evaluation import players
from sftrl_lib.evaluation.measurements import Part, cell_of
from sftrl_lib.evaluation.model_card import card
from sftrl_lib.evaluation.players import answer, export, find_cast, quick_look
from sftrl_lib.fingerprint import claim
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.profiles import PROFILES
from sftrl_lib.runs import Run
from sftrl_lib.tasks import GP_L, GP_VL
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.snapshots import snapshots_of, write_snapshot


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home and a place for shipped players, both empty."""
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    monkeypatch.setattr(paths, "PLAYERS", tmp_path / "shipped")
    return tmp_path


@pytest.fixture
def profile(home, tiny_folder, monkeypatch):
    """A profile with one study, known by name."""
    monkeypatch.setitem(PROFILES, "tiny", tiny_profile(tiny_folder))
    return PROFILES["tiny"]


def trained(profile, tokenizer, methods=("init", "sft", "rl"), seed=0):
    """Put ends of runs where training leaves them."""
    for number, method in enumerate(methods):
        run = Run(profile, "gp-l", method, seed=seed)
        claim(run.folder, run.identity)
        policy = tiny_policy(tokenizer, critic=method == "rl", seed=10 * seed + number + 1)
        write_snapshot(policy, run.folder, 7, Compute(policy.parameters_count, 10, 20))


def observation(task=GP_L, seed=1):
    return task.training_env(2).reset(seed=seed)[0]


# What they say


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("task", [GP_L, GP_VL])
def test_probabilities_are_those_of_a_plain_forward_pass(task, temperature, tokenizer, monkeypatch):
    policy = tiny_policy(tokenizer) if task is GP_L else tiny_vision_policy(tokenizer)
    told, seen = [], observation(task)
    tokens_of = players._tokens
    monkeypatch.setattr(players, "_tokens", lambda *given: told.append(given) or tokens_of(*given))
    spoken = answer(policy, seen, temperature, max_new_tokens=12, seed=3)
    [(_, ids, chances)] = told
    prompt = policy.prompt(seen)
    logits = reference_logits(policy, [*prompt.ids, *ids], prompt.picture)[len(prompt.ids) - 1 : -1]
    expected = torch.softmax(logits / (temperature or 1.0), -1)
    torch.testing.assert_close(chances[: len(ids)].double(), expected, rtol=1e-3, atol=1e-6)
    said = expected.gather(1, torch.tensor(ids)[:, None])
    assert math.isclose(math.prod(token.probability for token in spoken.tokens), float(said.prod()), rel_tol=1e-2)
    assert temperature or ids == expected.argmax(-1).tolist()
    for token in spoken.tokens:
        assert [chance for _, chance in token.others] == sorted((c for _, c in token.others), reverse=True)
        assert sum(chance for _, chance in token.others) + token.probability <= 1 + 1e-5


def test_an_answer_is_that_of_its_seed(tokenizer):
    policy, seen = tiny_policy(tokenizer), observation()
    said = [answer(policy, seen, 1.0, 12, seed).text for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    before = torch.get_num_threads()
    answer(policy, seen)
    assert torch.get_num_threads() == before


def test_a_character_of_several_tokens_is_one_piece(tokenizer):
    policy = tiny_policy(tokenizer)
    ids = tokenizer("K → é", add_special_tokens=False).input_ids
    chances = torch.full((len(ids), len(tokenizer)), 0.5)
    tokens = list(players._tokens(policy, ids, chances))
    assert "".join(token.text for token in tokens) == "K → é" and "�" not in "".join(t.text for t in tokens)
    assert math.isclose(math.prod(token.probability for token in tokens), 0.5 ** len(ids))


# Who is found


def test_without_any_run_the_foundation_plays_and_one_sentence_says_what_is_missing(profile):
    cast = find_cast("gp-l", "tiny")
    [player] = cast.load(0)
    assert player.name == "Foundation" and player.answer(observation(), 1.0, 0).text
    assert "make reproduce PROFILE=tiny TASKS=GP-L" in cast.note and cast.note.count(". ") == 0 and not cast.toy


def test_what_was_trained_plays_by_seed_with_its_profile(profile, tokenizer):
    for seed in (0, 12):
        trained(profile, tokenizer, seed=seed)
    cast = find_cast("gp-l", "tiny")
    assert cast.seeds == (0, 12) and not cast.note and not cast.toy
    assert [player.label for player in cast.load(12)] == [f"{name} (tiny, seed 12)" for name in ("Init", "SFT", "RL")]
    said = {player.answer(observation(), 0.0, 0).text for seed in cast.seeds for player in cast.load(seed)}
    assert len(said) > 3, "different models"


def test_what_is_missing_is_named(profile, tokenizer):
    trained(profile, tokenizer, ("init", "sft"))
    cast = find_cast("gp-l", "tiny")
    assert [player.name for player in cast.load(0)] == ["Init", "SFT"] and cast.note.startswith("Not here: RL; `make")


def test_models_of_other_settings_do_not_play(profile, tokenizer):
    trained(profile, tokenizer)
    claim(Run(profile, "gp-l", "init").folder.parent / "x", {})
    (Run(profile, "gp-l", "rl").folder / "made_with.json").write_text('{"version": 0}')
    assert [player.name for player in find_cast("gp-l", "tiny").load(0)] == ["Init", "SFT"]


def test_real_models_go_before_shipped_ones_and_those_before_toys(profile, tokenizer, monkeypatch):
    toy = replace(PROFILES["tiny"], name="smoke", toy=True)
    monkeypatch.setitem(PROFILES, "smoke", toy)
    monkeypatch.setitem(PROFILES, "laptop", replace(PROFILES["tiny"], name="laptop"))
    trained(toy, tokenizer)
    cast = find_cast("gp-l")
    assert cast.toy and cast.load(0)[0].source == "smoke, seed 0"
    trained(profile, tokenizer, seed=3)
    export(profile, (3,))
    (paths.HOME / "build" / "tiny").rename(paths.HOME / "build" / "elsewhere")
    cast = find_cast("gp-l")
    assert not cast.toy and cast.load(3)[0].source == "tiny, seed 3, shipped"
    (paths.HOME / "build" / "elsewhere").rename(paths.HOME / "build" / "tiny")
    assert find_cast("gp-l").load(3)[0].source == "tiny, seed 3"
    assert find_cast("gp-l", "smoke").toy


def test_models_of_the_search_for_learning_rates_play_only_when_named(profile, tokenizer, monkeypatch):
    monkeypatch.setitem(PROFILES, "search", replace(PROFILES["tiny"], name="search"))
    trained(PROFILES["search"], tokenizer)
    assert find_cast("gp-l").load(0)[0].name == "Foundation" and "PROFILE=laptop" in find_cast("gp-l").note
    assert find_cast("gp-l", "search").load(0)[0].source == "search, seed 0"


@pytest.mark.parametrize(("key", "profile_name", "known"), [
    ("gp", "", "gp-l"), ("gp-l", "huge", "laptop"), ("virl-l", "tiny", "gp-l"),
])  # fmt: skip
def test_unknown_names_are_told_with_the_known_ones(key, profile_name, known, profile):
    with pytest.raises(ValueError, match=known):
        find_cast(key, profile_name)


def test_a_quick_look_counts_what_is_solved(profile, tokenizer):
    trained(profile, tokenizer, ("init",))
    frame = quick_look(find_cast("gp-l", "tiny"), episodes=4, attempts=2)
    assert list(frame.index) == ["Init"] and frame.shape == (1, 2) and set(frame.to_numpy().ravel()) <= {0, 25, 50, 100}


def test_a_quick_look_is_a_test_of_that_many_episodes(profile, tokenizer, monkeypatch):
    trained(profile, tokenizer, ("init",))
    asked = []

    def played(policy, task, split, how, seed, description=""):
        asked.append((split, how))
        return [type("Episode", (), {"terminated": split == "id" or number < 1}) for number in range(how.episodes)]

    monkeypatch.setattr(players, "play", played)
    frame = quick_look(find_cast("gp-l", "tiny"), episodes=4, attempts=3)
    assert frame.loc["Init"].tolist() == [100, 25]
    assert asked == [(split, Protocol(4, 3, 1.0, 6)) for split in ("id", "rule_ood")]


# Shipping


def test_shipped_models_answer_as_the_originals_and_say_where_they_come_from(profile, tokenizer):
    trained(profile, tokenizer)
    run = Run(profile, "gp-l", "sft")
    row = cell_of(run).rows(snapshots_of(run)[-1], run.task, "id", {"success": (0.75, 40)})
    Part(run.tests, run.tests_identity).add(row)
    folder = export(profile)
    assert sorted(path.name for path in (folder / "gp-l").iterdir()) == ["init-s0", "rl-s0", "sft-s0"]
    shipped, original = folder / "gp-l" / "sft-s0", snapshots_of(run)[-1].folder
    record = json.loads((shipped / "record.json").read_text())
    assert record["run"] == run.name and record["step"] == 7 and record["tested"] == {"id": {"success": 0.75, "n": 40}}
    assert record["same_greedy_answers"]["n"] == players.AGREEMENT and record["exported"]["versions"]
    small, large = (load_policy(source).model.state_dict() for source in (shipped, original))
    for name, weight in large.items():
        torch.testing.assert_close(small[name], weight.half().float(), rtol=0, atol=0)
    assert not list(folder.rglob("value_head*")), "the critic of RL is not needed"
    assert (shipped / "model.safetensors").stat().st_size < 0.6 * (original / "model.safetensors").stat().st_size


def test_the_model_card_says_what_the_record_says():
    """And nothing else: without tests there is no number."""
    record = {
        "run": "gp-l-rl-main-s3", "profile": "laptop", "task": "gp-l", "method": "rl", "seed": 3, "step": 41,
        "train_flops": 5.5e12, "identity": "0123456789abcdef", "dtype": "float16", "sha256": "ab", "made_from_sha256":
        "cd", "tested": {"id": {"success": 0.8215, "n": 1000}, "rule_ood": {"success": 0.25, "n": 999}},
        "same_greedy_answers": {"share": 0.984375, "n": 64}, "exported": {"commit": "f00", "versions": "Python 3.11"},
    }  # fmt: skip
    text = card(record)
    assert text.startswith("---\nlicense: apache-2.0\n") and "# RL on GP-L, seed 3" in text
    assert "| ID: the training rule | success rate | 82.2 % | 1000 |" in text and "| 25.0 % | 999 |" in text
    for told in ("step 41, 5.5e+12 FLOPs", "`ab`", "`cd`", "on 64 hands", "98 %", "* commit: f00", "0123456789abcdef"):
        assert told in text
    assert "not tested before" in card({**record, "tested": {}}) and "82.2" not in card({**record, "tested": {}})


def test_export_replaces_all_or_nothing(profile, tokenizer, monkeypatch):
    trained(profile, tokenizer)
    trained(profile, tokenizer, seed=1)
    export(profile)
    with pytest.raises(CheckpointError, match="holds no model yet"):
        export(profile, (5,))
    monkeypatch.setattr(players, "LARGEST", 1000)
    with pytest.raises(ValueError, match="MB, over 0.001; give fewer seeds"):
        export(profile, (1,))
    assert {path.name for path in (paths.PLAYERS / "gp-l").iterdir()} == {"init-s0", "sft-s0", "rl-s0"}
    monkeypatch.undo()


def test_adapters_are_not_shipped(profile):
    with pytest.raises(ValueError, match="adapters"):
        export(replace(profile, name="other", lora=LoRAConfig()))


@pytest.mark.parametrize("damage", ["weights", "record", "method"])
def test_damaged_shipped_models_are_refused_by_name(damage, profile, tokenizer):
    trained(profile, tokenizer)
    folder = export(profile) / "gp-l" / "rl-s0"
    (paths.HOME / "build").rename(paths.HOME / "gone")
    if damage == "weights":
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)
    elif damage == "record":
        (folder / "record.json").write_text("{")
    else:
        (folder / "record.json").write_text(json.dumps({"method": "../x", "profile": "tiny", "seed": 0, "sha256": ""}))
    with pytest.raises(CheckpointError, match="rl-s0.*restore the file"):
        find_cast("gp-l", "tiny").load(0)


def test_exporting_from_the_command_line(profile, tokenizer, capsys):
    assert players.main(["export", "--profile", "tiny"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    trained(profile, tokenizer)
    assert players.main(["export", "--profile", "tiny", "--seeds", "0", "--tasks", "GP-L"]) == 0
    assert str(paths.PLAYERS) in capsys.readouterr().out
    assert players.main(["export", "--profile", "tiny", "--tasks", "V-IRL-L"]) == 2
    assert "'V-IRL-L'; use some of GP-L" in capsys.readouterr().err


def test_shipped_players_that_come_with_the_package_load():
    """Whatever is in the checkout: none yet, or all that the records say."""
    for record in paths.PLAYERS.glob("*/*/record.json"):
        assert players.read_record(record.parent)["task"] == record.parent.parent.name
