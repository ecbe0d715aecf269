"""The bench at toy sizes: the engines agree, the useful work is counted right, and the card says what the file says."""

import json
import subprocess
import time
from dataclasses import replace
from statistics import median

import pytest
import torch
from test_comparison import committed
from test_rollout import FakeEnv, rewriting_environments, user
from tiny_models import TINY, reference_logprobs, tiny_policy, tiny_vision_policy
from torch.utils.flop_counter import FlopCounterMode

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib import paths
from sftrl_lib.bench import __main__ as command
from sftrl_lib.bench import card, check, measure, phases
from sftrl_lib.bench.check import WrongAnswers, compare
from sftrl_lib.bench.engines import TRL, NotMeasured, Turn, hf, official, ours, up_to
from sftrl_lib.bench.limits import Limits, Shape, Work, measure_limits, synchronise, useful
from sftrl_lib.bench.measure import PLANS, QUICK, Bench, peak_memory
from sftrl_lib.configs import PPOConfig, Protocol
from sftrl_lib.figures.speed import speed
from sftrl_lib.models.decoding import Decoding
from sftrl_lib.models.policy import Policy
from sftrl_lib.provenance import ORIGIN
from sftrl_lib.tasks import TASKS

HOW = Protocol(episodes=4, attempts=3, temperature=1.0, max_new_tokens=8)
CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def hands(count=4, key="gp-l"):
    return [TASKS[key].training_env(HOW.attempts) for _ in range(count)]


def answers(played):
    return [[turn.answer for turn in episode] for episode in played]


# The engines


@pytest.mark.parametrize(("key", "make"), [("gp-l", tiny_policy), ("gp-vl", tiny_vision_policy)])
def test_all_engines_play_the_same_episodes(tokenizer, key, make):
    """Greedily; TRL cannot, and samples at a temperature at which the best token is certain."""
    policy, greedy = make(tokenizer), replace(HOW, temperature=0.0)
    played = {engine: engine(policy, hands(key=key), greedy) for engine in (ours, hf, official)}
    cold = replace(HOW, temperature=1e-4)
    played[TRL] = TRL(policy, cold)(policy, hands(key=key), cold)
    for engine, episodes in played.items():
        assert answers(episodes) == answers(played[ours]), engine
        for episode, own in zip(episodes, played[ours], strict=True):
            assert [turn.prompt for turn in episode] == [turn.prompt for turn in own]
    lengths = {len(answer) for episode in answers(played[ours]) for answer in episode}
    assert len(lengths) > 1 and max(lengths) <= HOW.max_new_tokens
    assert {len(episode) for episode in played[ours]} == {HOW.attempts}


@pytest.mark.parametrize("engine", [ours, official])
def test_logprobs_are_those_of_a_forward_pass(policy, engine):
    how = replace(HOW, temperature=0.7)
    for turn in (turn for episode in engine(policy, hands(), how) for turn in episode):
        expected = reference_logprobs(policy, turn.prompt + turn.answer, 0.7)[len(turn.prompt) - 1 :]
        assert turn.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_every_repeat_does_the_same_work(policy):
    for engine in (ours, hf, official, TRL(policy, HOW)):
        assert answers(engine(policy, hands(), HOW)) == answers(engine(policy, hands(), HOW))


def test_the_official_pattern_needs_no_critic(policy):
    with_critic = official(policy, hands(1), HOW)
    policy.value_head = None
    assert official(policy, hands(1), HOW) == with_critic


def test_prompts_that_are_rewritten_are_read_anew(policy):
    """By HF as by us; TRL, which knows one sequence an episode, says so."""
    greedy = replace(HOW, temperature=0.0)
    theirs, mine = (engine(policy, rewriting_environments(), greedy) for engine in (hf, ours))
    assert answers(theirs) == answers(mine)
    trl = TRL(policy, HOW)
    with pytest.raises(NotMeasured, match="rewrites its prompts"):
        trl(policy, rewriting_environments(), HOW)
    assert trl(policy, [FakeEnv(user("never rewritten"), ["one", "two"])], HOW)


def test_an_answer_ends_with_its_end_token():
    assert up_to(1, [5, 1, 0, 1]) == [5, 1] and up_to(1, [5, 6]) == [5, 6]


