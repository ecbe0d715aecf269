"""SFT: the demonstrations are right, nothing held out is in them, and the loss falls on the answer only."""

import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from test_gp_l_curriculum import formulas, lists_of_numbers, numbers_in, value
from tiny_models import reference_logprobs, tiny_policy

from sftrl_lib.configs import SFTConfig
from sftrl_lib.points import card_numbers, grade, is_heldout
from sftrl_lib.points.demonstrations import demonstration
from sftrl_lib.points.prompts import FEEDBACK, task_prompt
from sftrl_lib.points.verifier import read_cards, read_formula, read_numbers
from sftrl_lib.tasks import GP_L, VIRL_L
from sftrl_lib.training import sft
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.data import DatasetError, make_dataset, read_dataset
from sftrl_lib.training.sft import steps_for, tokens_per_example, train_steps
from sftrl_lib.training.snapshots import snapshots

CONFIG = SFTConfig(examples=48, batch_size=8, lr=3e-3)


def demonstrations(kind, count=600, seed=0):
    rng = np.random.default_rng(seed)
    return [demonstration(rng, kind) for _ in range(count)]


# The data


def cards_of(example):
    [answer] = example["completion"]
    return read_cards(answer["content"])


@pytest.mark.parametrize("kind", ["expert", "suboptimal"])
def test_the_last_answer_is_right(kind):
    for example in demonstrations(kind):
        [answer] = example["completion"]
        cards = cards_of(example)
        assert answer["role"] == "assistant" and example["prompt"][0]["content"] == task_prompt(cards)
        assert grade(answer["content"], cards).outcome == "correct"
        formula, target = read_formula(answer["content"]).split("=")
        assert value(formula) == int(target) == 24  # by Python's own grammar
        numbers = read_numbers(answer["content"])
        assert sorted(numbers_in(formula)) == sorted(numbers) and tuple(numbers) == card_numbers(cards)


def test_expert_data_are_one_question_and_one_answer():
    examples = demonstrations("expert")
    assert all(len(example["prompt"]) == 1 and example["prompt"][0]["role"] == "user" for example in examples)
    assert len({tuple(cards_of(example)) for example in examples}) > 400
    assert len({read_formula(example["completion"][0]["content"]) for example in examples}) > 300


