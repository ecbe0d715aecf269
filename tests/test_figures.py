"""Figures by what is drawn in them: artists against the table, never pixels."""

import json

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from synthetic_tables import END_FLOPS, TASKS, everything, failing_transcript, main_table

from sftrl_lib import paths
from sftrl_lib.analysis import figures, published, statistics, tables
from sftrl_lib.analysis.style import COLORS, NothingToDraw, Tables, save_figure


@pytest.fixture(scope="module")
def full():
    return Tables("laptop", everything(), [failing_transcript()])


@pytest.fixture(scope="module")
def drawn(full):
    return {number: function(full) for number, function in figures.FIGURES.items()}


def line(axes, label):
    return next(item for item in axes.lines if item.get_label() == label)


def texts(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text))


def test_every_figure_says_profile_seeds_n_and_confidence(drawn):
    for number, drawing in drawn.items():
        header = texts(drawing.figure)
        for needed in ("profile laptop", "seed", "n = ", "95%"):
            assert needed in header, (number, needed)
        assert drawing.data["profile"] == "laptop"
        assert drawing.data["figure"] == figures.file_name(number)


def test_main_curves_are_the_means_over_seeds(full, drawn):
    rows = tables.select(full.metrics, method="rl", experiment="main", setting="sampled", split="rule_ood",
                         metric="success")  # fmt: skip
    means = 100 * rows.groupby("step")["value"].mean()
    axes = drawn[5].figure.axes[1]
    curve = line(axes, "rl -")
    assert curve.get_ydata()[1:] == pytest.approx(means.to_numpy())
    assert curve.get_xdata()[-1] == pytest.approx(END_FLOPS / 1e13)
    assert to_hex(curve.get_color()) == COLORS["rl"]
    star = next(item for item in axes.collections if item.get_label() == "init")
    assert tuple(star.get_offsets()[0]) == pytest.approx((curve.get_xdata()[0], curve.get_ydata()[0]))
    raw = [tuple(point) for item in axes.collections for point in np.asarray(item.get_offsets())]
    assert all(any(y == pytest.approx(100 * value) for _, y in raw) for value in rows["value"])


def test_main_curves_dash_held_out_hands_and_show_the_papers_ends(drawn):
    id_axes, ood_axes = drawn[5].figure.axes
    dashed = [item for item in id_axes.lines if item.is_dashed()]
    assert {to_hex(item.get_color()) for item in dashed} == {COLORS["sft"], COLORS["rl"]}
    assert not [item for item in ood_axes.lines if item.is_dashed()]
    paper = {item.get_label(): item for item in ood_axes.collections if item.get_label().startswith("paper")}
    assert paper["paper rl"].get_offsets()[0][1] == 15.0
    assert to_hex(paper["paper sft"].get_facecolor()[0]) == "#ffffff"  # hollow


def test_smoothing_is_an_extra_guide(full):
    plain, smooth = (figures.FIGURES[5](full, smooth=value).figure.axes[1] for value in (False, True))
    assert len(smooth.lines) == len(plain.lines) + 2
    assert line(smooth, "rl -").get_ydata() == pytest.approx(line(plain, "rl -").get_ydata())


def test_columns_appear_with_the_rows_of_a_variant():
    four = Tables("laptop", tables.validate(main_table(tuple(TASKS), steps=3)))
    assert len(figures.FIGURES[5](four).figure.axes) == 8
    assert len([axes for axes in figures.FIGURES[6](four).figure.axes if axes.get_visible()]) == 4
    assert len(figures.FIGURES["mechanism"](four).figure.axes) == 4
    assert {item["variant"] for item in figures.FIGURES[6](four).data["series"]} == set(TASKS)


def test_bars_heights_intervals_and_paper(full, drawn):
    axes = drawn[6].figure.axes[0]
    heights = {bar.get_label(): bar.patches[0].get_height() for bar in axes.containers}
    ends = tables.ends(tables.select(full.metrics, experiment="main", setting="sampled", split="rule_ood",
                                     metric="success"))  # fmt: skip
    for method in ("init", "sft", "rl"):
        mine = ends[ends["method"] == method]
        assert heights[method] == pytest.approx(100 * mine["value"].mean())
        assert heights[f"paper {method}"] == published.FIG06["GP-L"][method]
    record = next(item for item in drawn[6].data["series"] if item["method"] == "rl")
    gain = statistics.difference_of(ends[ends["method"] == "rl"], ends[ends["method"] == "init"])
    assert record["minus_init"]["ci_low"] == pytest.approx(100 * gain.low)
    assert f"+{100 * gain.value:.1f}" in texts(drawn[6].figure)
    assert drawn[6].data["paper"]["GP-L"] == {"init": 11.5, "sft": 3.4, "rl": 15.0}


def test_without_sft_draws_every_learning_rate(drawn):
    labels = {item.get_label() for item in drawn[9].figure.axes[0].lines}
    rates = ("0.0001", "0.0002", "0.0005")
    assert {f"learning rate {rate}" for rate in rates} <= labels
    assert all(max(series["value"]) == 0 for series in drawn[9].data["series"])
    assert "Dotted: the paper's runs, never above 0.4 %." in texts(drawn[9].figure)


