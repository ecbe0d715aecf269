"""Verdicts follow the rule written before the runs: the interval's side decides."""

import json

import pandas as pd
import pytest
from synthetic_tables import everything, image_tasks, main_table, register_toys, with_toys

from sftrl_lib import paths, tables
from sftrl_lib.claims import claims, report
from sftrl_lib.claims.evidence import Part
from sftrl_lib.claims.statistics import Estimate
from sftrl_lib.experiments import parse_setting


@pytest.fixture(scope="module")
def full():
    return everything()


def verdicts(frame):
    return {record["id"]: record for record in claims.evaluate(tables.validate(frame))}


def parts(record):
    """The measured parts of all cells of a claim."""
    return [part for cell in record["cells"] for part in cell["parts"]]


def cells(record):
    return {cell["variant"]: cell["verdict"] for cell in record["cells"]}


def change(frame, value, **where):
    """The table with `value` in the rows that `where` picks."""
    frame = frame.copy()
    frame.loc[tables.select(frame, **where).index, "value"] = value
    return frame


def test_there_are_the_papers_21_claims_with_their_fields(full):
    records = claims.evaluate(full)
    assert [record["id"] for record in records] == list(range(1, 22))
    needed = {"id", "statement", "verdict", "effect", "ci_low", "ci_high", "seeds", "figure", "note"}
    for record in records:
        assert needed <= record.keys()
        assert record["verdict"] in claims.VERDICTS
        assert (record["effect"] is None) == (not parts(record))
        if record["effect"] is not None:
            assert record["ci_low"] <= record["effect"] <= record["ci_high"]


@pytest.mark.parametrize(
    ("low", "high", "side", "threshold", "verdict"),
    [
        (0.01, 0.1, +1, 0.0, "reproduced"),
        (-0.1, -0.01, +1, 0.0, "not_reproduced"),
        (-0.01, 0.1, +1, 0.0, "inconclusive"),
        (0.0, 0.1, +1, 0.0, "inconclusive"),  # touching the threshold decides nothing
        (-0.1, -0.01, -1, 0.0, "reproduced"),
        (0.01, 0.1, -1, 0.0, "not_reproduced"),
        (0.0, 0.015, -1, 0.02, "reproduced"),
        (0.03, 0.05, -1, 0.02, "not_reproduced"),
        (0.0, 0.03, -1, 0.02, "inconclusive"),
    ],
)
def test_the_decision_rule(low, high, side, threshold, verdict):
    estimate = Estimate((low + high) / 2, low, high, 1000, 3, "wilson")
    assert Part("", estimate, side, threshold).verdict == verdict


def test_a_run_that_shows_the_papers_result_reproduces_it(full):
    found = verdicts(full)
    for number in (1, 2, 3, 4, 5, 10, 11, 12, 14, 21):
        assert found[number]["verdict"] == "reproduced", found[number]
        assert cells(found[number])["GP-L"] == "reproduced"
    assert found[13]["verdict"] == "not_comparable" and "how much is little" in found[13]["note"]
    assert found[1]["effect"] > 0 > found[2]["effect"]
    assert "Covers GP-L (not run: V-IRL-L, GP-VL, V-IRL-VL)." in found[1]["note"]
    for number in (6, 8, 9, 15, 16, 17):
        assert found[number]["verdict"] == "not_run"
    assert found[20]["verdict"] == "not_comparable" and "a definition" in found[20]["note"]
    assert found[7]["verdict"] == found[19]["verdict"] == "not_comparable"


def test_a_run_that_shows_the_opposite_does_not(full):
    rl, sft = (dict(experiment="main", setting="sampled", method=m, split="rule_ood") for m in ("rl", "sft"))
    worse = change(change(full, 0.0, **rl, metric="success"), 0.3, **sft, metric="success")
    found = verdicts(worse)
    for number in (1, 2, 3, 4, 21):
        assert found[number]["verdict"] == "not_reproduced", found[number]
    assert found[3]["effect"] == pytest.approx(-0.3)


def test_no_difference_is_inconclusive(full):
    main = dict(experiment="main", setting="sampled", split="rule_ood", metric="success")
    found = verdicts(change(full, 0.05, **main))
    assert [found[number]["verdict"] for number in (1, 2, 3)] == ["inconclusive"] * 3
    assert found[1]["effect"] == 0


