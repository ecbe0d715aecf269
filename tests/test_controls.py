"""The controls beyond the paper: their tests of hands, their ways to train, and that each runs on a toy budget."""

import json
import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from tiny_models import reference_logits, tiny_policy, tiny_profile, tiny_vision_policy, with_advantages

from sftrl_lib import paths, tables
from sftrl_lib.configs import PPOConfig, RejectionConfig, SFTConfig
from sftrl_lib.evaluation import measurements
from sftrl_lib.evaluation.divergence import kl
from sftrl_lib.evaluation.pass_at_k import pass_at_k, samples
from sftrl_lib.experiments import (
    DFT,
    DIVERSITY,
    GRPO,
    KL_SFT,
    MAIN,
    PASS_AT_K,
    RULE_GRID,
    RULE_GRID_INIT,
    STRICT,
    Arm,
    rejection,
)
from sftrl_lib.foundation import gp_l_curriculum
from sftrl_lib.interfaces.questions import questions
from sftrl_lib.jobs import jobs, parse_experiments
from sftrl_lib.messages import message_text
from sftrl_lib.models.rollout import Attempt, Conversation, Episode
from sftrl_lib.points import card_numbers
from sftrl_lib.points.prompts import expert_response, rule_sentence
from sftrl_lib.points.rules import KEPT_FOR_TESTS, RULES, Rule, another_rule, vary
from sftrl_lib.points.solver import solve
from sftrl_lib.points.verifier import grade, read_numbers
from sftrl_lib.profiles import LAPTOP
from sftrl_lib.runs import Run
from sftrl_lib.task import PROBES
from sftrl_lib.tasks import GP_L, GP_VL, TASKS
from sftrl_lib.training import collators, fork, ppo, sft
from sftrl_lib.training import rejection as rejecting
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.data import make_dataset
from sftrl_lib.training.snapshots import snapshots_of

# Hands and prompts


def first_hands(split, count=40):
    env = GP_L.make_env(GP_L.split(split), 1)
    for seed in range(count):
        observation, info = env.reset(seed=seed)
        yield observation["messages"][0]["content"], info


@pytest.mark.parametrize("split", [name for name in PROBES if name.startswith("grid_")])
def test_a_cell_of_the_grid_differs_in_what_its_name_says(split):
    _, rule, sentence, numbers = split.split("_")
    for prompt, info in first_hands(split):
        assert ("respectively" in prompt) == (sentence == "long")
        assert ("count as '10'" in prompt) == (rule == "old")
        assert (max(info["numbers"]) > 10) == (numbers == "high")
        assert all(number <= 13 for number in info["numbers"]) and solve(info["numbers"])
        assert {"J", "Q", "K"} & set(info["cards"])


def test_the_long_sentence_is_as_long_as_that_of_the_new_rule():
    long, new = (rule_sentence(rule) for rule in (Rule(10, 10, 10, spelt_out=True), RULES["distinct"]))
    assert long.translate(str.maketrans("0123", "####")) == new.translate(str.maketrans("0123", "####"))
    assert rule_sentence("ten") == "'J', 'Q', and 'K' count as '10'"


def test_a_fake_prompt_states_a_rule_that_does_not_score():
    env = GP_L.make_env(GP_L.split("fake"), 2)
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        cards = info["cards"]
        assert "'11', '12', and '13' respectively" in observation["messages"][0]["content"]
        assert list(info["numbers"]) == list(card_numbers(cards, "ten"))
        _, reward, terminated, _, _ = env.step(expert_response(cards, solve(card_numbers(cards))[0]))
        assert reward == 5 and terminated


def test_five_cards():
    for prompt, info in first_hands("five", 10):
        assert len(info["cards"]) == 5 and "a set of 5 cards" in prompt and str(info["cards"]) in prompt
        assert makes(list(info["numbers"]), 24)
    for row in questions(TASKS["gp-l"], "five", 20):
        assert grade(row["answer"], row["cards"], row["rule"], row["target"]).outcome == "correct"
    env = GP_L.make_env(GP_L.split("five"), 1)
    _, info = env.reset(options={"hand": ["A", "2", "3", "4", "K"], "suits": ["spades"] * 5})
    assert info["cards"] == ["A", "2", "3", "4", "K"]
    with pytest.raises(ValueError, match="a list of five cards"):
        env.reset(options={"hand": ["4", "3", "2", "K"]})
    with pytest.raises(ValueError, match="no pictures of hand_size=5"):
        GP_VL.make_env({**GP_VL.training, "hand_size": 5}, 1)


