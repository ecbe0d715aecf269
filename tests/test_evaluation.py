"""Evaluation: who meets which hands, what is counted, and that nothing is done twice."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from tiny_models import tiny_policy, tiny_vision_policy

from sftrl_lib import paths, tables
from sftrl_lib.configs import EvaluationConfig, Protocol
from sftrl_lib.evaluation import measurements
from sftrl_lib.evaluation.episodes import play, transcript, within
from sftrl_lib.experiments import ATTEMPTS, MAIN, SENSITIVITY
from sftrl_lib.models.rollout import Attempt, Conversation, Episode
from sftrl_lib.points import card_numbers, is_heldout, solve
from sftrl_lib.points.prompts import FEEDBACK, expert_response, response
from sftrl_lib.profiles import SMOKE, Profile
from sftrl_lib.runs import Run
from sftrl_lib.tasks import GP_L, GP_VL
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.snapshots import write_snapshot

FEW = Protocol(episodes=40, attempts=2, temperature=1.0, max_new_tokens=2)


def hands(episodes):
    return [tuple(e.info["cards"]) for e in episodes]


# The hands


def test_all_checkpoints_of_a_seed_meet_the_same_hands(tokenizer):
    """Whatever the model, the number of attempts, the temperature or the batch size."""
    first, other = tiny_policy(tokenizer), tiny_policy(tokenizer, seed=2)
    met = hands(play(first, GP_L, "rule_ood", FEW, 0))
    assert met == hands(play(other, GP_L, "rule_ood", FEW, 0))
    assert met == hands(play(first, GP_L, "rule_ood", replace(FEW, attempts=1, temperature=0.0), 0, batch=7))
    curve = hands(play(first, GP_L, "rule_ood", replace(FEW, episodes=10), 0))
    assert met[:10] == curve, "a curve's hands begin the end's"
    assert met != hands(play(first, GP_L, "rule_ood", FEW, 1))
    assert len(set(met)) > 35


def test_splits_obey_their_rules(policy):
    brief = replace(FEW, attempts=1, episodes=100, max_new_tokens=1)
    seen = {split: play(policy, GP_L, split, brief, 3) for split in GP_L.splits}
    rules = {"id": "ten", "heldout": "ten", "rule_ood": "distinct"}
    for split, episodes in seen.items():
        for episode in episodes:
            cards, numbers = episode.info["cards"], episode.info["numbers"]
            assert tuple(numbers) == card_numbers(cards, rules[split]) and solve(numbers)
            stated = "'10'" if rules[split] == "ten" else "'11', '12', and '13'"
            assert stated in policy.tokenizer.decode(episode.conversations[0].ids)
            if split == "rule_ood":
                assert set(cards) & {"J", "Q", "K"}
            else:
                assert is_heldout(numbers) == (split == "heldout")
    assert not set(hands(seen["id"])) & set(hands(seen["heldout"]))


def test_same_seed_same_episodes(policy):
    first, again = (play(policy, GP_L, "id", FEW, 5) for _ in range(2))
    assert [e.conversations[0].ids for e in first] == [e.conversations[0].ids for e in again]


def test_an_unknown_split(policy):
    with pytest.raises(ValueError, match="'ood'.*id, heldout, rule_ood"):
        play(policy, GP_L, "ood", FEW, 0)


def test_the_protocol():
    config = EvaluationConfig(episodes_end=7, episodes_curve=3)
    assert (config.protocol().episodes, config.protocol(end=False).episodes) == (7, 3)
    assert config.protocol().attempts == 5 and config.protocol(attempts=9, temperature=0.0).attempts == 9


def test_heldout_hands_are_sampled_over_puzzles():
    """Every held-out puzzle in turn, as often as any other, of cards that a deck of those suits holds."""
    for task, count in ((GP_L, 64), (GP_VL, 56)):
        resets = task.resets("heldout", list(range(4 * count)))
        assert resets[:10] == task.resets("heldout", list(range(10)))
        env = task.make_env(task.split("heldout"), 1)
        met = [env.reset(**reset)[1] for reset in resets]
        puzzles = Counter(tuple(sorted(info["numbers"])) for info in met)
        assert len(puzzles) == count and set(puzzles.values()) == {4}
        assert all(is_heldout(numbers) and solve(numbers) for numbers in puzzles)
        assert {"10", "J", "Q", "K"} <= {card for info in met for card in info["cards"]}
        for reset in resets:
            hand, suits = reset["options"].values()
            assert len(set(zip(hand, suits, strict=True))) == 4, "no card occurs twice"
        assert all(task.cluster(SimpleNamespace(info=info)) < count for info in met)
    assert task.resets("id", [7, 8]) == [{"seed": 7}, {"seed": 8}]


def test_rates_puzzle_by_puzzle(policy):
    """They add up to the rate of the row, and only where the puzzles stand for others."""
    episodes = play(policy, GP_L, "heldout", replace(FEW, episodes=70, attempts=1, max_new_tokens=1), 0)
    for one in episodes[:20]:
        one.terminated = True
    measure = partial(GP_L.measure, "heldout")
    by_puzzle = measurements.by_cluster(GP_L, "heldout", episodes, measure)
    assert set(by_puzzle) == {"success", "recognition"}
    text = by_puzzle["success"]
    found = tables.clusters(text)
    assert len(found) == 64 and sum(n for _, n in found.values()) == 70
    assert sum(rate * n for rate, n in found.values()) == pytest.approx(20)
    assert measurements.by_cluster(GP_L, "id", episodes, measure) == {}


# The metrics

CARDS, NUMBERS = ["4", "3", "2", "K"], [4, 3, 2, 13]
RIGHT = expert_response(CARDS, "13+4*3-2+1", "distinct")


def episode(*attempts, terminated=False):
    """An episode of (text, outcome) pairs."""
    made = [Attempt(0, 0, [], 0.0, text, 0.0, outcome) for text, outcome in attempts]
    return Episode([Conversation([], made)], {"cards": CARDS, "numbers": NUMBERS}, terminated, not terminated)


def test_metrics_by_hand():
    old_rule = response(CARDS, [4, 3, 2, 10], "4*3+2+10=24")
    episodes = [
        episode((RIGHT, "correct"), terminated=True),
        episode((old_rule, "wrong_numbers"), (RIGHT, "correct"), terminated=True),
        episode((old_rule, "wrong_numbers"), ("", "illegal")),
        episode((response(CARDS[::-1], NUMBERS[::-1], "13+4"), "wrong_numbers"), (RIGHT, "wrong_value")),
        episode(('"number": [4, 3, 2, 13]', "illegal")),  # reads the numbers, lacks the format
    ]
    assert GP_L.measure("rule_ood", episodes) == {
        "success": (2 / 5, 5), "first_attempt": (1 / 5, 5), "recognition": (3 / 5, 5), "format": (4 / 5, 5),
        "formula_numbers": (1 / 5, 5), "training_rule": (2 / 5, 5),
    }  # fmt: skip


def test_recognition_is_of_the_multiset():
    shown = ([13, 2, 3, 4], True), ([4, 3, 2], False), ([4, 4, 3, 2, 13], False), ([4, 3, 3, 13], False)
    for numbers, recognised in shown:
        found = GP_L.measure("rule_ood", [episode((response(CARDS, numbers, "1"), "wrong_numbers"))])
        assert found["recognition"] == (float(recognised), 1)


def test_reading_cards_and_reading_the_rule_are_told_apart():
    """With pictures, recognition is of the cards (paper 5.3), in any order; the numbers are counted beside it."""
    old_rule, misread = [4, 3, 2, 10], ["4", "3", "2", "Q"]
    answers = [
        (CARDS, NUMBERS), (CARDS[::-1], old_rule), (misread, [4, 3, 2, 12]), (misread, NUMBERS), (CARDS[:3], NUMBERS),
    ]  # fmt: skip
    pictured = [episode((response(cards, numbers, "1"), "misread")) for cards, numbers in answers]
    found = GP_VL.measure("rule_ood", pictured)
    assert (found["recognition"], found["numbers"], found["training_rule"]) == ((2 / 5, 5), (3 / 5, 5), (1 / 5, 5))
    in_text = GP_L.measure("rule_ood", pictured)
    assert in_text["recognition"] == found["numbers"] and "numbers" not in in_text


def test_within_attempts():
    wrong, right = ("", "illegal"), ("", "correct")
    solved = [episode(*[wrong] * k, right, terminated=True) for k in range(3)]
    episodes = [*solved, episode(wrong, wrong, wrong)]
    assert [within(episodes, k) for k in (1, 2, 3, 4)] == [(0.25, 4), (0.5, 4), (0.75, 4), (0.75, 4)]


def test_a_transcript_shows_what_was_said(policy):
    [played] = play(policy, GP_L, "id", replace(FEW, episodes=1, attempts=3), 0)
    shown = transcript(GP_L, "id", played, policy, 6)
    assert (shown["episode"], shown["cards"], shown["success"]) == (6, played.info["cards"], False)
    assert [turn["output"] for turn in shown["turns"]] == [a.text for a in played.attempts]
    assert shown["turns"][0]["prompt"].startswith("[Task Description]")
    assert [turn["prompt"] for turn in shown["turns"][1:]] == [FEEDBACK[a.outcome] for a in played.attempts[:-1]]


def test_a_transcript_of_a_picture_says_what_was_drawn(tokenizer):
    """In plain JSON: the same cards and suits can be drawn again."""
    vision = tiny_vision_policy(tokenizer)
    [played] = play(vision, GP_VL, "visual_ood", replace(FEW, episodes=1), 0)
    shown = transcript(GP_VL, "visual_ood", played, vision, 0)
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["cards"], shown["suits"]) == (played.info["cards"], played.info["suits"])
    assert set(shown["suits"]) <= {"hearts", "diamonds"}
    assert shown["turns"][0]["prompt"].startswith("[Task Description]"), "image tokens are no text"


def test_the_splits_of_ablations():
    assert ATTEMPTS.tested(GP_L.splits) == ("id", "rule_ood")
    assert SENSITIVITY.tested(GP_VL.splits) == ("id", "rule_ood", "visual_ood")
    assert MAIN.tested(GP_VL.splits) == tuple(GP_VL.splits)


def test_red_cards_change_nothing_but_the_picture(tokenizer):
    """Visual OOD: hands as in training, of red cards; every other split shows black ones."""
    brief = replace(FEW, attempts=1, episodes=30, max_new_tokens=1)
    vision = tiny_vision_policy(tokenizer)
    for split in GP_VL.splits:
        infos = [e.info for e in play(vision, GP_VL, split, brief, 3)]
        colours = {suit for info in infos for suit in info["suits"]}
        assert colours == ({"hearts", "diamonds"} if split == "visual_ood" else {"spades", "clubs"})
        numbers = [card_numbers(i["cards"], "distinct" if split == "rule_ood" else "ten") for i in infos]
        assert numbers == [tuple(i["numbers"]) for i in infos]
        if split != "rule_ood":
            assert {is_heldout(n) for n in numbers} == {split == "heldout"}


# Keeping and resuming

POINTS = SMOKE.study("gp-l")
STUDY = replace(
    POINTS,
    evaluation=replace(
        POINTS.evaluation, episodes_end=6, episodes_curve=4, episodes_sensitivity=4, attempts=5, max_new_tokens=2,
        temperatures=(0.0, 1.0), attempts_grid=(1, 3),
    ),
)  # fmt: skip
TINY = Profile(name="tiny", seeds=(0,), studies=(STUDY,), device="cpu")
RUNS = {method: Run(TINY, "gp-l", method) for method in ("init", "sft", "rl")}


@pytest.fixture
def home(tmp_path, monkeypatch, policy):
    """Init, and two snapshots each of SFT and RL, of random models."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    for method, run in RUNS.items():
        for step in (0,) if method == "init" else (3, 6):
            write_snapshot(policy, run.folder, step, Compute(100, 10, 20 * step))
    return tmp_path