def test_learning_without_sft_refutes_claim_10(full):
    found = verdicts(change(full, 0.2, method="rl_no_init", setting="lr=0.0005"))
    assert found[10]["verdict"] == "not_reproduced"
    assert "lr=0.0005" in found[10]["note"]
    assert found[10]["effect"] == pytest.approx(0.2)


def test_a_missing_part_keeps_a_claim_open(full):
    found = verdicts(full[full["setting"] != "attempts=3"])
    assert found[12]["verdict"] == "inconclusive"
    assert "Not in the tables: GP-L: 3 attempts minus 1" in found[12]["note"]


def test_claims_cover_every_variant_that_was_run():
    found = verdicts(main_table(("GP-L", "V-IRL-L", "V-IRL-VL")))
    assert "Covers GP-L, V-IRL-L, V-IRL-VL (not run: GP-VL)." in found[3]["note"]
    assert found[3]["verdict"] == "reproduced" and len(parts(found[3])) == 3
    assert cells(found[3]) == {v: "not_run" if v == "GP-VL" else "reproduced" for v in claims.ALL}


def test_a_claim_is_mixed_where_cells_disagree_and_the_failing_one_is_reported():
    table = tables.validate(main_table(("GP-L", "V-IRL-L")))
    where = dict(task="navigation", split="rule_ood", metric="step_accuracy")
    found = verdicts(change(change(table, 0.1, **where, method="rl"), 0.4, **where, method="sft"))
    assert found[3]["verdict"] == "mixed"
    assert (cells(found[3])["GP-L"], cells(found[3])["V-IRL-L"]) == ("reproduced", "not_reproduced")
    assert "Effect: V-IRL-L: RL minus SFT" in found[3]["note"]
    assert found[3]["effect"] == pytest.approx(-0.3)


def test_routes_count_by_their_steps_not_by_their_ends():
    table = tables.validate(main_table(("GP-L", "V-IRL-L")))
    found = verdicts(change(table, 0.5, task="navigation", metric="success"))
    for number in (1, 2, 3, 4, 5):
        assert found[number]["verdict"] == "reproduced", found[number]
        routes = [part["what"] for part in parts(found[number]) if part["what"].startswith("V-IRL-L")]
        assert routes and all("step accuracy" in what or "training rule" in what for what in routes)
    only = verdicts(table[table["task"] == "navigation"])
    assert [only[number]["verdict"] for number in (1, 2, 3, 4, 5)] == ["reproduced"] * 5
    for number in (10, 11, 12, 14, 17, 18):  # of GP-L or V-IRL-VL alone
        assert only[number]["verdict"] == "not_run"


def test_routes_without_the_metric_are_not_run_rather_than_guessed():
    table = tables.validate(main_table(("GP-L", "V-IRL-L")))
    bare = table[~((table["task"] == "navigation") & table["metric"].isin(["step_accuracy", "training_rule"]))]
    found = verdicts(bare)
    for number in (1, 2, 3, 4, 5):
        assert "Covers GP-L (not run: V-IRL-L" in found[number]["note"]


def test_the_old_rule_must_occur_at_all():
    """A rate of nearly nothing that falls or rises by nearly nothing is no failure mode."""
    table = tables.validate(main_table())
    rare = change(table, 0.004, metric="training_rule")
    found = verdicts(change(rare, 0.001, metric="training_rule", method="init"))
    assert found[5]["verdict"] == "not_reproduced"
    assert found[5]["effect"] == pytest.approx(0.004) and "SFT, answers by the training rule" in found[5]["note"]


def test_recognition_claims_of_gp_vl():
    frame = tables.validate(main_table(("GP-VL",)))
    rise = {"rl": 0.99, "sft": 0.4}
    for method, value in rise.items():
        frame = change(frame, value, method=method, metric="recognition", step=80)
    frame = change(frame, 0.8, method="init", metric="recognition")
    frame = change(frame, 0.01, method="sft", metric="success", step=80)
    found = verdicts(frame)
    assert found[9]["verdict"] == "reproduced"
    assert found[8]["verdict"] in ("reproduced", "inconclusive", "mixed") and len(parts(found[8])) == 3
    assert -1 <= found[8]["ci_low"] <= found[8]["effect"] <= found[8]["ci_high"] <= 1


