"""The tidy tables: what is accepted, what is refused and how, merging, ends of branches."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from synthetic_tables import failing_transcript, main_table, register_toys, with_toys

from sftrl_lib import paths, tables
from sftrl_lib.evaluation.measurements import merge
from sftrl_lib.experiments import ATTEMPTS, MAIN, NO_INIT, Arm, parse_setting
from sftrl_lib.files import write_atomically
from sftrl_lib.profiles import SMOKE
from sftrl_lib.tables import COLUMNS, TableError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def test_write_then_read_gives_the_same_numbers(home):
    frame = tables.validate(main_table())
    frame.loc[0, "value"] = 1 / 3  # no short decimal form
    frame.loc[1, "train_flops"] = 1.2345678901234567e13
    path = tables.write(frame, home / "metrics.csv")
    pd.testing.assert_frame_equal(tables.read(path), frame, check_exact=True)
    assert path.read_text().splitlines()[0] == ",".join((*COLUMNS, *tables.ADDED))
    assert [file.name for file in home.iterdir()] == ["metrics.csv"]  # nothing temporary is left


def test_empty_setting_stays_an_empty_string(home):
    frame = main_table().assign(experiment="suboptimal", method="sft_suboptimal", setting="", split="id")
    frame = frame.drop_duplicates(tables.KEY)
    assert set(tables.read(tables.write(frame, home / "t.csv"))["setting"]) == {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "poker"}, "task is 'poker' but must be one of general_points, navigation"),
        ({"modality": "sound"}, "modality is 'sound' but must be one of text, image"),
        ({"method": "dpo"}, "method is 'dpo' but must be one of init, sft, rl"),
        ({"split": "test"}, "split is 'test' but must be one of id, heldout, rule_ood, visual_ood"),
        ({"metric": ""}, "metric is '' but must be a lower-case name"),
        ({"seed": -1}, "seed is '-1' but must be a whole number of at least 0"),
        ({"seed": 0.5}, "seed is '0.5' but must be a whole number"),
        ({"n": 0}, "n is '0' but must be a whole number of at least 1"),
        ({"value": 42.0}, "value is '42.0' but must be a fraction from 0 to 1"),
        ({"value": float("nan")}, "value is 'nan' but must be a finite number"),
        ({"value": "half"}, "value is 'half' but must be a finite number"),
        ({"train_flops": float("inf")}, "train_flops is 'inf' but must be a finite number"),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_what_is_allowed(change, message):
    frame = main_table(seeds=(0,)).astype(object)
    for column, value in change.items():
        frame.loc[4, column] = value
    with pytest.raises(TableError, match="the table, row 5: ") as error:
        tables.validate(frame)
    assert message in str(error.value)


def test_wrong_columns_are_named():
    with pytest.raises(TableError, match="lacks the column 'n'"):
        tables.validate(main_table().drop(columns="n"))
    with pytest.raises(TableError, match="unknown column 'reward'"):
        tables.validate(main_table().assign(reward=1.0))


def test_two_different_numbers_for_one_point_are_refused_and_repeats_are_not():
    frame = main_table()
    assert len(tables.validate(pd.concat([frame, frame]))) == len(frame)
    with pytest.raises(TableError, match="two different rows for task=general_points"):
        tables.validate(pd.concat([frame, frame.assign(value=0.123)]))


def test_missing_and_corrupt_files_give_one_clear_sentence(home):
    for profile, cure in (("laptop", "make reproduce PROFILE=laptop"), ("smoke", "make smoke")):
        with pytest.raises(TableError, match=f"no table at results/{profile}/metrics.csv; `{cure}` writes it"):
            tables.read_metrics(profile)
    for content in (b"", b"\xff\xfe\x00garbage", b'task,"unclosed\n1,2', b"a,b\n1,2,3\n4,5,6,7,8\n"):
        path = write_atomically(home / "broken.csv", content)
        with pytest.raises(TableError, match="broken.csv") as error:
            tables.read(path)
        assert "\n" not in str(error.value)


def profile_of(*experiments):
    """A profile of one's own: GP-L as in smoke, with these experiments."""
    study = replace(SMOKE.study("gp-l"), experiments=experiments)
    return replace(SMOKE, name="mine", studies=(study,))