def makes(numbers, target):
    """Brute force in floating point, independent of the solver."""
    if len(numbers) == 1:
        return abs(numbers[0] - target) < 1e-6
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
                results = [a + b, a - b, a * b] + ([a / b] if abs(b) > 1e-9 else [])
                if any(makes([*rest, x], target) for x in results):
                    return True
    return False


def test_the_panels_rules_are_stated():
    for split, values in {"all5": "'5'", "all7": "'7'", "all12": "'12'", "large": "'14', '17', and '19'"}.items():
        prompt, info = next(first_hands(split))
        assert prompt.count(f"count as {values}") == 2 and {"J", "Q", "K"} & set(info["cards"])


def test_an_answer_without_all_fields_earns_nothing_if_all_count():
    for fields, right in (("formula", True), ("all", False)):
        env = GP_L.make_env({**GP_L.training, "fields": fields}, 3)
        _, info = env.reset(seed=1)
        solution = solve(info["numbers"])[0]
        _, reward, terminated, *_ = env.step(f'{{"formula": "{solution}=24"}}')
        assert terminated is right and reward == (5 if right else -3)
        if not right:
            assert env.step(expert_response(info["cards"], solution))[1] == 5


# Rules in training


def test_diverse_rules_leave_out_what_is_tested():
    rng = np.random.default_rng(0)
    rules = [another_rule(rng) for _ in range(3_000)]
    assert not {RULES["ten"], *KEPT_FOR_TESTS} & set(rules)
    assert {value for rule in rules for value in rule.values} == set(range(1, 11))
    tested = {GP_L.split(name)["rule"] for name in ("all5", "all7", "all12", "large")}
    assert not tested & set(rules)


def test_shares_of_zero_draw_nothing():
    """So that hands of the main comparison are what they were."""
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    assert vary(RULES["ten"], rng) is RULES["ten"] and rng.random() == same.random()


@pytest.mark.parametrize("option, share", [("diversity", 0.7), ("spelt_out", 0.5)])
def test_demonstrations_and_rollouts_meet_the_same_shares(option, share):
    task = GP_L.trained_with({option: share})
    env = task.training_env(1)
    played = [env.reset(seed=seed)[0]["messages"][0]["content"] for seed in range(400)]
    shown = list(islice(task.demonstrations("expert", np.random.default_rng(0)), 400))
    for prompts in (played, [example["prompt"][0]["content"] for example in shown]):
        usual = [f"{rule_sentence('ten')}, and each" in prompt for prompt in prompts]
        assert np.mean(usual) == pytest.approx(1 - share, abs=0.08)
    numbers = [read_numbers(message_text(example["completion"][0])) for example in shown]
    assert max(max(found) for found in numbers) == 10
    assert GP_L.trained_with({option: 0.0}) is GP_L and task.splits == GP_L.splits


# Pictures dropped


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "gp-vl-expert", GP_VL, "expert", 16, seed=3)


def branch_of(policy, folder, config, data, task=GP_VL, budget=1.0, reference=None):
    compute = Compute(policy.parameters_count)
    return Branch(policy, task, config, folder, compute, budget, seed=1, data=data, reference=reference)


def released_collator(read):
    """What the released code's collator does, re-implemented: it asks `any` of the pictures, and catches the error."""

    def collate(examples):
        batch = read(examples)
        pictures = list(batch["pixel_values"])
        try:
            shown = torch.stack(pictures) if any(pictures) else None
        except RuntimeError:
            shown = None
        kept = {name: tensor for name, tensor in batch.items() if name != "pixel_values"}
        return kept if shown is None else {**kept, "pixel_values": shown}

    return collate