@pytest.fixture(scope="module")
def images():
    return image_tasks()


def test_image_tasks_that_show_the_papers_results_reproduce_them(images):
    found = verdicts(change(images, 0.004, task="navigation", split="rule_ood", metric="success"))
    for number in (6, 8, 9, 15, 16, 17, 18):
        assert found[number]["verdict"] == "reproduced", found[number]
    assert found[19]["verdict"] == "not_comparable" and cells(found[19]) == {"V-IRL-VL": "reproduced"}
    assert [part["what"][:8] for part in parts(found[6])] == ["GP-VL: R", "GP-VL: S", "V-IRL-VL", "V-IRL-VL"]
    assert found[7]["verdict"] == "not_comparable" and "official" in found[7]["note"]
    assert len(parts(found[15])) == 11  # SFT of the main comparison and ten tuned runs
    assert any("(lr=0.001;frozen=vision+adapter)" in part["what"] for part in parts(found[15]))
    assert [part["what"] for part in parts(found[16])] == [
        f"GP-VL: RL minus Init (lr={rate}), ID success" for rate in ("0.0003", "0.001")
    ]
    assert len(parts(found[17])) == 2 and "Not in the tables" not in found[17]["note"]


def test_image_tasks_that_show_the_opposite_do_not(images):
    swapped = images["method"].replace({"sft": "rl", "rl": "sft"})
    found = verdicts(images.assign(method=swapped.where(images["experiment"] == "main", images["method"])))
    for number in (6, 9, 15):
        assert found[number]["verdict"] == "not_reproduced", found[number]
    one = change(images, 0.7, method="sft", setting="lr=0.0003;frozen=vision")
    assert verdicts(one)[15]["verdict"] == "not_reproduced"
    assert "lr=0.0003;frozen=vision" in verdicts(one)[15]["note"]
    flat = change(images, 0.02, experiment="rl_tuning", setting="lr=0.001")
    assert verdicts(flat)[16]["verdict"] == "not_reproduced"
    rescued = verdicts(change(images, 0.4, experiment="overfitted", method="rl", setting="lr=0.0003"))
    assert [rescued[number]["verdict"] for number in (17, 18)] == ["not_reproduced"] * 2
    walked = verdicts(change(images, 0.3, task="navigation", method="rl", split="rule_ood", metric="success"))[19]
    assert walked["verdict"] == "not_comparable" and cells(walked) == {"V-IRL-VL": "not_reproduced"}
    where = dict(task="general_points", metric="success", experiment="main", split=["id", "rule_ood", "visual_ood"])
    apart = images.copy()
    rows = tables.select(images, **where).index
    apart.loc[rows, "value"] = 1 - tables.select(images, **where | {"metric": "recognition"})["value"].to_numpy()
    assert verdicts(apart)[8]["verdict"] == "not_reproduced"


@pytest.mark.parametrize(("value", "verdict"), [(0.78, "reproduced"), (0.2, "not_reproduced"), (0.5, "inconclusive")])
def test_the_previous_best_is_beaten_only_on_the_official_routes(images, value, verdict):
    last = tables.select(images, task="navigation", method="rl", split="visual_ood", metric="success", step=50)
    official = last.assign(experiment="vln_mini", setting="", value=value, n=18, by_cluster="")
    found = verdicts(pd.concat([images, official]))[7]
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(value)


def test_the_start_of_fig_19_is_no_run_of_its_own(images):
    start = dict(experiment="overfitted", method="sft")
    assert verdicts(images)[17] == verdicts(images.drop(tables.select(images, **start).index))[17]


def test_settings_keep_words_and_refuse_words_for_numbers():
    words = parse_setting("lr=0.001;frozen=vision+adapter")
    assert words == {"lr": 0.001, "frozen": "vision+adapter"}
    for setting in ("lr=fast;frozen=none", "attempts=many", "temperature=", "frozen"):
        with pytest.raises(ValueError, match="is not of the form"):
            parse_setting(setting)


def test_a_further_task_or_method_changes_no_claim(monkeypatch, full, images):
    """Verdicts, effects, intervals, parts and notes; although the toy method stands in every experiment."""
    table = pd.concat([full, images, main_table(("V-IRL-L",))], ignore_index=True)
    before = claims.evaluate(tables.validate(table))
    assert {"reproduced", "not_comparable"} <= {record["verdict"] for record in before}
    register_toys(monkeypatch)
    assert claims.evaluate(with_toys(table)) == before


