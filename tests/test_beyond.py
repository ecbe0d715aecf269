"""Claims beyond the paper: each decided from rows made by hand, open with one seed, and not run without rows."""

import pandas as pd
import pytest

from sftrl_lib.claims import beyond
from sftrl_lib.claims.evidence import Evidence
from sftrl_lib.profiles import LAPTOP
from sftrl_lib.tables import COLUMNS, validate
from sftrl_lib.task import PROBES, SPLITS

SEEDS = (0, 1, 2)


def rows(method, split, value, experiment="main", setting="sampled", metric="success", step=100, seeds=SEEDS, n=1000):
    """Rows of GP-L, one a seed; `value` may be a function of the seed."""
    rate = value if callable(value) else lambda seed: value
    return [
        dict(zip(COLUMNS, ("general_points", "text", method, experiment, setting, seed, step, 1e9 * (step + 1), split,
                           metric, rate(seed), n), strict=True))
        for seed in seeds
    ]  # fmt: skip


def table(*groups):
    return validate(pd.DataFrame([row for group in groups for row in group], columns=list(COLUMNS)))


def record(metrics, id_):
    return next(record for record in beyond.evaluate(metrics) if record["id"] == id_)


def grid(new_low=0.45, seeds=SEEDS):
    sft = init = {"experiment": "rule_grid", "setting": ""}
    levels = {"grid_new_short_low": new_low, "grid_new_short_high": 0.05}
    made = [rows("sft", split, value, **sft, seeds=seeds) for split, value in levels.items()]
    made += [rows("init", split, 0.2, **init, seeds=seeds) for split in levels]
    read = [rows("sft", "grid_new_short_low", 1.0, metric="recognition", **sft, seeds=seeds)]
    return [*made, *read, rows("init", "grid_new_short_low", 0.98, metric="recognition", **init, seeds=seeds)]


def test_the_grid_decides_what_sft_loses():
    assert record(table(*grid()), "b1")["verdict"] == "reproduced"
    found = record(table(*grid(new_low=0.05)), "b1")
    assert found["verdict"] == "not_reproduced" and found["effect"] == pytest.approx(-0.15)
    [cell] = found["cells"]
    assert cell["variant"] == "GP-L" and {part["seeds"] for part in cell["parts"]} == {3}


def test_one_seed_decides_nothing():
    assert record(table(*grid(seeds=(0,))), "b1")["verdict"] == "inconclusive"


def test_without_rows_nothing_is_decided():
    found = beyond.evaluate(table(rows("init", "id", 0.3)))
    assert {claim["verdict"] for claim in found} == {"not_run"} and {claim["effect"] for claim in found} == {None}


def test_the_selector_sees_held_out_success_alone():
    """Seed 0 is best at step 10, the others at step 20; the new rule is best somewhere else."""
    where = {"experiment": "sft_dense", "setting": ""}
    held_out, ood = {10: (0.3, 0.2, 0.2), 20: (0.2, 0.3, 0.3), 30: (0.1, 0.1, 0.1)}, {10: 0.4, 20: 0.5, 30: 0.9}
    made = [rows("sft", "heldout", lambda s, v=values: v[s], step=k, **where) for k, values in held_out.items()]
    made += [rows("sft", "rule_ood", value, step=k, **where) for k, value in ood.items()]
    chosen = beyond.stopped_early(table(*made), "GP-L")
    assert dict(zip(chosen["seed"], chosen["value"], strict=True)) == {0: 0.4, 1: 0.5, 2: 0.5}
    found = record(table(*made, rows("init", "rule_ood", 0.1)), "b5")
    assert found["cells"][0]["parts"][0]["effect"] == pytest.approx((0.4 + 0.5 + 0.5) / 3 - 0.9)


def test_sft_at_the_level_of_rl():
    """The checkpoint of any dose whose ID level is nearest to RL's end."""
    made = [rows("rl", "id", 0.5), rows("rl", "rule_ood", 0.25), rows("init", "rule_ood", 0.12)]
    doses = ("lr=0.0001", 10, 0.40, 0.12), ("lr=0.0001", 20, 0.48, 0.13), ("lr=0.001", 10, 0.7, 0.0)
    for setting, step, level, ood in doses:
        where = {"experiment": "dose", "setting": setting, "step": step}
        made += [rows("sft", "id", level, **where), rows("sft", "rule_ood", ood, **where)]
    matched = beyond.at_level_of_rl(Evidence(table(*made)), "GP-L")
    assert set(matched["value"]) == {0.13} and len(matched) == 3
    effects = [part["effect"] for part in record(table(*made), "b6")["cells"][0]["parts"]]
    assert effects == pytest.approx([0.01, 0.12])


def test_divergence_joins_each_checkpoint_once():
    made = []
    for step, (distance, ood) in enumerate([(0.1, 0.2), (0.5, 0.15), (1.5, 0.1), (2.5, 0.02)]):
        for experiment, setting in (("main", "sampled"), ("dose", "lr=0.001")):  # a copy of the same run
            where = {"experiment": experiment, "setting": setting, "step": step}
            made += [rows("sft", "id", distance, metric="kl_to_init", **where), rows("sft", "rule_ood", ood, **where)]
    points = beyond.divergence_points(table(*made), "GP-L")
    assert len(points) == 4 * len(SEEDS)
    assert record(table(*made), "b13")["effect"] < -0.9


def test_pictures_with_and_without_stand_side_by_side():
    made = [rows(m, s, 0.5, metric="recognition") for m in ("init", "sft", "rl") for s in ("id", "visual_ood")]
    for step, value in ((50, 0.7), (100, 0.4)):
        where = {"experiment": "pictures_dropped", "setting": "pictures=dropped;lr=0.001", "step": step}
        made.append(rows("sft", "id", value, metric="recognition", **where))
    metrics = table(*made).assign(modality="image")
    compared = beyond.pictures_compared(metrics)
    assert compared.loc[("GP-VL", "SFT without pictures, lr 0.001"), ("recognition", "id")] == pytest.approx(40)
    along = beyond.pictures_along(metrics).loc["GP-VL"].loc["SFT without pictures, lr 0.001"]["recognition"]
    assert along.to_dict() == pytest.approx({50: 70, 100: 40})


def test_every_claim_has_an_experiment_and_known_splits():
    experiments = {e.name for study in LAPTOP.studies for e in (*study.experiments, *study.controls)}
    assert {claim.experiment for claim in beyond.CLAIMS} - {"habit"} <= experiments
    named = {split for study in LAPTOP.studies for e in study.controls for split in e.splits}
    assert named <= {*SPLITS, *PROBES} and len({claim.id for claim in beyond.CLAIMS}) == len(beyond.CLAIMS)