# The useful work and the limit


def test_useful_work_by_hand():
    """N 10, H 3, two layers, Q 4, K 2, numbers of 4 bytes: a token read takes 20 + 32 (p + 1) FLOPs."""
    shape = Shape(body=10, head=3, layers=2, queries=4, keys=2, size=4)
    first = [Turn([1, 2, 3], [4, 5], []), Turn([1, 2, 3, 4, 5, 6], [7], [])]
    second = [Turn([1, 2], [3, 4, 5], [])]
    work = useful([first, second], shape)
    read = [0, 1, 2, 3, 4, 5] + [0, 1, 2, 3]  # positions: 5, the last token of an answer, is read with the feedback
    assert work.flops == sum(20 + 32 * (p + 1) for p in read) + 6 * 6
    # Written: every token read. Read: a prompt at once (3, then 6, and 2), answers token by token (4; 3 and 4).
    attended = 3 + 4 + 6 + 2 + 3 + 4
    assert work.bytes == 32 * (len(read) + attended) + 3 * 13 * 4  # three passes in the longest episode
    assert (work.tokens, work.attempts) == (6, 3)


def test_useful_work_does_not_depend_on_the_engine(policy):
    """Greedy answers are the same, so is the work, though the others read histories again."""
    greedy, shape = replace(HOW, temperature=0.0), Shape.of(policy)
    assert useful(ours(policy, hands(), greedy), shape) == useful(hf(policy, hands(), greedy), shape)


