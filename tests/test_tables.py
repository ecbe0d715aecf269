"""The tidy tables: what is accepted, what is refused and how, merging, ends of branches."""

import json

import pandas as pd
import pytest
from synthetic_tables import failing_transcript, main_table

from sftrl_lib import paths, tables
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
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
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
    with pytest.raises(TableError, match="There is no table at results/laptop/metrics.csv"):
        tables.read_metrics("laptop")
    for content in (b"", b"\xff\xfe\x00garbage", b'task,"unclosed\n1,2', b"a,b\n1,2,3\n4,5,6,7,8\n"):
        path = tables.write_atomically(home / "broken.csv", content)
        with pytest.raises(TableError, match="broken.csv") as error:
            tables.read(path)
        assert "\n" not in str(error.value)


def test_merge_does_not_depend_on_how_runs_were_split(home):
    frame = tables.validate(main_table())
    for number, (_, part) in enumerate(frame.groupby(["seed", "method"])):
        tables.write(part, paths.run_folder("laptop", f"run{9 - number}") / "metrics.csv")
    record = failing_transcript()
    later = record | {"episode": 11}
    tables.write_atomically(paths.run_folder("laptop", "run9") / "transcripts.jsonl", json.dumps(later) + "\n")
    tables.write_atomically(paths.run_folder("laptop", "run8") / "transcripts.jsonl", json.dumps(record) + "\n")
    pd.testing.assert_frame_equal(tables.merge("laptop"), frame)
    pd.testing.assert_frame_equal(tables.read_metrics("laptop"), frame)
    assert [item["episode"] for item in tables.read_transcripts("laptop")] == [3, 11]
    first = tables.metrics_path("laptop").read_bytes()
    tables.merge("laptop")
    assert tables.metrics_path("laptop").read_bytes() == first


def test_merge_without_runs_and_with_a_broken_run(home):
    with pytest.raises(TableError, match="No run of profile 'laptop' has written"):
        tables.merge("laptop")
    tables.write_atomically(paths.run_folder("laptop", "a") / "metrics.csv", "nonsense\n")
    with pytest.raises(TableError, match="build/laptop/runs/a/metrics.csv lacks the column 'task'"):
        tables.merge("laptop")


def test_a_broken_transcript_is_named_by_file_and_line(home):
    good = json.dumps(failing_transcript())
    tables.write_atomically(tables.transcripts_path("laptop"), good + '\n{"task": 1}\n')
    with pytest.raises(TableError, match="transcripts.jsonl, line 2 lacks the key 'modality'"):
        tables.read_transcripts("laptop")
    tables.write_atomically(tables.transcripts_path("laptop"), "{half\n")
    with pytest.raises(TableError, match="transcripts.jsonl, line 1 is not JSON"):
        tables.read_transcripts("laptop")


def test_a_lone_surrogate_in_model_output_survives(home):
    record = failing_transcript("\ud800")
    text = json.dumps(record, ensure_ascii=False) + "\n"
    tables.write_atomically(tables.transcripts_path("laptop"), text)
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
    assert tables.parse_setting("temperature=0.5;attempts=3") == {"temperature": 0.5, "attempts": 3.0}
    for setting in ("", "greedy", "lr=fast", "a=1=2"):
        with pytest.raises(TableError, match="is not of the form"):
            tables.parse_setting(setting)
