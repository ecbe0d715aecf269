"""REPRODUCTION.md: what the tables give, whatever they hold, beside what the paper's own numbers can carry."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic_tables import everything, image_tasks, main_table
from test_comparison import committed

from sftrl_lib import paths, published, tables
from sftrl_lib.claims import beyond, designs, effort, paper, reproduction
from sftrl_lib.claims.claims import ALL, CLAIMS
from sftrl_lib.claims.evidence import Evidence
from sftrl_lib.claims.narrative import NARRATIVES
from sftrl_lib.profiles import TOY


def written(metrics, profile="laptop", runs=None):
    return reproduction.markdown(metrics, profile, {"fig06"}, runs or {})


def about(text, number):
    """What the report says of one claim."""
    [section] = re.findall(rf"### Claim {number}\. (.*?)(?=\n##)", text, re.DOTALL)
    return section


@pytest.fixture(scope="module")
def whole():
    """Synthetic tables of all four tasks in which everything is as in the paper."""
    routes = main_table(("V-IRL-L",))
    return tables.validate(pd.concat([everything(), image_tasks(), routes], ignore_index=True))


@pytest.fixture(scope="module")
def text(whole):
    return written(whole)


def test_the_committed_report_is_that_of_the_committed_tables(tmp_path):
    metrics = tables.read(committed("results/laptop/metrics.csv", tmp_path))
    runs = json.loads(committed("results/laptop/manifest.json", tmp_path).read_text(encoding="utf-8"))["runs"]
    report = committed("REPRODUCTION.md", tmp_path).read_text(encoding="utf-8")
    figures = {Path(name).stem for name in re.findall(r"\(figures/laptop/(\S+)\.png\)", report)}
    assert {"fig06", "fig09", "fig16", "mechanism"} <= figures <= reproduction.drawn("laptop")
    assert reproduction.markdown(metrics, "laptop", figures, runs) == report


@pytest.mark.parametrize("some", [(), *((name,) for name in ALL), ("GP-L", "V-IRL-VL")])
def test_any_of_the_tasks_will_do(whole, some):
    kept = [pair in {(published.VARIANTS[v].task, published.VARIANTS[v].modality) for v in some}
            for pair in zip(whole["task"], whole["modality"], strict=True)]  # fmt: skip
    text = written(whole[kept])
    [row] = [line for line in text.splitlines() if line.startswith("| [1](#claim-1")]
    shown = dict(zip(ALL, row.split(" | ")[2:6], strict=True))
    assert {name for name, cell in shown.items() if cell != "not run"} == set(some)
    assert ("Nothing of the main comparison has been run" in text) == (not some)
    assert "nan" not in text.replace("finance", "") and text.count("### Claim") == 21


def test_the_words_follow_the_verdicts(whole, text):
    swapped = whole.assign(method=whole["method"].replace({"sft": "rl", "rl": "sft"}))
    reverse = written(swapped)
    for number, variant in ((1, "GP-L"), (2, "V-IRL-L"), (3, "V-IRL-VL")):
        right, wrong = about(text, number), about(reverse, number)
        assert NARRATIVES[number].holds in right and NARRATIVES[number].fails not in right
        assert NARRATIVES[number].fails in wrong and NARRATIVES[number].holds not in wrong
        assert f"{variant}" in right.split("Holds in ")[1].split(".")[0]
    one = about(written(whole[whole["seed"] == 0]), 1)
    assert "1 of 1 parts rest on one seed, which decides nothing" in one and "Holds in" not in one


def test_numbers_stand_as_in_the_tables(whole, text):
    gain = Evidence(whole).gain("GP-L", "rl", "init", "rule_ood")
    cell = f"+{100 * gain.value:.1f} [+{100 * gain.low:.1f}, +{100 * gain.high:.1f}] points"
    assert f"✓ **reproduced**<br>{cell.removesuffix(' points')}<br>paper +3.5 [-2.7, +9.7] |" in text
    assert f"| GP-L: RL minus Init, rule-OOD success | above 0 | {cell} | 3, 3,000 | reproduced |" in about(text, 1)


def test_a_missing_part_and_a_level_that_is_not_judged_are_said_to_be_so(whole, text):
    fewer = whole[whole["setting"] != "attempts=10"]
    assert "1 of 3 parts was not run" in about(written(fewer), 12)
    assert "Not judged: how much is little" in about(text, 13) and "| not judged |" in about(text, 13)


def test_a_toy_run_says_so_first(whole, text):
    assert written(whole, "smoke").startswith(f"> **{TOY.capitalize()}**")
    assert TOY.capitalize() not in text


# Which design


def designed(metrics, profile="laptop"):
    return "\n".join(designs.told(Evidence(tables.validate(metrics)), profile))


def test_the_design_is_read_off_the_tables():
    old = main_table(("GP-L",))
    new = old.assign(paper_flops=1e9, measured_lambda=0.99)
    assert "earlier design" in designed(old) and "| GP-L | earlier | 3: 0 to 2 |" in designed(old)
    assert "with seeds other than the study's" in designed(new)
    study = new.assign(seed=new["seed"] + 100)
    assert "study of PROTOCOL.md, so far 3 of 10 seeds" in designed(study) and "| 0.99 |" in designed(study)
    all_ten = pd.concat([study, *(study.assign(seed=study["seed"] + 3 * n) for n in (1, 2))])
    assert "so far" not in designed(pd.concat([all_ten, study[study["seed"] == 100].assign(seed=109)]))
    assert "a toy run" in designed(new, "smoke") and "the profile other" in designed(new, "other")


def test_tasks_of_different_designs_are_told_apart():
    study = main_table(("GP-VL",)).assign(paper_flops=1e9)
    said = designed(pd.concat([main_table(("GP-L",)), study.assign(seed=study["seed"] + 100)]))
    assert "different designs" in said and "* *earlier*: the earlier design" in said
    assert "| V-IRL-L | not run |" in said and "so far 3 of 8 seeds | 3: 100 to 102 |" in said


def test_the_seeds_of_the_study_are_those_of_the_protocol():
    text = (paths.ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
    for name, seeds in designs.STUDY_SEEDS.items():
        assert f"| {name} | {len(seeds)}: {seeds[0]} to {seeds[-1]} |" in text


# The paper's own numbers


def test_a_difference_by_hand():
    """Newcombe's interval from its formula (Statistics in Medicine 17, 1998, method 10), for RL minus Init on GP-L."""

    def wilson(p, n, z=1.959964):
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    [found] = paper.parts(1, "GP-L")
    (low1, high1), (low2, high2) = wilson(0.15, 234), wilson(0.115, 234)
    expected = (0.035 - math.hypot(0.15 - low1, high2 - 0.115), 0.035 + math.hypot(high1 - 0.15, 0.115 - low2))
    assert (found.part.estimate.low, found.part.estimate.high) == pytest.approx(expected, abs=1e-4)
    z = 0.035 / math.sqrt(0.1325 * 0.8675 * 2 / 234)  # of the pooled rate
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.01) and found.verdict == "not separated"