def test_the_formula_is_what_torch_counts(policy):
    """One token decoded after 20: the matrix products that PyTorch's own counter sees."""
    shape = Shape.of(policy)
    width, inner, heads = TINY.hidden_size, TINY.intermediate_size, TINY.heads
    keys = width // heads * TINY.key_value_heads
    assert shape.body == TINY.layers * (2 * width * width + 2 * width * keys + 3 * width * inner)
    assert (shape.queries, shape.keys, shape.size) == (width, keys, 4)
    policy.model.set_attn_implementation("eager")  # its products are ordinary ones
    with torch.no_grad():
        read = policy.model(torch.arange(40, 60)[None], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            policy.model(torch.tensor([[60]]), past_key_values=read)
    after = useful([[Turn([*range(40, 61)], [5], [])]], shape).flops
    before = useful([[Turn([*range(40, 60)], [5], [])]], shape).flops
    assert counter.get_total_flops() == after - before + 2 * shape.head


def test_the_limit_is_a_roofline():
    limits = Limits(flops_per_s=100.0, bytes_per_s=10.0)
    arithmetic, memory = Work(1, 1, flops=500, bytes=20), Work(1, 1, flops=100, bytes=20)
    assert (limits.seconds(arithmetic), limits.bound(arithmetic)) == (5.0, "arithmetic")
    assert (limits.seconds(memory), limits.bound(memory)) == (2.0, "memory")
    assert limits.best(Limits(50.0, 20.0)) == Limits(100.0, 20.0)


def test_limits_are_measured():
    found = measure_limits(CPU, torch.float32, matrix=64, buffer=2**16, seconds=0.01)
    assert found.flops_per_s > 1e6 and found.bytes_per_s > 1e6


def test_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronise(CPU)
    synchronise(torch.device("cuda", 0))
    assert waited == [torch.device("cuda", 0)]


# Agreement


def test_the_engines_agree(policy):
    agreement = compare(policy, hands(), HOW)
    assert agreement.answers == 4 * HOW.attempts and not agreement.ties
    assert 0 < agreement.logprob_error < agreement.tolerance == 1e-4


def test_pictures_agree_too(tokenizer):
    assert compare(tiny_vision_policy(tokenizer), hands(key="gp-vl"), HOW).answers == 4 * HOW.attempts


def wrong(change):
    """Our engine, but with `change` made to every turn."""
    return lambda *arguments: [[change(turn) for turn in episode] for episode in ours(*arguments)]


def test_wrong_logprobs_are_found(policy, monkeypatch):
    monkeypatch.setattr(check, "ours", wrong(lambda turn: turn._replace(logprobs=[x + 1e-3 for x in turn.logprobs])))
    with pytest.raises(WrongAnswers, match="0.001 nats from a forward pass's; 0.0001 is allowed"):
        compare(policy, hands(), HOW)


def test_wrong_tokens_are_found_and_ties_forgiven(policy, monkeypatch):
    """The second token of every answer is another one: not allowed, unless both are about as likely."""

    def other(turn):
        return turn._replace(answer=[turn.answer[0], turn.answer[1] + 1, *turn.answer[2:]])

    monkeypatch.setattr(check, "ours", wrong(other))
    with pytest.raises(WrongAnswers, match="Token 2 of a greedy answer is"):
        compare(policy, hands(), HOW)
    monkeypatch.setitem(check.TOLERANCE, "float32", 1e3)
    assert (compare(policy, hands(), HOW).answers, compare(policy, hands(), HOW).ties) == (0, 4)


# The phases of an update


def test_a_clock_stands_in_one_phase_at_a_time():
    clock = phases.Clock(CPU)
    inner = clock("verifying", lambda: time.sleep(0.03))
    clock("decoding", lambda: (time.sleep(0.01), inner()))()
    assert 0.03 <= clock.seconds["verifying"] and 0.01 <= clock.seconds["decoding"] < 0.03


def test_an_update_in_phases(policy):
    """Every phase gets its time, nothing stays wrapped, and the weights are as before."""
    feed, before = Decoding.feed, [p.clone() for p in policy.model.parameters()]
    envs, config = hands(), PPOConfig(episodes=4, attempts=3, minibatches=2)
    slow = envs[0]._grade
    envs[0]._grade = lambda text: time.sleep(0.05) or slow(text)
    optimizer = phases.still_optimizer(policy, config)
    start = time.perf_counter()
    seconds = phases.update(policy, optimizer, envs, HOW, config, "formula")
    total = time.perf_counter() - start
    assert list(seconds) == list(card.PHASES) and all(spent > 0 for spent in seconds.values())
    assert seconds["verifying"] >= 3 * 0.05 and sum(seconds.values()) <= total
    assert Decoding.feed is feed and policy.prompt.__func__ is Policy.prompt and "step" not in vars(envs[0])
    assert all(torch.equal(p, q) for p, q in zip(policy.model.parameters(), before, strict=True))
    assert optimizer.state, "the optimizer has made its steps"


# The whole


def bench(policy, plan=QUICK, said=None, key="gp-l"):
    config = PPOConfig(attempts=2, max_new_tokens=6, minibatches=1)
    say = (said if said is not None else []).append
    return Bench(policy, "tiny", TASKS[key], config, plan, "Some Processor", say)


@pytest.fixture
def quick(monkeypatch):
    """The limits and the origin without the time that it takes to find them."""
    monkeypatch.setattr(measure, "measure_limits", lambda *_: Limits(1e9, 1e9))
    monkeypatch.setattr(measure, "origin", lambda: {"commit": "abc", "clean": True, "machine": "m", "versions": "v"})


def test_the_bench_at_toy_size(policy, quick, monkeypatch):
    calls = []
    for name in ("official", "hf", "ours"):
        engine = getattr(measure, name)
        monkeypatch.setattr(measure, name, lambda *a, n=name, e=engine: calls.append((n, len(a[1]))) or e(*a))
    policy.value_head, said = None, []
    rows = bench(policy, said=said).run()
    assert [row["engine"] for row in rows] == ["official", "hf", "trl", "ours"]
    assert policy.value_head is not None, "the rollouts of PPO give values"
    batch = rows[1]["n"]
    assert batch in QUICK.batches and rows[2]["n"] == batch and (rows[0]["n"], rows[3]["n"]) == (1, 4)
    turns = [("official", 1), ("hf", batch), ("ours", 4)]  # TRL's trainer is one of them, but not caught here
    assert calls[-6:] == turns * 2
    for row in rows:
        rates = [row["tokens"] / seconds for seconds in row["seconds"]]
        assert row["repeats"] == len(rates) == 2 and row["tokens_per_s"] == pytest.approx(median(rates))
        assert row["tokens_per_s_low"] == min(rates) and row["tokens_per_s_high"] == max(rates)
        assert row["attempts"] == 2 * row["episodes"]  # a random model solves nothing
        assert row["attempts_per_s"] / row["tokens_per_s"] == pytest.approx(row["attempts"] / row["tokens"], rel=0.2)
        least = max(row["useful_flops"], row["useful_bytes"]) / 1e9
        assert row["share_of_limit"] == pytest.approx(median(least / seconds for seconds in row["seconds"]))
        assert row["limit_tokens_per_s"] == pytest.approx(row["tokens"] / least)
        assert row["memory_gb"] >= 0 and row["threads"] == torch.get_num_threads()
        assert row["agreement"]["answers"] == 2 * QUICK.checked and row["update"]["episodes"] == QUICK.update
        assert row["made"]["commit"] == "abc" and (row["device"], row["dtype"]) == ("cpu", "float32")
    assert card.NEEDED <= rows[0].keys()
    assert said[0].startswith("6 greedy answers agree") and said[-1].startswith("repeat 2 of 2")


def test_what_does_not_run_is_left_out(policy, quick, monkeypatch):
    """An engine that runs out of the GPU's memory, and TRL on a task that rewrites its prompts; and why is said."""

    def hungry(policy, envs, how):
        if len(envs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return hf(policy, envs, how)

    def one_sequence(*arguments):
        raise NotMeasured("this task rewrites its prompts")

    monkeypatch.setattr(measure, "hf", hungry)
    monkeypatch.setattr(TRL, "__call__", one_sequence)
    said = []
    rows = bench(policy, said=said).run()
    assert [(row["engine"], row["n"]) for row in rows] == [("official", 1), ("hf", 2), ("ours", 4)]
    assert "hf, 3 side by side: not measured (CUDA out of memory.)" in said
    assert "trl, 2 side by side: not measured (this task rewrites its prompts)" in said


def test_what_does_fit_is_measured(policy, quick, monkeypatch):
    """Not even HF at its smallest batch does, nor a PPO update."""

    def hungry(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(measure, "hf", hungry)
    monkeypatch.setattr(measure, "update", hungry)
    said = []
    rows = bench(policy, said=said).run()
    assert [row["engine"] for row in rows] == ["official", "ours"]
    assert said[-1] == "PPO update of 4 episodes: not measured (CUDA out of memory.)"
    assert "A PPO update does not fit into the memory of this GPU." in card.card(rows)
    assert [panel.get_visible() for panel in speed(rows).figure.axes] == [True, False]


def test_memory_is_the_peak_of_a_block(monkeypatch):
    with peak_memory(CPU) as peak:
        block = torch.ones(2**24)  # 64 MB
        time.sleep(0.1)
        del block
    assert 6e7 < peak[0] < 6e8
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 150)
    with peak_memory(torch.device("cuda")) as peak:
        pass
    assert peak == [50]


def test_the_plans_are_those_of_the_page():
    assert PLANS["cpu"].sizes == (256,) and PLANS["cuda"].sizes == (1024, 4096)
    assert all(plan.repeats == 5 for plan in PLANS.values())  # as SPEED.md says


# The file, the card, the figure


@pytest.fixture(scope="module")
def rows(tokenizer):
    """The rows of one real run at toy size."""
    return json.loads(json.dumps(bench(tiny_policy(tokenizer), replace(QUICK, updates=1)).run()))


def test_the_card_has_the_numbers_of_the_file(rows, home):
    file = card.path("some-processor")
    assert card.merge(rows, file) == card.read(file) == sorted(rows, key=card.setting)
    changed = [row | {"tokens_per_s": 1234.4 * place} for place, row in enumerate(rows, 1)]
    card.merge(changed, file)
    text = card.card(card.read(file))
    for row, rate in zip(rows, ("1,234", "2,469", "3,703", "4,938"), strict=True):
        [line] = [line for line in text.splitlines() if line.strip().startswith(card.ENGINES[row["engine"]])]
        assert rate in line and f"{row['attempts_per_s']:,.1f}" in line
        assert rate in card.markdown(card.read(file))
    assert "Our tokens a second are 4.0 times the official pattern's, 2.0 times the HF generate's, 1.3 times" in text
    assert text.startswith("tiny, 0.") and "M parameters in float32, 1 thread" in text
    update = rows[0]["update"]["seconds"]
    assert f"learning {100 * update['learning'] / sum(update.values()):.0f} %" in text


def test_runs_of_other_models_stay_in_the_file(rows, home):
    file = card.path("some-processor")
    other = [row | {"model": "another", "device": "cuda"} for row in rows]
    card.merge(rows, file)
    card.merge(other, file)
    every = card.merge(rows, file)
    assert len(every) == 2 * len(rows) and [len(run) for run in card.runs(every)] == [4, 4]
    assert [card.title(run[0]) for run in card.runs(every)][1].endswith("float32, GPU")


def test_a_card_tells_of_ties_load_and_changes(rows):
    row = rows[-1] | {"load_before": 1.5, "agreement": rows[-1]["agreement"] | {"ties": 2}}
    row["made"] = row["made"] | {"clean": False, "commit": "abc"}
    text = card.card([row])
    assert "2 more part at a tie" in text and "Other programs were running (load 1.5)" in text
    assert "commit abc, with changes;" in text and "Our tokens" not in text
    assert "Other programs" not in card.card([row | {"device": "cuda"}])


def test_numbers_in_words():
    assert (card.gigabytes(0.0123), card.gigabytes(12.34)) == ("12 MB", "12.3 GB")
    assert (card.ratio(2.44), card.ratio(1234.5)) == ("2.4", "1,234")
    assert card.slug("AMD EPYC 7B13 64-Core @ 2.2GHz") == "amd-epyc-7b13-64-core"
    assert card.slug("Intel(R) Xeon(R) Processor") == "intel-xeon-processor" and card.slug("?") == "machine"


@pytest.mark.parametrize("content", ["", "{}", "[]", '[{"engine": "ours"}]', "[1]", "\xff"])
def test_a_damaged_file_is_one_sentence(home, content):
    file = home / "x.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(card.BenchError, match="x.json holds no results of the bench .*; remove it and measure again"):
        card.read(file)


def test_a_name_is_a_file_name():
    with pytest.raises(ValueError, match="--name='../x' cannot name"):
        card.path("../x")


def test_the_figure_draws_the_file(rows):
    """A bar for each engine up to its tokens a second, a mark at its limit, and one bar of shares."""
    other = [row | {"model": "another"} for row in rows]
    drawing = speed([*rows, *other])
    panels = drawing.figure.axes
    assert len(panels) == 4 and all(panel.get_xscale() == "log" for panel in panels[::2])
    assert [bar.get_width() for bar in panels[2].patches] == [row["tokens_per_s"] for row in rows]
    limits = [line.get_xdata()[0] for line in panels[2].lines if line.get_marker() == "|"]
    assert limits == [row["limit_tokens_per_s"] for row in rows]
    assert sum(bar.get_width() for bar in panels[1].patches) == pytest.approx(100)
    assert [item["tokens_per_s"] for item in drawing.data["series"][4:]] == [row["tokens_per_s"] for row in rows]
    assert "Some Processor" in drawing.data["title"] and drawing.png()


def test_nothing_in_the_figure_is_cut_off(rows):
    """Not even with as many episodes and tokens as on a GPU."""
    large = [row | {"n": 4096, "update": row["update"] | {"episodes": 4096}} for row in rows]
    figure = speed([row | {"tokens_per_s": 1e5, "tokens_per_s_high": 1e5} for row in large]).figure
    figure.draw_without_rendering()
    for panel in figure.axes:
        box = panel.get_tightbbox()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1


# SPEED.md


def test_the_page_holds_the_results(rows, home):
    page = home / "SPEED.md"
    page.write_text(f"# Speed\n\n{card.BEGIN}\nold\n{card.END}\nmore\n", encoding="utf-8")
    assert card.document(page) == f"# Speed\n\n{card.BEGIN}\n\n{card.NONE_YET}\n{card.END}\nmore\n"
    card.merge(rows, card.path("some-processor"))
    text = card.document(page)
    assert "### some-processor\n\n![some-processor](figures/bench/some-processor.png)" in text and "old" not in text
    assert card.markdown(rows) in text and text.endswith(f"{card.END}\nmore\n")
    page.write_text("# Speed\n", encoding="utf-8")
    with pytest.raises(card.BenchError, match="SPEED.md has no place for results"):
        card.document(page)


def test_the_committed_page_holds_the_committed_results(home, tmp_path):
    """Run `python -m sftrl_lib.bench --document` after `make bench`, and commit both."""
    page = committed("SPEED.md", tmp_path)
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD", "results/bench/"], cwd=paths.ROOT, capture_output=True, text=True
    )
    folder = paths.results(card.FOLDER)
    folder.mkdir(parents=True)
    for name in listed.stdout.split():
        committed(name, folder)
    assert page.read_text(encoding="utf-8") == card.document(page)


# The command line


def test_one_command(home, tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr(command, "SPEED", home / "SPEED.md")
    config = PPOConfig(attempts=2, max_new_tokens=6)
    short = tuple(replace(study, ppo=config) for study in command.LAPTOP.studies)
    monkeypatch.setattr(command, "LAPTOP", replace(command.LAPTOP, studies=short))
    assert command.main(["--quick", "--model", str(tiny_folder), "--name", "here", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    rows = card.read(home / "results/bench_quick/here.json")
    assert rows[0]["made"].keys() == set(ORIGIN)
    assert card.card(rows) in out and {row["model"] for row in rows} == {"tiny"}
    assert rows[0]["protocol"] == {"attempts": 2, "temperature": 1.0, "max_new_tokens": 6}
    assert {row["repeats"] for row in rows} == {1}
    for kind in ("png", "pdf", "json"):
        assert (home / f"figures/bench_quick/here.{kind}").stat().st_size > 1000
    (home / "SPEED.md").write_text(f"{card.BEGIN}\n{card.END}\n", encoding="utf-8")
    assert command.main(["--document"]) == 0
    assert card.NONE_YET in (home / "SPEED.md").read_text(encoding="utf-8")  # toy sizes are no results


def test_a_wrong_engine_is_not_timed(home, tiny_folder, capsys, monkeypatch):
    monkeypatch.setitem(check.TOLERANCE, "float32", 0.0)
    assert command.main(["--quick", "--model", str(tiny_folder)]) == 1
    assert "Nothing was timed: A log-probability of our engine" in capsys.readouterr().err
    assert not (home / "results").exists()


@pytest.mark.parametrize(("options", "told"), [
    (["--dtype", "int8"], "DTYPE='int8' is not known; use one of float32, bfloat16, float16."),
    (["--task", "chess"], "Unknown task 'chess'; use one of gp-l"),
    (["--threads", "0"], "THREADS='0' is no number of threads"),
    (["--name", "a b"], "--name='a b' cannot name"),
    (["--repeats", "0"], "Plan.repeats must be a whole number of at least 1, below 2**31, got 0."),
    (["--device", "abacus"], "device='abacus' is not available here"),
    (["--model", "no/model"], "There is no model 'no/model'"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(home, options, told, capsys):
    assert command.main(["--quick", *options]) == 2
    assert told in capsys.readouterr().err and not (home / "results").exists()


def test_a_damaged_file_is_told_before_anything_is_measured(home, capsys):
    card.path("here", "bench_quick").parent.mkdir(parents=True)
    card.path("here", "bench_quick").write_text("[", encoding="utf-8")
    assert command.main(["--quick", "--name", "here", "--model", "no/model"]) == 2
    assert "here.json holds no results of the bench" in capsys.readouterr().err


def test_it_can_be_stopped(monkeypatch):
    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_bench", stopped)
    assert command.main([]) == 130


def test_a_folder_is_called_by_its_place(home, tmp_path_factory):
    run = home / "build/laptop/runs/gp-l-init-s0/step-0"
    run.mkdir(parents=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert command.model_name(str(run)) == "build/laptop/runs/gp-l-init-s0/step-0"
    assert command.model_name(str(elsewhere)) == elsewhere.name
    assert [command.model_name(name) for name in ("gp-l", "org/model")] == ["gp-l", "org/model"]