def test_suboptimal_data_fail_first_and_say_why():
    lengths, outcomes = set(), set()
    for example in demonstrations("suboptimal"):
        turns, cards = example["prompt"], cards_of(example)
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        for mistake, feedback in zip(turns[1::2], turns[2::2], strict=True):
            outcome = grade(mistake["content"], cards).outcome
            assert outcome != "correct" and feedback["content"] == FEEDBACK[outcome]
            assert max(read_numbers(mistake["content"])) <= 10, "11, 12 and 13 belong to the test"
            outcomes.add(outcome)
        lengths.add(len(turns) // 2)
    assert lengths == {0, 1, 2, 3, 4} and outcomes == {"wrong_value", "wrong_numbers", "illegal"}


@pytest.mark.parametrize("kind", ["expert", "suboptimal"])
def test_no_heldout_hand_is_shown(kind):
    for example in demonstrations(kind, 1000):
        for turn in [*example["prompt"], *example["completion"]]:
            shown = lists_of_numbers(turn["content"])
            shown += [numbers_in(f) for f in formulas(turn["content"]) if value(f) is not None]
            assert not any(len(numbers) == 4 and is_heldout(numbers) for numbers in shown), turn["content"]
        assert not is_heldout(card_numbers(cards_of(example)))


def test_a_dataset_is_saved_once_and_loads_anywhere(tmp_path):
    made = make_dataset(tmp_path / "expert", GP_L, "expert", 20, seed=3)
    assert made.to_list() == demonstrations("expert", 20, seed=3)
    assert load_from_disk(str(tmp_path / "expert")).to_list() == made.to_list()  # by the library alone
    again = make_dataset(tmp_path / "expert", GP_L, "expert", 999, seed=4)
    assert again.to_list() == made.to_list(), "what is there is kept"
    assert [path.name for path in tmp_path.iterdir()] == ["expert"]


def corrupt(folder, kind):
    [arrow] = folder.glob("*.arrow")
    if kind == "half the rows":
        arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    elif kind == "no rows":
        arrow.unlink()
    elif kind == "noise":
        arrow.write_bytes(b"\x00" * 100)
    elif kind == "no description":
        (folder / "dataset_info.json").unlink()
        (folder / "state.json").unlink()
    elif kind == "other columns":
        shutil.rmtree(folder)
        Dataset.from_list([{"text": "1+1"}]).save_to_disk(folder)
    elif kind == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize(
    "kind", ["half the rows", "no rows", "noise", "no description", "other columns", "empty folder"]
)
def test_a_damaged_dataset_is_named(kind, tmp_path):
    folder = tmp_path / "expert"
    make_dataset(folder, GP_L, "expert", 300, seed=0)
    corrupt(folder, kind)
    for load in (lambda: read_dataset(folder), lambda: make_dataset(folder, GP_L, "expert", 300, 0)):
        with pytest.raises(DatasetError, match="remove it and make it again.$") as error:
            load()
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_unknown(tmp_path):
    with pytest.raises(DatasetError):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(ValueError, match="'best'.*expert, suboptimal"):
        make_dataset(tmp_path / "x", GP_L, "best", 3, 0)
    with pytest.raises(ValueError, match="V-IRL-L has no 'suboptimal' demonstrations; use one of expert.$"):
        make_dataset(tmp_path / "x", VIRL_L, "suboptimal", 3, 0)
    assert not any(tmp_path.iterdir())


# The training


def branch(policy, data, folder, compute=None, **more):
    """What SFT is given; its steps are said apart, so there is no budget."""
    return Branch(policy, GP_L, CONFIG, folder, compute or Compute(1), budget=0.0, data=data, **more)


@pytest.fixture
def seen(monkeypatch):
    """Every batch that the trainer's loss was computed on."""
    batches = []

    class Watched(sft._Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            batches.append({name: v.clone() for name, v in inputs.items() if isinstance(v, torch.Tensor)})
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr(sft, "_Trainer", Watched)
    return batches


@pytest.mark.parametrize("kind", ["expert", "suboptimal"])
def test_the_loss_falls_on_the_answer_only(policy, kind, tmp_path, seen):
    """And every batch holds exactly what the chat template makes of the examples; all of it is counted."""
    tokenizer = policy.tokenizer
    data = Dataset.from_list(demonstrations(kind, 48))
    compute = Compute(policy.parameters_count)
    train_steps(branch(policy, data, tmp_path, compute), 6)
    expected = {}
    for example in data:
        prompt = policy.prompt_ids(example["prompt"])
        answer = tokenizer(example["completion"][0]["content"], add_special_tokens=False).input_ids
        expected[tuple([*prompt, *answer, tokenizer.eos_token_id])] = len(prompt)
    found = []
    for batch in seen:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            row = tuple(ids[mask.bool()].tolist())
            start = expected[row]
            assert labels[mask.bool()].tolist() == [-100] * start + list(row[start:])
            assert (labels[~mask.bool()] == -100).all()
            found.append(row)
    assert len(seen) == 6 and sorted(found) == sorted(expected), "one pass over 48 examples"
    assert compute.trained_tokens == sum(map(len, found))


def test_training_raises_the_likelihood_of_answers(policy, tmp_path):
    data = Dataset.from_list(demonstrations("expert", 64))

    def likelihood():
        total = []
        for example in data.select(range(10)):
            prompt = policy.prompt_ids(example["prompt"])
            answer = policy.tokenizer(example["completion"][0]["content"], add_special_tokens=False).input_ids
            total.append(reference_logprobs(policy, prompt + answer)[len(prompt) - 1 :].mean().item())
        return np.mean(total)

    before = likelihood()
    train_steps(branch(policy, data, tmp_path), 30)
    assert likelihood() > before + 0.5


def test_snapshots_come_at_equal_shares(policy, tmp_path):
    data = Dataset.from_list(demonstrations("expert", 16))
    compute = Compute(policy.parameters_count, init_tokens=500)
    train_steps(branch(policy, data, tmp_path, compute, checkpoints=3), 7)
    found = snapshots(tmp_path)
    assert [s.step for s in found] == [3, 5, 7]
    tokens = [s.compute.trained_tokens for s in found]
    assert tokens == sorted(tokens) and tokens[-1] == compute.trained_tokens
    assert {s.compute.init_tokens for s in found} == {500}


def test_steps_for_a_budget(policy):
    """6 N tokens, by hand."""
    data = Dataset.from_list(demonstrations("expert", 50))
    tokens = [len(policy.prompt_ids(e["prompt"])) for e in data]
    tokens = [t + len(policy.tokenizer(e["completion"][0]["content"]).input_ids) + 1
              for t, e in zip(tokens, data, strict=True)]  # fmt: skip
    assert tokens_per_example(policy, data) == pytest.approx(np.mean(tokens))
    per_step = 6 * policy.parameters_count * CONFIG.batch_size * np.mean(tokens)
    assert [steps_for(policy, data, CONFIG, per_step * n) for n in (0.2, 1, 2.6, 40)] == [1, 1, 3, 40]


def test_the_seed_orders_the_data(tokenizer, tmp_path, seen):
    data = Dataset.from_list(demonstrations("expert", 32))
    for i, seed in enumerate((1, 1, 2)):
        train_steps(branch(tiny_policy(tokenizer), data, tmp_path / str(i), checkpoints=0, seed=seed), 2)
    first, again, other = (torch.cat([batch["input_ids"][:, :30] for batch in seen[i : i + 2]]) for i in (0, 2, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