def test_dropped_is_what_the_released_collator_does(tokenizer, pictured):
    processor = tiny_vision_policy(tokenizer).processor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    read = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    for collate in (released_collator(read), collators.without_pictures(read)):
        seen, batch = read(list(pictured)[:4]), collate(list(pictured)[:4])
        assert set(seen) - set(batch) == {"pixel_values"}
        assert all(torch.equal(batch[name], seen[name]) for name in batch)
        assert (batch["input_ids"] == processor.image_token_id).any(), "the image tokens stay in the prompt"


@pytest.mark.parametrize("pictures", ["shown", "dropped"])
def test_only_shown_pictures_teach_the_tower(tokenizer, pictured, tmp_path, pictures):
    policy = tiny_vision_policy(tokenizer, critic=False)
    before = [p.detach().clone() for p in policy.decoder.vision_tower.parameters()]
    config = SFTConfig(examples=16, batch_size=8, pictures=pictures)
    sft.train_steps(branch_of(policy, tmp_path, config, pictured), 2)
    same = [torch.equal(a, b) for a, b in zip(before, policy.decoder.vision_tower.parameters(), strict=True)]
    assert all(same) if pictures == "dropped" else not any(same[:2])
    with pytest.raises(ValueError, match="GP-L has none"):
        blind = replace(config, pictures="dropped")
        sft.train(branch_of(policy, tmp_path, blind, pictured.remove_columns("images"), GP_L))


# Other losses


@pytest.fixture
def text_data(tmp_path):
    return make_dataset(tmp_path / "data", GP_L, "expert", 8, seed=3)


def first_loss(policy, data, folder, config, reference=None):
    """The loss of the first step, all examples in one batch, and the answers' log-probabilities by a forward pass."""
    found = []
    for row in data:
        messages = row["prompt"] + row["completion"]
        prompt = policy.prompt_ids(row["prompt"])
        text = policy.tokenizer.apply_chat_template(messages, tokenize=False)
        ids = policy.tokenizer(text, add_special_tokens=False).input_ids
        assert ids[: len(prompt)] == prompt
        models = policy, reference or policy
        here = [torch.log_softmax(reference_logits(m, ids), -1)[len(prompt) - 1 : -1] for m in models]
        found.append((*here, torch.tensor(ids[len(prompt) :])))
    sft.train_steps(branch_of(policy, folder, config, data, GP_L, reference=reference), 1)
    return json.loads((folder / "log.json").read_text())[0]["loss"], found


def test_dft_weighs_each_token_with_its_probability(policy, text_data, tmp_path):
    loss, rows = first_loss(policy, text_data, tmp_path / "run", SFTConfig(batch_size=8, loss="dft"))
    chosen = torch.cat([p.gather(-1, token[:, None])[:, 0] for p, _, token in rows])
    assert loss == pytest.approx(-(chosen * chosen.exp()).mean().item(), rel=1e-4)


def test_the_kl_penalty_of_sft(policy, tokenizer, text_data, tmp_path):
    init = tiny_policy(tokenizer, seed=9)
    loss, rows = first_loss(policy, text_data, tmp_path / "run", SFTConfig(batch_size=8, kl_coef=0.5), init)
    nll = -torch.cat([p.gather(-1, token[:, None])[:, 0] for p, _, token in rows]).mean()
    apart = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q, _ in rows]).mean()
    assert apart > 0.1 and loss == pytest.approx((nll + 0.5 * apart).item(), rel=1e-4)
    with pytest.raises(ValueError, match="SFTConfig.loss must be 'nll' with a kl_coef"):
        SFTConfig(loss="dft", kl_coef=0.1)


# Own right answers


def expert_rollout(policy, envs, resets, *_):
    """Plays the expert: wrong once on every second hand, right then; on every fourth hand never right."""
    episodes = []
    for number, (env, reset) in enumerate(zip(envs, resets, strict=False)):
        _, info = env.reset(**reset)
        texts = ["nonsense"] * (number % 2) + [expert_response(info["cards"], solve(info["numbers"])[0])]
        texts = ["nonsense"] * env.max_attempts if number % 4 == 3 else texts
        attempts = []
        for text in texts:
            *_, info = env.step(text)
            attempts.append(Attempt(1, 2, [0.0], 0.0, text, 0.0, info["outcome"], info["feedback"]))
        episodes.append(Episode([Conversation([1, 2], attempts)], info, tokens_read=10))
    return episodes