@pytest.fixture
def played(monkeypatch):
    """Counts the calls of `play`; raises at the call whose number is put into ``dies_at``."""
    calls = []

    def counted(policy, task, split, how, *more):
        if len(calls) == counted.dies_at:
            raise KeyboardInterrupt
        calls.append((split, how))
        return play(policy, task, split, how, *more)

    counted.dies_at, counted.calls = -1, calls
    monkeypatch.setattr(measurements, "play", counted)
    return counted


def everything():
    frames = map(measurements.evaluate, RUNS.values())
    return pd.concat([*frames, measurements.evaluate_sensitivity(TINY, "gp-l", 0)])


def written(home):
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(home.rglob("*")) if p.suffix in {".csv", ".jsonl"}}


def test_the_cells_that_are_tested(home, played):
    frame = tables.validate(everything())
    main = frame[(frame.experiment == "main") & (frame.metric == "success")]
    steps = main.groupby(["method", "setting"]).step.unique().map(sorted).to_dict()
    assert steps == {
        ("init", "sampled"): [0], ("sft", "sampled"): [3, 6], ("rl", "sampled"): [3, 6],
        **{(m, s): [0 if m == "init" else 6] for m in ("init", "sft", "rl") for s in ("greedy", "single")},
    }  # fmt: skip
    assert set(main.split) == set(GP_L.splits)
    greedy = main.setting == "greedy"
    assert set(main[main.step == 3].n) == {4} and set(main[(main.setting == "single")].n) == {6}
    assert set(main[(main.step != 3) & (main.setting == "sampled")].n) == {4, 6}, "the end also as a point of the curve"
    assert set(main[greedy].n) == {STUDY.evaluation.episodes_greedy}
    assert set(main[main.step == 6].train_flops) == {6 * 100 * (10 + 120)}
    grid = frame[frame.experiment == "sensitivity"]
    assert set(grid.setting) == {f"temperature={t};attempts={k}" for t in (0, 1) for k in (1, 3)}
    assert set(grid.method) == {"init", "sft", "rl"} and set(grid.split) == {"id", "rule_ood"}
    attempts = {(how.temperature, how.attempts) for _, how in played.calls}
    assert attempts == {(1.0, 5), (0.0, 5), (1.0, 3), (0.0, 3)}


