"""The figure of LoRA ranks: what it draws is what the table holds."""

import pandas as pd
import pytest

from sftrl_lib.figures.lora import lora
from sftrl_lib.figures.style import NothingToDraw, Tables
from sftrl_lib.tables import COLUMNS, validate


def rows(method, lr, rank, split, value, seed):
    where = ("general_points", "text", method, "lora", f"lr={lr:g};rank={rank}", seed)
    return (*where, 30, 1e12, split, "success", value + 0.01 * seed, 200)


@pytest.fixture
def tables():
    made = [
        rows(method, lr, rank, split, 0.1 + 0.002 * rank + (0.2 if split == "id" else 0.0), seed)
        for method, lrs in (("rl", (3e-4, 9e-4)), ("sft", (1e-3, 3e-3)))
        for lr in lrs for rank in (0, 4, 64) for split in ("id", "rule_ood") for seed in (0, 1, 2)
    ]  # fmt: skip
    return Tables("laptop", validate(pd.DataFrame(made, columns=list(COLUMNS))), [], None)


def test_every_rank_rate_and_split_is_drawn(tables):
    drawing = lora(tables)
    series = drawing.data["series"]
    assert len(series) == 2 * 2 * 2 * 3
    [one] = [s for s in series if (s["method"], s["lr"], s["rank"], s["split"]) == ("rl", 3e-4, 64, "rule_ood")]
    assert one["value"] == pytest.approx(100 * (0.1 + 0.128 + 0.01)) and one["seeds"] == 3
    for axes in drawing.figure.axes:
        assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "64", "all"]


def test_without_the_experiment_there_is_nothing_to_draw(tables):
    with pytest.raises(NothingToDraw, match="rows of experiment 'lora'"):
        lora(Tables("laptop", tables.metrics.assign(experiment="main"), [], None))