def test_attempts_growth_is_over_the_same_seeds_init(full, drawn):
    series = {item["attempts"]: item for item in drawn[10].data["series"]}
    assert sorted(series) == [1, 3, 5, 10]
    ends = tables.ends(full.metrics)
    rl = tables.select(ends, experiment="attempts", setting="attempts=10", split="rule_ood")
    init = tables.select(ends, experiment="main", setting="sampled", method="init", split="rule_ood", metric="success")
    expected = (rl.set_index("seed")["value"] - init.set_index("seed")["value"]).mean()
    assert series[10]["ood_growth"]["value"] == pytest.approx(100 * expected)
    point = line(drawn[10].figure.axes[0], "attempts=10")
    assert point.get_xdata()[0] == pytest.approx(100 * expected)
    paper = line(drawn[10].figure.axes[1], "paper attempts=10")
    assert paper.get_ydata()[0] == 5.99


def test_suboptimal_has_both_kinds_of_sft(drawn):
    id_axes, ood_axes = drawn[15].figure.axes
    for axes in (id_axes, ood_axes):
        assert {"sft -", "sft_suboptimal -"} <= {item.get_label() for item in axes.lines}


def test_sensitivity_cells(full, drawn):
    series = drawn["sensitivity"].data["series"]
    assert len(series) == 3 * 5 * 12  # splits x columns x cells
    cell = next(item for item in series if item["minus"] == "sft" and item["split"] == "rule_ood"
                and item["temperature"] == 1 and item["attempts"] == 5)  # fmt: skip
    rows = tables.select(full.metrics, experiment="sensitivity", setting="temperature=1;attempts=5",
                         split="rule_ood").set_index("seed")  # fmt: skip
    means = rows.groupby("method")["value"].mean()
    assert cell["value"] == pytest.approx(100 * (means["rl"] - means["sft"]))


def test_transcript_is_drawn_as_plain_text(full, drawn):
    shown = [text for text in drawn[20].figure.axes[0].texts]
    assert any(text.get_text() == "    return $24$" for text in shown)
    assert not any(text.get_parse_math() for text in shown if "$" in text.get_text())
    assert "\x00" not in texts(drawn[20].figure)
    hostile = ["", "\x00\x1b[31m" * 50, "$\\frac{", "九" * 500, "a" * 2_000_000, "\ud800", "\n" * 9999]
    for output in hostile:
        figures.FIGURES[20](Tables("laptop", full.metrics, [failing_transcript(output)])).png(dpi=20)


def test_a_solved_episode_is_no_failure(full):
    solved = failing_transcript() | {"turns": [{"output": "...", "outcome": "correct", "reward": 5}]}
    with pytest.raises(NothingToDraw, match="failing transcript"):
        figures.FIGURES[20](Tables("laptop", full.metrics, [solved]))


def test_one_seed_and_missing_branches_still_draw():
    table = tables.validate(main_table(seeds=(7,), steps=2))
    only_rl = Tables("laptop", table[table["method"] != "sft"])
    assert "1 seed ·" in texts(figures.FIGURES[5](only_rl).figure)
    assert {item["method"] for item in figures.FIGURES[6](only_rl).data["series"]} == {"init", "rl"}
    no_init = Tables("laptop", table[table["method"] == "rl"])
    assert len(line(figures.FIGURES[5](no_init).figure.axes[1], "rl -").get_xdata()) == 2
    with pytest.raises(NothingToDraw, match="init, sft and rl"):
        figures.FIGURES["headline"](only_rl)


def test_same_table_same_files_whatever_the_callers_style(tmp_path, monkeypatch, full):
    saved = []
    for folder, settings in (("a", {}), ("b", {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 31})):
        monkeypatch.setattr(paths, "HOME", tmp_path / folder)
        with mpl.rc_context(settings):
            files = save_figure(figures.FIGURES[9](full), "fig09", "laptop")
        saved.append([file.read_bytes() for file in files])
    assert saved[0] == saved[1]
    assert b"CreationDate" not in saved[0][1]
    data = json.loads(saved[0][2])
    assert data["paper"]["highest_success"] == 0.4 and data["unit"] == "percent"


def test_draw_all_writes_what_it_can_and_says_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    with pytest.raises(tables.TableError, match="There is no table"):
        figures.draw_all("smoke")
    few = main_table(seeds=(0,), steps=1)
    tables.write(few[few["metric"] == "recognition"], tables.metrics_path("smoke"))
    assert figures.draw_all("smoke") == ["mechanism"]
    said = capsys.readouterr().out
    assert "written  figures/smoke/mechanism" in said
    assert "skipped  fig10: it needs rows of experiment 'attempts'" in said
    assert sorted(file.suffix for file in paths.figures("smoke").iterdir()) == [".json", ".pdf", ".png"]
    with pytest.raises(ValueError, match="There is no figure 99; the figures are 5, 6, 9"):
        figures.draw(99, "smoke")


def test_no_open_pyplot_figures(drawn):
    assert mpl.pyplot.get_fignums() == []