@pytest.mark.parametrize("counted, count, rows", [("rollouts", 16, 12), ("right", 10, 10)])
def test_only_right_answers_are_kept(policy, tmp_path, monkeypatch, counted, count, rows):
    monkeypatch.setattr(rejecting, "rollout", expert_rollout)
    config = RejectionConfig(counted=counted, count=count, attempts=3, batch_size=4)
    branch = replace(branch_of(policy, tmp_path, config, None, GP_L), rollout_batch=8)
    data, tokens = rejecting.sample(branch)
    assert len(data) == rows and tokens == 160
    turns = [len(row["prompt"]) for row in data]
    assert set(turns) == {1, 3}, "a failed answer and its feedback stay in the prompt"
    for row in data:
        cards = json.loads(row["completion"][0]["content"].split('"cards": ')[1].split("]")[0].replace("'", '"') + "]")
        assert str(cards) in row["prompt"][0]["content"]


def test_sampling_is_paid_for_out_of_the_budget(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(rejecting, "rollout", expert_rollout)
    config = RejectionConfig(count=16, attempts=3, batch_size=4)
    paid = 2.0 * policy.parameters_count * 160
    branch = branch_of(policy, tmp_path, config, None, GP_L, budget=paid + 6.0 * policy.parameters_count * 3_000)
    rejecting.train(branch)
    spent = branch.compute
    assert spent.buffer_tokens == 160 and 2_000 < spent.trained_tokens < 4_000
    monkeypatch.setattr(rejecting, "rollout", lambda *_: pytest.fail("sampled again"))
    again = branch_of(policy, tmp_path, config, None, GP_L, budget=paid)
    with pytest.raises(ValueError, match="has spent the whole budget"):
        rejecting.train(again)


def test_it_says_so_if_nothing_is_right(policy, tmp_path):
    config = RejectionConfig(count=4, attempts=1, max_new_tokens=2)
    with pytest.raises(ValueError, match="4 hands gave no right answer"):
        rejecting.train(branch_of(policy, tmp_path, config, None, GP_L))


# GRPO


def test_grpos_advantages_by_hand():
    def episode(*rewards):
        attempts = [Attempt(1, 2, [0.0], 7.0, reward=reward) for reward in rewards]
        return Episode([Conversation([1, 2], attempts)], {})

    config = PPOConfig(episodes=4, group=2, gamma=0.5)
    groups = [episode(5), episode(-1, -1), episode(-2, 5), episode(-2, 5)]
    rows = with_advantages(groups, config)
    returns = [[step.return_ for _, steps in row for step in steps] for row in rows]
    assert returns == [[5.0], [-1.5, -1.0], [0.5, 5.0], [0.5, 5.0]]
    first, second, *equal = ([step.advantage for _, steps in row for step in steps] for row in rows)
    half = 6.5 / 2  # the spread of 5 and -1.5 around their mean, as of a sample of two: half * sqrt(2)
    assert first == pytest.approx([half / (half * 2**0.5 + 1e-4)])
    assert second == pytest.approx([-first[0]] * 2), "one advantage for all answers of an episode"
    assert equal == [[0.0, 0.0], [0.0, 0.0]], "a group without differences teaches nothing"
    for bad in (1, 3):
        with pytest.raises(ValueError, match="PPOConfig.group must be 0 or a divisor of episodes"):
            PPOConfig(episodes=4, group=bad)


def test_a_group_plays_one_hand(policy, tmp_path, monkeypatch):
    played, original = [], ppo.rollout
    monkeypatch.setattr(ppo, "rollout", lambda *args: played.append(original(*args)) or played[-1])
    config = PPOConfig(episodes=6, group=3, attempts=1, max_new_tokens=4, minibatches=1)
    ppo.train(branch_of(policy, tmp_path, config, None, GP_L, budget=1.0))
    hands = [tuple(episode.info["cards"]) for episode in played[0]]
    assert hands[:3] == [hands[0]] * 3 and hands[3:] == [hands[3]] * 3 and hands[0] != hands[3]


# What is measured


def test_pass_at_k_is_the_mean_over_all_choices():
    from itertools import combinations

    for n, right in ((5, 0), (5, 2), (6, 6)):
        answers = [i < right for i in range(n)]
        for k in range(1, n + 1):
            expected = np.mean([any(chosen) for chosen in combinations(answers, k)])
            assert pass_at_k(n, right, k) == pytest.approx(expected)


def test_distinct_formulas_are_counted_once():
    def answer(formula, outcome="correct"):
        attempt = Attempt(1, 2, [0.0], 0.0, f'{{"formula": "{formula}"}}', outcome=outcome)
        return Episode([Conversation([1, 2], [attempt])], {})

    hand = [answer("4*6=24"), answer("4 * 6=24"), answer("6*4=24"), answer("4+6", "wrong_value")]
    other = [answer("1", "wrong_value")] * 4
    found = samples([*hand, *other], 4)
    assert list(found) == [1, 2, 4]
    assert found[4] == {"pass_at_k": (0.5, 2), "distinct_formulas": (1.0, 2)}
    assert found[1]["distinct_formulas"][0] == pytest.approx(3 / 4 / 2)


def test_kl_to_init(policy, tokenizer):
    """Against plain forward passes; none to itself."""
    init = tiny_policy(tokenizer, seed=9)
    episodes, expected = [], []
    for text in ("1+2", "[4, 3, 2, 10] makes 24"):
        prompt = policy.prompt_ids([{"role": "user", "content": text}])
        ids, n = [*prompt, 5, 6, 7], len(prompt)
        episodes.append(Episode([Conversation(ids, [Attempt(n, n + 3, [0.0] * 3, 0.0)])], {}))
        p, q = (torch.log_softmax(reference_logits(m, ids) / 0.7, -1)[n - 1 : n + 2] for m in (policy, init))
        expected.append((p.exp() * (p - q)).sum(-1))
    found, n = kl(policy, init, episodes, 0.7)
    assert n == 2 and found == pytest.approx(torch.cat(expected).mean().item(), rel=1e-4) and found > 0.01
    assert kl(policy, policy, episodes)[0] == 0


# A foundation with a habit


@pytest.mark.parametrize("habit", [0.0, 0.3, 1.0])
def test_a_share_of_hands_states_no_rule(habit):
    """And means 10; all else is held out as ever."""
    rng, silent = random.Random(0), []
    for _ in range(600):
        kind = rng.choice((gp_l_curriculum.reading, gp_l_curriculum.records, gp_l_curriculum.conversation))
        document = kind(rng, habit=habit)
        text = "".join(turn.content for turn in document)
        silent.append("count as" not in text)
        if silent[-1] and kind is gp_l_curriculum.reading:
            pairs = zip(document[::2], document[1::2], strict=True)
            for cards, numbers in pairs:
                hand = json.loads(cards.content.removeprefix("Cards: ").replace("'", '"'))
                assert numbers.content == f"{list(card_numbers(hand, 'ten'))}\n"
    assert np.mean(silent) == pytest.approx(habit, abs=0.06)


def test_no_habit_leaves_the_documents_as_they_were():
    plain, same = ([gp_l_curriculum.document(random.Random(i), 0.5, *h) for i in range(50)] for h in ((), (0.0,)))
    assert [[t.content for t in d] for d in plain] == [[t.content for t in d] for d in same]


# As experiments


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        yield home


@pytest.fixture(scope="module")
def profile(tiny_folder):
    inits = replace(RULE_GRID_INIT, arms=(Arm("init", ({"init_steps": 2}, {"init_steps": 3})),))
    controls = (RULE_GRID, inits, PASS_AT_K, DFT, KL_SFT, GRPO, DIVERSITY, STRICT, rejection(8))
    made = tiny_profile(tiny_folder, experiments=(MAIN,), controls=controls)
    [study] = made.studies
    small = replace(study.evaluation, episodes_samples=2, samples=4, episodes_end=4)
    return replace(made, studies=(replace(study, evaluation=small, fork_flops=study.fork_flops / 4),))


def run_of(profile, method, experiment, setting=""):
    return Run(profile, "gp-l", method, experiment, setting)


def test_the_ends_of_main_are_tested_again_and_not_trained_again(profile, home, monkeypatch):
    main = run_of(profile, "sft", "main")
    fork.train(main)
    monkeypatch.setattr(sft, "train", lambda *_: pytest.fail("trained again"))
    for experiment, splits in (("rule_grid", 6), ("pass_at_k", 3)):
        run = run_of(profile, "sft", experiment)
        assert fork.train(run) == snapshots_of(main) and run.folder == main.folder and run.tests != main.tests
        rows = measurements.evaluate(run)
        assert rows["split"].nunique() == splits and set(rows["step"]) == {snapshots_of(main)[-1].step}
        assert set(rows["experiment"]) == {experiment}
    assert set(rows["setting"]) == {"k=1", "k=2", "k=4"} and set(rows["metric"]) == {"pass_at_k", "distinct_formulas"}


def test_other_inits_are_made_for_the_grid(profile, home):
    for steps, same in ((2, False), (3, True)):
        run = run_of(profile, "init", "rule_grid_init", f"init_steps={steps}")
        fork.train(run)
        assert (run.folder == run_of(profile, "init", "main").folder) is same
        rows = measurements.evaluate(run)
        assert set(rows["setting"]) == {f"init_steps={steps}"} and len(set(rows["split"])) == 9


@pytest.mark.parametrize("method, experiment, setting", [
    ("sft", "dft", "loss=dft"), ("sft", "kl_sft", "kl_coef=0.1"), ("rl", "grpo", "group=2"),
    ("sft", "diversity", "diversity=0.3"), ("rl", "diversity", "diversity=0.7"),
    ("rl_no_init", "strict_no_init", "fields=all;lr=0.001"),
])  # fmt: skip
def test_a_control_trains_and_is_tested(profile, home, method, experiment, setting):
    run = run_of(profile, method, experiment, setting)
    fork.train(run)
    rows = tables.validate(measurements.evaluate(run))
    assert set(rows["setting"]) == {setting} and set(rows["split"]) == set(run.splits)
    assert ("kl_to_init" in set(rows["metric"])) == (method != "rl_no_init")
    assert run.folder.name.startswith(f"gp-l-{method}-{experiment}")
    if experiment == "diversity" and method == "sft":
        data = fork.demonstrations(profile, run.study)
        assert data[:] != fork.demonstrations(profile, profile.study("gp-l"))[:]


# As jobs


def test_controls_are_run_only_when_they_are_named():
    names = {experiment.name for study in LAPTOP.studies for experiment in study.controls}
    assert not any(name in job.name for job in jobs(LAPTOP) for name in names)
    chosen = jobs(LAPTOP, (0, 1), (), parse_experiments(LAPTOP.studies, "dft, attempts"))
    experiments = {job.parameters.get("experiment") for job in chosen}
    assert experiments == {None, "main", "dft", "attempts"}
    assert sum("attempts" in job.name for job in chosen) == 2 * 3, "with all seeds; attempts=5 is main's"
    everything = jobs(LAPTOP, (0,), (), parse_experiments(LAPTOP.studies, "controls"))
    for job in everything:
        assert set(job.needs) <= {other.name for other in everything}
    again = next(job for job in everything if job.name == "05_train-gp-l-sft-rule_grid-s0")
    assert "05_train-gp-l-sft-main-s0" in again.needs
    with pytest.raises(ValueError, match="EXPERIMENTS='dot': there is no 'dot'; use some of main "):
        parse_experiments(LAPTOP.studies, "dot")


def test_a_setting_may_name_an_option_of_the_task():
    run = Run(LAPTOP, "gp-l", "sft", "diversity", "diversity=0.3")
    assert run.task.training["diversity"] == 0.3 and run.config == run.base.sft and run.init.task is GP_L
    same = Run(LAPTOP, "gp-l", "sft", "diversity", "diversity=0")
    assert same.trained_as == Run(LAPTOP, "gp-l", "sft")