def test_what_the_papers_numbers_can_carry():
    """As z values of the paper's own standard errors say: no gain of RL under a new rule, every loss of SFT."""
    assert {one.verdict for v in ALL for one in paper.parts(1, v)} == {"not separated"}
    assert {one.verdict for v in ALL for one in paper.parts(2, v)} == {"separated"}
    sft = {v: paper.parts(6, v)[1].verdict for v in ("GP-VL", "V-IRL-VL")}
    assert sft == {"GP-VL": "separated", "V-IRL-VL": "not separated"}, "one route of 18"
    assert paper.parts(5, "GP-L") == [] and paper.parts(20, "GP-L") == []


def test_the_papers_numbers_stand_beside_ours_of_the_same_words(whole):
    evidence = Evidence(whole)
    for claim in CLAIMS:
        if claim.id in (10, 15, 17, 18):  # ours has a part for every setting
            continue
        for variant in claim.variants:
            ours = {part.what: part for part in claim.parts(evidence, variant)}
            for one in paper.parts(claim.id, variant):
                mine = ours[one.part.what]
                assert (mine.side, mine.threshold) == (one.part.side, one.part.threshold), one.part.what


# The words


def test_every_claim_has_words_and_asks_only_what_there_is():
    assert NARRATIVES.keys() == {claim.id for claim in CLAIMS}
    known = {control.id for control in beyond.CLAIMS}
    for claim in CLAIMS:
        told = NARRATIVES[claim.id]
        assert set(told.controls) <= known
        assert all((paths.NOTEBOOKS / f"{name}.ipynb").is_file() for name in told.notebooks)
        assert (told.holds and told.fails) or claim.incomparable or claim.id == 20


# Commands and minutes


def test_commands_name_tasks_seeds_and_experiments(whole):
    found = {claim.id: effort.command(claim, whole, "laptop") for claim in CLAIMS}
    assert found[1] == "`make reproduce EXPERIMENTS=main`"
    assert found[9] == "`make reproduce TASKS=GP-VL EXPERIMENTS=main`"
    assert found[12] == "`make reproduce TASKS=GP-L EXPERIMENTS=attempts`"
    assert found[10] == "`make reproduce TASKS=GP-L`", "its experiment has fewer seeds than the main comparison"
    moved = whole.assign(seed=whole["seed"] + 100)
    assert 'SEEDS="100 101 102"' in effort.command(CLAIMS[0], moved, "laptop")
    assert "PROFILE=smoke" in effort.command(CLAIMS[0], whole, "smoke")


def test_minutes_are_those_of_the_runs_that_a_claim_needs(whole):
    claim = CLAIMS[11]
    needed = sorted(set(effort.names(claim, whole)))
    assert "gp-l-rl-attempts-attempts10-s2" in needed and "gp-l-init-s0" in needed and "gp-l-rl-main-s1" in needed
    runs = {name: {"seconds": 60.0, "machine": "a box"} for name in needed}
    assert effort.minutes(needed, runs) == str(len(needed)) and effort.machine(needed, runs) == "a box"
    del runs["gp-l-init-s0"]
    assert effort.minutes(needed, runs) == f"{len(needed) - 1} ({len(needed) - 1} of {len(needed)} runs recorded)"
    assert effort.minutes(needed, {}) == "not recorded" and effort.minutes([], {}) == "not run"
    unknown = {name: {"seconds": "unknown"} for name in needed}
    assert effort.minutes(needed, unknown) == "not recorded"


def test_the_report_is_written_at_the_top_or_beside_the_tables(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert reproduction.main([]) == 2 and capsys.readouterr().err.count("\n") == 1
    for profile in ("laptop", "smoke"):
        tables.write(whole, tables.metrics_path(profile))
    assert reproduction.main([]) == 0 and "[paper.py](sftrl_lib/" in (tmp_path / "REPRODUCTION.md").read_text()
    reproduction.write("smoke")
    text = (tmp_path / "results" / "smoke" / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert "[paper.py](../../sftrl_lib/" in text and "(https://arxiv.org" in text and "](#claim-1" in text