def part_of(run):
    """Where the tests of a run keep their part of the tables."""
    return paths.test_folder("mine", run)


def test_merge_does_not_depend_on_how_runs_were_split(home):
    profile, frame = profile_of(MAIN), tables.validate(main_table())
    for number, (_, part) in enumerate(frame.groupby(["seed", "method"])):
        tables.write(part, part_of(f"run{9 - number}") / "metrics.csv")
    record = failing_transcript()
    later = record | {"episode": 11}
    write_atomically(part_of("run9") / "transcripts.jsonl", json.dumps(later) + "\n")
    write_atomically(part_of("run8") / "transcripts.jsonl", json.dumps(record) + "\n")
    pd.testing.assert_frame_equal(merge(profile), frame)
    pd.testing.assert_frame_equal(tables.read_metrics("mine"), frame)
    assert [item["episode"] for item in tables.read_transcripts("mine")] == [3, 11]
    first = tables.metrics_path("mine").read_bytes()
    merge(profile)
    assert tables.metrics_path("mine").read_bytes() == first


def test_merge_keeps_the_seeds_that_are_asked_for(home):
    frame = tables.validate(main_table())
    tables.write(frame, part_of("run") / "metrics.csv")
    records = [failing_transcript() | {"seed": seed} for seed in (0, 1, 2)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    write_atomically(part_of("run") / "transcripts.jsonl", lines)
    assert set(merge(profile_of(MAIN), (2, 0))["seed"]) == {0, 2}
    assert [record["seed"] for record in tables.read_transcripts("mine")] == [0, 2]


def test_merge_without_runs_and_with_a_broken_run(home):
    profile = profile_of(MAIN)
    with pytest.raises(TableError, match="No run of profile 'mine' has been tested"):
        merge(profile)
    write_atomically(part_of("a") / "metrics.csv", "nonsense\n")
    with pytest.raises(TableError, match="build/mine/tests/a/metrics.csv lacks the column 'task'"):
        merge(profile)


@pytest.mark.parametrize("seeds", [(), (2, 1)])
def test_a_main_run_that_is_a_setting_of_another_experiment_stands_there_too(home, seeds):
    """Smoke's RL has two attempts. On the experiment's splits alone, of the seeds that it was run with."""
    profile = profile_of(MAIN, replace(ATTEMPTS, arms=(Arm("rl", ({"attempts": 2}, {"attempts": 3})),)))
    main = tables.validate(main_table())
    other = tables.select(main, method="rl", split="id").assign(experiment="attempts", setting="attempts=3", value=0.25)
    other = tables.validate(other.drop_duplicates(tables.KEY))
    tables.write(main, part_of("main") / "metrics.csv")
    tables.write(other, part_of("other") / "metrics.csv")
    merged = merge(profile, seeds)
    copies = tables.select(main, method="rl", seed=list(seeds or (0, 1, 2)), split=["id", "rule_ood"])
    copies = copies.assign(experiment="attempts", setting="attempts=2")
    kept = tables.select(pd.concat([main, other]), seed=list(seeds or (0, 1, 2)))
    pd.testing.assert_frame_equal(merged, tables.validate(pd.concat([kept, copies])))


def test_a_main_run_of_other_settings_is_no_setting_of_another_experiment(home):
    """Nor is one of a method whose settings are all its own."""
    profile = profile_of(MAIN, replace(ATTEMPTS, arms=(Arm("rl", ({"attempts": 3}, {"attempts": 5})),)), NO_INIT)
    tables.write(main_table(), part_of("main") / "metrics.csv")
    assert set(merge(profile)["experiment"]) == {"main"}


def test_a_broken_transcript_is_named_by_file_and_line(home):
    good = json.dumps(failing_transcript())
    write_atomically(tables.transcripts_path("laptop"), good + '\n{"task": 1}\n')
    with pytest.raises(TableError, match="transcripts.jsonl, line 2 lacks the key 'modality'"):
        tables.read_transcripts("laptop")
    write_atomically(tables.transcripts_path("laptop"), "{half\n")
    with pytest.raises(TableError, match="transcripts.jsonl, line 1 is not JSON"):
        tables.read_transcripts("laptop")


def test_a_lone_surrogate_in_model_output_survives(home):
    record = failing_transcript("\ud800")
    text = json.dumps(record, ensure_ascii=False) + "\n"
    write_atomically(tables.transcripts_path("laptop"), text)
    assert tables.read_transcripts("laptop") == [record]


def test_ends_take_the_largest_compute_of_every_branch():
    ends = tables.ends(main_table(steps=8))
    assert set(ends["step"]) == {0, 80}
    assert (ends["n"] == 1000).all()
    assert not ends.duplicated(tables.BRANCH).any()


def test_select_and_parse_setting():
    frame = main_table()
    assert set(tables.select(frame, method=["init", "rl"], seed=1)["method"]) == {"init", "rl"}
    with pytest.raises(TableError, match="'colour' is no column"):
        tables.select(frame, colour="red")
    assert parse_setting("temperature=0.5;attempts=3") == {"temperature": 0.5, "attempts": 3.0}
    assert parse_setting("") == {}
    for setting in ("greedy", "lr=fast", "a=1=2"):
        with pytest.raises(ValueError, match="is not of the form"):
            parse_setting(setting)


def test_a_setting_that_does_not_say_what_is_asked_is_an_error_of_the_table():
    rows = main_table(seeds=(0,), steps=1)
    assert set(tables.settings_of(rows.assign(setting="lr=0.5;frozen=none"), "lr")) == {0.5}
    for setting in ("", "greedy", "lr=fast", "attempts=3"):
        with pytest.raises(TableError, match="does not say what 'lr' is"):
            tables.settings_of(rows.assign(setting=setting), "lr")


def test_what_is_registered_may_stand_in_the_tables(monkeypatch):
    with pytest.raises(TableError, match="task is 'toy' but must be one of general_points, navigation"):
        with_toys(main_table(seeds=(0,), steps=1))
    register_toys(monkeypatch)
    found = with_toys(main_table(seeds=(0,), steps=1))
    assert {"toy"} <= set(found["task"]) and {"toy"} <= set(found["method"])


def test_a_curve_is_of_the_episodes_that_all_its_checkpoints_share():
    """The end was tested on more, of which the curve's are the first; a checkpoint beside the curve on more alone."""
    frame = tables.validate(main_table(seeds=(0,), steps=4, curve_n=100, end_n=1000))
    frame = frame[(frame.method == "rl") & (frame.split == "id") & (frame.metric == "success")]
    beside = frame.iloc[[0]].assign(step=15, n=1000)
    both = tables.validate(pd.concat([frame, frame.iloc[[-1]].assign(n=100, value=0.01), beside]))
    curve = tables.along(both)
    assert list(curve["step"]) == [10, 20, 30, 40] and set(curve["n"]) == {100} and curve["value"].iloc[-1] == 0.01
    assert list(tables.ends(both)["n"]) == [1000]
    assert list(tables.along(frame)["n"]) == [100, 100, 100, 1000], "as older tables have it"


def test_the_end_by_the_papers_lambda_is_the_checkpoint_that_spends_the_budget():
    frame = tables.validate(main_table(seeds=(0,), steps=4))
    assert tables.paper_ends(frame).empty, "an older table does not know"
    rl = frame["method"] == "rl"
    frame["paper_flops"] = frame["train_flops"].where(~rl, 2 * frame["train_flops"])
    ends = tables.paper_ends(frame)
    assert set(ends[ends.method == "rl"].step) == {20} and set(ends[ends.method == "sft"].step) == {40}


def test_rates_of_puzzles_are_read_as_they_were_written():
    rates = {3: (0.5, 16), 11: (1.0, 15), 40: (1 / 3, 3)}
    text = tables.clusters_text(rates)
    assert text == "3=0.5*16;11=1*15;40=0.333333*3" and tables.clusters(text)[3] == (0.5, 16)
    assert tables.clusters("") == {} and tables.clusters_text({}) == ""
    good = main_table(seeds=(0,)).assign(by_cluster=text, paper_flops="", measured_lambda=0.3)
    assert set(tables.validate(good)["by_cluster"]) == {text} and tables.validate(good)["paper_flops"].isna().all()
    for column, value in (("by_cluster", "3=0.5"), ("paper_flops", "much"), ("measured_lambda", -1)):
        with pytest.raises(TableError, match=f"row 1: {column} is"):
            tables.validate(good.assign(**{column: value}))