def test_an_ablation_is_tested_with_five_attempts(home, played, policy):
    run = Run(TINY, "gp-l", "rl", "attempts", "attempts=1")
    write_snapshot(policy, run.folder, 2, Compute(100))
    frame = measurements.evaluate(run)
    assert set(frame.setting) == {"attempts=1"} and set(frame.split) == {"id", "rule_ood"}
    assert {how.attempts for _, how in played.calls} == {5}


def test_an_interrupted_evaluation_goes_on(home, played):
    """Interrupted again and again, it ends with the same bytes, and nothing is played twice."""
    everything()
    whole, calls = written(home), list(played.calls)
    for name in whole:
        (home / name).unlink()
    played.calls.clear()
    for stop in range(1, len(calls), 4):
        played.dies_at = stop
        with pytest.raises(KeyboardInterrupt):
            everything()
    played.dies_at = -1
    everything()
    assert played.calls == calls
    assert written(home) == whole
    everything()
    assert played.calls == calls, "what is done is not done again"


def test_transcripts_of_ends_are_kept(home):
    frame = measurements.evaluate(RUNS["sft"])
    records = tables.read_parts([RUNS["sft"].tests / "transcripts.jsonl"])
    assert {r["step"] for r in records} == {6}
    wanted = {split: measurements.KEPT_TRANSCRIPTS[split] for split in GP_L.splits}
    assert {s: sum(r["split"] == s for r in records) for s in GP_L.splits} == wanted
    assert len(frame)