def test_one_seed_decides_nothing():
    found = verdicts(main_table(seeds=(0,)))
    assert [found[number]["verdict"] for number in (1, 2, 3)] == ["inconclusive"] * 3
    assert "From a single seed, which decides nothing: 1 of 1 parts." in found[1]["note"]
    assert verdicts(main_table(seeds=(0, 1), noise=0.001))[1]["verdict"] == "reproduced"


def test_many_parts_make_a_failure_no_likelier():
    """One of ten parts must miss its side by the interval of ten statements at once; one alone by its own."""
    just = Estimate(-0.05, -0.09, -0.01, 1000, 4, "newcombe")
    assert Part("", just, +1).verdict == "not_reproduced"
    assert Part("", just, +1, among=10).verdict == "inconclusive"
    assert Part("", just, -1, among=10).verdict == "reproduced", "all parts must hold, which needs no correction"


def test_a_claim_of_several_statements_is_mixed_where_they_disagree(images):
    better = change(images, 0.6, task="general_points", method="sft", experiment="main", split="visual_ood", step=50)
    found = verdicts(better)[6]
    assert cells(found)["GP-VL"] == "mixed" and found["verdict"] == "mixed"
    assert all(part.among == 2 for part in claims.cell_of(claims.CLAIMS[5], claims.Evidence(better), "GP-VL").parts)


def test_a_claim_that_holds_by_one_account_of_compute_alone_says_so():
    """RL is better than Init at its end, but not yet where the paper's lambda would end it."""
    table = tables.validate(main_table(steps=8))
    table["paper_flops"] = table["train_flops"]
    rl = table["method"] == "rl"
    table.loc[rl, "paper_flops"] *= 2  # its budget is spent at the fourth of eight checkpoints
    where = dict(method="rl", split="rule_ood", metric="success", step=[10, 20, 30, 40])
    found = verdicts(change(table, 0.05, **where))[1]
    assert found["verdict"] == "reproduced" and found["cells"][0]["by_paper_lambda"] == "inconclusive"
    assert "By the paper's lambda instead: GP-L inconclusive." in found["note"]
    assert verdicts(table)[1]["cells"][0]["by_paper_lambda"] == "reproduced"
    assert verdicts(main_table())[1]["cells"][0]["by_paper_lambda"] is None, "older tables do not know"


def test_the_table_of_the_claims_says_every_cell(full):
    records = claims.evaluate(full)
    lines = report.markdown(records, "laptop").splitlines()
    first = lines[2]
    assert len(lines) == 23 and first.startswith("| 1 | RL raises rule-OOD performance above Init. | reproduced | - |")
    assert "points; GP-L: RL minus Init, rule-OOD success (3 seeds, n = 3,000)" in first
    assert first.endswith("| [Fig. 6](figures/laptop/fig06.png) |")
    expected = "Of the paper's 21 claims: reproduced 11, not reproduced 0, not comparable 4, not run 6."
    assert report.tally(records) == expected
    cells = "Of the 11 cells (claim x task) that were run: reproduced 11, not reproduced 0."
    assert report.cells_tally(records) == cells


def test_unequal_compute_is_remarked_on():
    frame = tables.validate(main_table())
    frame.loc[frame["method"] == "sft", "train_flops"] *= 2
    assert "SFT had 2.00 times RL's training compute" in verdicts(frame)[3]["note"]


def test_write_is_deterministic_and_needs_a_table(tmp_path, monkeypatch, full):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    with pytest.raises(tables.TableError, match="There is no table at results/laptop/metrics.csv"):
        report.write("laptop")
    tables.write(full.sample(frac=1, random_state=0), tables.metrics_path("laptop"))
    records = report.write("laptop")
    text = report.claims_path("laptop").read_text()
    assert [record for record in json.loads(text) if isinstance(record["id"], int)] == records
    report.write("laptop")
    assert report.claims_path("laptop").read_text() == text
    shown = report.summary(records)
    assert isinstance(shown, pd.DataFrame) and len(shown) == 21
    assert shown.loc[1, "effect (points)"] == pytest.approx(100 * records[0]["effect"], abs=0.051)