def test_an_end_shows_a_success_and_a_failure():
    """Among the first episodes, where there are any of either."""
    wrong, right = episode(("", "illegal")), episode(("", "correct"), terminated=True)
    assert measurements.kept([wrong] * 5 + [right], 4) == [0, 1, 2, 5]
    assert measurements.kept([right, right, right, wrong], 2) == [0, 3]
    assert measurements.kept([right] * 5, 4) == [0, 1, 2, 3] and measurements.kept([wrong], 4) == [0]


def test_a_finished_evaluation_loads_no_model(home, monkeypatch):
    everything()
    monkeypatch.setattr(measurements, "load_policy", lambda *args: pytest.fail("loaded a model"))
    everything()


def test_models_are_loaded_in_the_profiles_precision_on_its_device(home, monkeypatch):
    loaded, original = [], measurements.load_policy
    monkeypatch.setattr(measurements, "load_policy", lambda *args: loaded.append(args[1:]) or original(*args))
    measurements.evaluate(Run(replace(TINY, dtype="bfloat16"), "gp-l", "init"))
    assert loaded == [("bfloat16", "cpu")]


def test_other_evaluation_settings_set_the_tests_aside(home, played):
    """The old numbers are not mixed with the new; they come back with their settings, and nothing is played for it."""
    run = RUNS["sft"]
    before = tables.validate(measurements.evaluate(run))
    longer = replace(STUDY, evaluation=replace(STUDY.evaluation, episodes_end=7))
    changed = measurements.evaluate(Run(replace(TINY, studies=(longer,)), "gp-l", "sft"))
    assert set(before.n) == {4, 6, 16} and set(changed.n) == {4, 7, 16}
    played.dies_at = len(played.calls)
    assert tables.validate(measurements.evaluate(run)).equals(before)


def test_episodes_are_played_side_by_side_as_the_profile_says(home, monkeypatch):
    sizes, original = [], measurements.play
    monkeypatch.setattr(measurements, "play", lambda *args: sizes.append(args[5]) or original(*args))
    measurements.evaluate(Run(replace(TINY, rollout_batch=3), "gp-l", "init"))
    assert set(sizes) == {3}


def test_missing_models_are_named(tmp_path, monkeypatch):
    """And nothing is left behind that would look like a run."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    for evaluate in (
        lambda: measurements.evaluate(RUNS["init"]),
        lambda: measurements.evaluate(RUNS["rl"]),
        lambda: measurements.evaluate_sensitivity(TINY, "gp-l", 0),
    ):
        with pytest.raises(ValueError, match="holds no"):
            evaluate()
    assert not any(tmp_path.iterdir())


def test_the_critic_is_not_needed(tokenizer):
    assert len(play(tiny_policy(tokenizer, critic=False), GP_L, "id", replace(FEW, episodes=3), 0)) == 3
    assert torch.is_grad_enabled()
