"""Figures by what is drawn in them: artists against the table, never pixels."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from synthetic_tables import (
    END_FLOPS,
    TASKS,
    everything,
    example_transcripts,
    failing_transcript,
    illustrated,
    image_tasks,
    main_table,
    register_toys,
    with_protocols,
    with_toys,
)

from sftrl_lib import paths, published, tables
from sftrl_lib.claims import claims, statistics
from sftrl_lib.figures import draw
from sftrl_lib.figures.style import NothingToDraw, Tables, save_figure
from sftrl_lib.methods import METHODS
from sftrl_lib.profiles import TOY

PAGES = (2, 3, 4, 11, 12, 13, 14, 20, 21)  # they show one episode, which has no interval
IMAGE_FIGURES = (7, 8, 16, 17, 18, 19)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """GP-L's tables, and a transcript for every figure that shows one, with its pictures."""
    transcripts = example_transcripts()
    return Tables("laptop", everything(), transcripts, illustrated(tmp_path_factory.mktemp("home"), transcripts))


@pytest.fixture(scope="module")
def drawn(full):
    return {number: function(full) for number, function in draw.FIGURES.items() if number not in (1, *IMAGE_FIGURES)}


@pytest.fixture(scope="module")
def both():
    routes = with_protocols(tables.validate(main_table(("V-IRL-L",), steps=4)))
    return Tables("laptop", tables.validate(pd.concat([everything(), routes], ignore_index=True)))


@pytest.fixture(scope="module")
def drawn_both(both):
    names = (1, 5, 6, "mechanism", "headline", "protocols")
    return {number: draw.FIGURES[number](both) for number in names}


@pytest.fixture(scope="module")
def images():
    return Tables("laptop", image_tasks())


@pytest.fixture(scope="module")
def drawn_images(images):
    return {number: draw.FIGURES[number](images) for number in IMAGE_FIGURES}


def line(axes, label):
    return next(item for item in axes.lines if item.get_label() == label)


def texts(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text))


def shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def test_every_figure_says_profile_seeds_n_and_confidence(drawn, drawn_both, drawn_images):
    assert set(drawn) | set(drawn_both) | set(drawn_images) == set(draw.FIGURES)
    for number, drawing in [*drawn.items(), *drawn_both.items(), *drawn_images.items()]:
        header = texts(drawing.figure)
        for needed in ("profile laptop", "n = ") if number in PAGES else ("profile laptop", "seed", "n = ", "95%"):
            assert needed in header, (number, needed)
        assert drawing.data["title"] in drawing.data["alt"] and len(drawing.data["alt"]) > 80, number
        assert drawing.data["profile"] == "laptop"
        assert drawing.data["figure"] == draw.file_name(number)


def test_main_curves_are_the_means_over_seeds(full, drawn):
    rows = tables.select(full.metrics, method="rl", experiment="main", setting="sampled", split="rule_ood",
                         metric="success")  # fmt: skip
    means = 100 * rows.groupby("step")["value"].mean()
    axes = drawn[5].figure.axes[1]
    curve = line(axes, "rl -")
    assert curve.get_ydata()[1:] == pytest.approx(means.to_numpy())
    assert curve.get_xdata()[-1] == pytest.approx(END_FLOPS / 1e13)
    assert to_hex(curve.get_color()) == METHODS["rl"].color
    star = next(item for item in axes.collections if item.get_label() == "init")
    assert tuple(star.get_offsets()[0]) == pytest.approx((curve.get_xdata()[0], curve.get_ydata()[0]))
    raw = [tuple(point) for item in axes.collections for point in np.asarray(item.get_offsets())]
    assert all(any(y == pytest.approx(100 * value) for _, y in raw) for value in rows["value"])


def test_main_curves_dash_held_out_hands_and_show_the_papers_ends(drawn):
    id_axes, ood_axes = drawn[5].figure.axes
    dashed = [item for item in id_axes.lines if item.is_dashed()]
    assert {to_hex(item.get_color()) for item in dashed} == {METHODS["sft"].color, METHODS["rl"].color}
    assert {item.get_label() for item in ood_axes.lines if item.is_dashed()} == {"_piece"}  # dotted, see below
    paper = {item.get_label(): item for item in ood_axes.collections if item.get_label().startswith("paper")}
    assert paper["paper rl"].get_offsets()[0][1] == 15.0
    assert to_hex(paper["paper sft"].get_facecolor()[0]) == "#ffffff"  # hollow


def test_smoothing_is_an_extra_guide(full):
    plain, smooth = (draw.FIGURES[5](full, smooth=value).figure.axes[1] for value in (False, True))
    assert len(smooth.lines) == len(plain.lines) + 2
    assert line(smooth, "rl -").get_ydata() == pytest.approx(line(plain, "rl -").get_ydata())


def test_lines_between_tests_of_different_size_are_dotted():
    """The path has 300 hands a point, Init and the end 1,000; with as many everywhere nothing is dotted."""
    for path_n, dotted in ((300, [True, False, True]), (1000, [False, False, False])):
        tested = Tables("laptop", tables.validate(main_table(steps=3, curve_n=path_n)))
        drawing = draw.FIGURES[5](tested)
        pieces = [item for item in drawing.figure.axes[1].lines if item.get_label() == "_piece"]
        assert [item.is_dashed() for item in pieces] == 2 * dotted  # of SFT and RL
        assert ("dotted: between tests" in texts(drawing.figure)) == any(dotted)


def test_a_band_that_is_cut_at_0_or_100_says_so():
    """Seeds of 1, 20 and 99 %: Student's interval of their mean goes beyond both ends."""
    table = main_table(steps=2, noise=0.0)
    wild = (table["method"] == "sft") & (table["split"] == "rule_ood") & (table["metric"] == "success")
    table.loc[wild, "value"] = table.loc[wild, "seed"].map({0: 0.01, 1: 0.2, 2: 0.99})
    cut, whole = (Tables("laptop", tables.validate(part)) for part in (table, main_table(steps=2, noise=0.0)))
    for number in (5, 6, "headline"):
        drawing = draw.FIGURES[number](cut)
        marks = [item for axes in drawing.figure.axes for item in axes.lines if item.get_label() == "_clipped"]
        ends = {float(value) for item in marks for value in (item.get_xdata() if number == 6 else item.get_ydata())}
        assert ends == {0.0, 100.0} and "extends beyond 0 or 100 %" in texts(drawing.figure)
        assert "extends beyond" not in texts(draw.FIGURES[number](whole).figure)


def test_an_axis_that_does_not_begin_at_0_is_marked(drawn_both):
    for axes in drawn_both[5].figure.axes:
        broken = [item for item in axes.lines if item.get_label() == "_broken axis"]
        assert bool(broken) == (axes.get_ylim()[0] > 0)
    assert drawn_both[5].figure.axes[1].get_ylim()[0] > 0  # per-step accuracy in distribution


def test_columns_appear_with_the_rows_of_a_variant():
    four = Tables("laptop", tables.validate(main_table(tuple(TASKS), steps=3)))
    assert len(draw.FIGURES[5](four).figure.axes) == 8
    assert len([axes for axes in draw.FIGURES[6](four).figure.axes if axes.get_visible()]) == 4
    assert len(shown(draw.FIGURES["mechanism"](four).figure)) == 8
    headline = draw.FIGURES["headline"](four)
    assert len(headline.figure.axes) == 12
    assert {item["variant"] for item in draw.FIGURES[6](four).data["series"]} == set(TASKS)


def test_bars_heights_intervals_and_paper(full, drawn):
    axes = drawn[6].figure.axes[0]
    lengths = {bar.get_label(): bar.patches[0].get_width() for bar in axes.containers}
    ends = tables.ends(tables.select(full.metrics, experiment="main", setting="sampled", split="rule_ood",
                                     metric="success"))  # fmt: skip
    for method in ("init", "sft", "rl"):
        mine = ends[ends["method"] == method]
        assert lengths[method] == pytest.approx(100 * mine["value"].mean())
        assert lengths[f"paper {method}"] == published.FIG06["GP-L"][method]
    record = next(item for item in drawn[6].data["series"] if item["method"] == "rl")
    gain = statistics.difference_of(ends[ends["method"] == "rl"], ends[ends["method"] == "init"])
    assert record["minus_init"]["ci_low"] == pytest.approx(100 * gain.low)
    assert f"+{100 * gain.value:.1f}" in texts(drawn[6].figure)
    assert drawn[6].data["paper"]["GP-L"] == {"init": 11.5, "sft": 3.4, "rl": 15.0}


def test_without_sft_draws_every_learning_rate(drawn):
    labels = {item.get_label() for item in drawn[9].figure.axes[0].lines}
    rates = ("0.0001", "0.0002", "0.0005")
    assert {f"learning rate {rate}" for rate in rates} <= labels
    assert [axes.get_title(loc="left") for axes in drawn[9].figure.axes] == [
        "Success, ID", "Success, rule-OOD", "Format, ID",
    ]  # fmt: skip
    for series in drawn[9].data["series"]:
        assert (max(series["value"]) == 0) == (series["split"] == "id")
    assert "the paper's runs: at most 0.4 %" in texts(drawn[9].figure)


def test_rl_from_init_is_shown_with_the_same_seeds(full, drawn):
    """RL without SFT has two seeds of the three."""
    rows = tables.select(tables.ends(full.metrics), experiment="main", setting="sampled", method="rl", split="id",
                         metric="success", seed=[0, 1])  # fmt: skip
    [height] = {*line(drawn[9].figure.axes[0], "rl end").get_ydata()}
    assert height == pytest.approx(100 * rows["value"].mean())


def test_attempts_growth_is_over_the_same_seeds_init(full, drawn):
    series = {item["attempts"]: item for item in drawn[10].data["series"]}
    assert sorted(series) == [1, 3, 5, 10]
    ends = tables.ends(full.metrics)
    rl = tables.select(ends, experiment="attempts", setting="attempts=10", split="rule_ood", metric="success")
    init = tables.select(ends, experiment="main", setting="sampled", method="init", split="rule_ood", metric="success")
    expected = (rl.set_index("seed")["value"] - init.set_index("seed")["value"]).mean()
    assert series[10]["ood_growth"]["value"] == pytest.approx(100 * expected)
    point = line(drawn[10].figure.axes[0], "attempts=10")
    assert point.get_xdata()[0] == pytest.approx(100 * expected)
    paper = line(drawn[10].figure.axes[1], "paper attempts=10")
    assert paper.get_ydata()[0] == 5.99
    kept = tables.select(ends, experiment="attempts", setting="attempts=1", split="id", metric="format")
    assert series[1]["format"]["value"] == pytest.approx(100 * kept["value"].mean())


def test_suboptimal_has_both_kinds_of_sft_and_rl_with_all_their_seeds(drawn):
    id_axes, ood_axes = drawn[15].figure.axes
    for axes in (id_axes, ood_axes):
        assert {"sft -", "rl -", "sft_suboptimal -"} <= {item.get_label() for item in axes.lines}
    assert {(item["method"], item["seeds"][-1]) for item in drawn[15].data["series"]} == {
        ("sft", 3), ("rl", 3), ("sft_suboptimal", 2),
    }  # fmt: skip
    assert "SFT on sub-optimal trajectories (2 seeds)" in texts(drawn[15].figure)


def test_sensitivity_cells(full, drawn):
    series = drawn["sensitivity"].data["series"]
    assert len(series) == 3 * 5 * 12  # splits x columns x cells
    cell = next(item for item in series if item["minus"] == "sft" and item["split"] == "rule_ood"
                and item["temperature"] == 1 and item["attempts"] == 5)  # fmt: skip
    rows = tables.select(full.metrics, experiment="sensitivity", setting="temperature=1;attempts=5",
                         split="rule_ood").set_index("seed")  # fmt: skip
    means = rows.groupby("method")["value"].mean()
    assert cell["value"] == pytest.approx(100 * (means["rl"] - means["sft"]))
    assert "the first 500 of the 1,000 hands of the main comparison, in which RL minus Init" in texts(
        drawn["sensitivity"].figure
    )


def test_transcript_is_drawn_as_plain_text(full, drawn):
    said = [text for text in drawn[20].figure.axes[0].texts]
    assert any(text.get_text() == "    return $24$" for text in said)
    assert not any(text.get_parse_math() for text in said if "$" in text.get_text())
    assert "\x00" not in texts(drawn[20].figure)
    hostile = ["", "\x00\x1b[31m" * 50, "$\\frac{", "九" * 500, "a" * 2_000_000, "\ud800", "\n" * 9999]
    for output in hostile:
        draw.FIGURES[20](Tables("laptop", full.metrics, [failing_transcript(output)])).png(dpi=20)


def test_a_solved_episode_is_no_failure(full):
    solved = failing_transcript() | {"turns": [{"output": "...", "outcome": "correct", "reward": 5}]}
    with pytest.raises(NothingToDraw, match="failing transcript"):
        draw.FIGURES[20](Tables("laptop", full.metrics, [solved]))


def test_one_seed_and_missing_branches_still_draw():
    table = tables.validate(main_table(seeds=(7,), steps=2))
    only_rl = Tables("laptop", table[table["method"] != "sft"])
    assert "1 seed ·" in texts(draw.FIGURES[5](only_rl).figure)
    assert {item["method"] for item in draw.FIGURES[6](only_rl).data["series"]} == {"init", "rl"}
    no_init = Tables("laptop", table[table["method"] == "rl"])
    assert len(line(draw.FIGURES[5](no_init).figure.axes[1], "rl -").get_xdata()) == 2
    with pytest.raises(NothingToDraw, match="for init, sft and rl"):
        draw.FIGURES["headline"](only_rl)


def test_same_table_same_files_whatever_the_callers_style(tmp_path, monkeypatch, full):
    saved = []
    for folder, settings in (("a", {}), ("b", {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 31})):
        monkeypatch.setattr(paths, "HOME", tmp_path / folder)
        with mpl.rc_context(settings):
            files = save_figure(draw.FIGURES[9](full), "fig09", "laptop")
        saved.append([file.read_bytes() for file in files])
    assert saved[0] == saved[1]
    assert b"CreationDate" not in saved[0][1]
    data = json.loads(saved[0][2])
    assert data["paper"]["highest_success"] == 0.4 and data["unit"] == "percent"


def test_draw_all_writes_what_it_can_and_says_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    with pytest.raises(tables.TableError, match="There is no table"):
        draw.draw_all("smoke")
    few = main_table(seeds=(0,), steps=1)
    tables.write(few[few["metric"] == "recognition"], tables.metrics_path("smoke"))
    assert draw.draw_all("smoke") == ["mechanism"]
    said = capsys.readouterr().out
    assert "written  figures/smoke/mechanism" in said
    assert "skipped  fig10: it needs rows of experiment 'attempts'" in said
    assert sorted(file.suffix for file in paths.figures("smoke").iterdir()) == [".json", ".pdf", ".png"]
    made = json.loads((paths.figures("smoke") / "mechanism.json").read_text())
    assert made["caption"].startswith(f"{TOY} (profile smoke)") and made["toy"]
    assert made["alt"].startswith(TOY.capitalize())
    with pytest.raises(ValueError, match="There is no figure 99; the figures are 1, 2, 3, 4, 5"):
        draw.draw(99, "smoke")


def test_fig_1_is_ours_beside_the_papers_four_curves(both, drawn_both):
    *ours, theirs = drawn_both[1].figure.axes
    for method in ("sft", "rl"):
        for axes, split in zip(ours, ("id", "rule_ood"), strict=True):
            rows = tables.select(both.metrics, task="navigation", method=method, metric="success", split=split,
                                 setting="sampled")  # fmt: skip
            means = 100 * rows.groupby("step")["value"].mean().to_numpy()
            assert line(axes, f"{method} -").get_ydata()[1:] == pytest.approx(means)
            paper = line(theirs, f"paper {method} {split}")
            assert paper.get_markerfacecolor() == "white" and paper.is_dashed() == (split == "id")
            assert list(zip(*paper.get_data(), strict=True)) == published.FIG01[method][split]
    assert {(item["method"], item["split"]) for item in drawn_both[1].data["series"]} == {
        (method, split) for method in ("sft", "rl") for split in ("id", "rule_ood")
    }


def test_two_tasks_stand_side_by_side_each_in_its_own_metric(drawn_both):
    assert len(drawn_both[5].figure.axes) == 4
    for number in (5, 6, "headline", "protocols"):
        metrics = {(item["variant"], item.get("metric")) for item in drawn_both[number].data["series"]}
        assert {variant for variant, _ in metrics} == {"GP-L", "V-IRL-L"}
        routes = "routes completed (%)" if number == "protocols" else "per-step accuracy (%)"
        panels = shown(drawn_both[number].figure)
        labels = {axes.get_xlabel() if number == 6 else axes.get_ylabel() for axes in panels}
        assert labels - {""} == {"success rate (%)", routes}
    assert len(shown(drawn_both["headline"].figure)) == 6
    assert "held-out hands and routes (dashed)" in texts(drawn_both[5].figure)
    assert "n = 300–1,000 episodes per" in texts(drawn_both[5].figure)
    assert "V-IRL-L · held-out" in texts(drawn_both["protocols"].figure)
    routes = tables.validate(main_table(("V-IRL-L",), steps=2))
    alone = draw.FIGURES["headline"](Tables("laptop", routes))
    assert len(alone.figure.axes) == 3 and "held-out routes (dashed)" in texts(alone.figure)


def test_mechanism_shows_the_stated_and_the_trained_rule(both, drawn, drawn_both):
    four = drawn_both["mechanism"].figure.axes
    assert [axes.get_title(loc="left") for axes in four] == [
        "GP-L · numbers by the stated rule", "V-IRL-L · actions that the prompt offers",
        "GP-L · numbers by the training rule", "V-IRL-L · directions of the training rule",
    ]  # fmt: skip
    rows = tables.select(both.metrics, task="navigation", setting="sampled", method="sft", metric="training_rule")
    means = 100 * rows.groupby("step")["value"].mean()
    assert line(four[3], "sft -").get_ydata()[1:] == pytest.approx(means.to_numpy())
    assert "held-out" not in texts(drawn["mechanism"].figure)  # the legend names only what is drawn
    bare = both.metrics[both.metrics["metric"] != "training_rule"]
    assert len(shown(draw.FIGURES["mechanism"](Tables("laptop", bare)).figure)) == 2


def test_the_headline_tells_the_verdicts_of_the_claims(both, drawn_both):
    """Of each of its cells, as the claims decide them."""
    records = {record["id"]: record for record in claims.evaluate(both.metrics)}
    said = {text.get_text() for axes in drawn_both["headline"].figure.axes for text in axes.texts}
    for variant in ("GP-L", "V-IRL-L"):
        for claim, method in ((1, "rl"), (2, "sft")):
            [cell] = [cell for cell in records[claim]["cells"] if cell["variant"] == variant]
            [part] = cell["parts"]
            words = {"reproduced": "reproduced", "not_reproduced": "not reproduced", "inconclusive": "open"}
            start = f"{METHODS[method].label} {100 * part['effect']:+.1f}".replace("-", "−")
            printed = published.FIG06[variant][method] - published.FIG06[variant]["init"]
            end = f"paper {printed:+.1f} · {words[part['verdict']]}".replace("-", "−")
            assert any(text.startswith(start) and text.endswith(end) for text in said), (variant, method)


def test_protocols_show_a_single_attempt_on_every_task(both, drawn_both):
    series = drawn_both["protocols"].data["series"]
    for variant in ("GP-L", "V-IRL-L"):
        assert {item["setting"] for item in series if item["variant"] == variant} == {"sampled", "greedy", "single"}
    rows = tables.select(both.metrics, task="navigation", method="rl", setting="single", split="id")
    assert set(rows["metric"]) == {"success"}
    item = next(item for item in series if item["variant"] == "V-IRL-L" and item["setting"] == "single"
                and (item["method"], item["split"]) == ("rl", "id"))  # fmt: skip
    assert item["value"] == pytest.approx(100 * rows["value"].mean())


def test_fig_7_has_curves_bars_and_the_papers_previous_best(images, drawn_images):
    hands, hand_bars, routes, route_bars = drawn_images[7].figure.axes
    for axes, bars, variant in ((hands, hand_bars, "GP-VL"), (routes, route_bars, "V-IRL-VL")):
        rows = tables.select(images.metrics, task=TASKS[variant][0], experiment="main", split="visual_ood",
                             metric="success", method="rl")  # fmt: skip
        means = 100 * rows.groupby("step")["value"].mean().to_numpy()
        assert line(axes, "rl -").get_ydata()[1:] == pytest.approx(means)
        lengths = {bar.get_label(): bar.patches[0].get_width() for bar in bars.containers}
        assert lengths["rl"] == pytest.approx(means[-1])
        assert [lengths[f"paper {name}"] for name in ("init", "sft", "rl")] == [
            published.FIG07[variant][name] for name in ("init", "sft", "rl")
        ]
    assert routes.get_ylabel() == "routes completed (%)"
    best = line(route_bars, "paper best")
    assert set(best.get_xdata()) == {44.0}
    hatched = next(bar.patches[0] for bar in route_bars.containers if bar.get_label() == "paper init")
    assert min(best.get_ydata()) == pytest.approx(hatched.get_y(), abs=0.03)  # at the paper's bars only
    assert not [item for item in hand_bars.lines if item.get_label() == "paper best"]
    words = texts(drawn_images[7].figure)
    assert "dashed: 44.0" in words and "on routes of generated cities; the paper's are 18 real ones" in words
    hands_only = Tables("laptop", tables.select(images.metrics, task="general_points"))
    alone = draw.FIGURES[7](hands_only)
    assert len(alone.figure.axes) == 2 and "cities" not in texts(alone.figure)


def test_fig_8_joins_the_points_of_a_checkpoint(images, drawn_images):
    ours, _, theirs, _ = drawn_images[8].figure.axes
    rows = tables.select(images.metrics, task="general_points", modality="image", experiment="main", method="sft")
    means = 100 * rows.groupby(["metric", "split", "step"])["value"].mean()
    pairs = [item for item in ours.lines if item.get_label() == "sft pair"]
    assert len(pairs) == 5
    for pair, step in zip(pairs, sorted(rows["step"].unique()), strict=True):
        for metric, drawn_values in zip(("success", "recognition"), pair.get_data(), strict=True):
            expected = [means[metric, split, step] for split in ("id", "rule_ood")]
            assert drawn_values == pytest.approx(expected)
    assert to_hex(pairs[-1].get_color()) == METHODS["sft"].color != to_hex(pairs[0].get_color())  # more compute, darker
    circle = [item for item in theirs.lines if item.get_label() == "paper rl rule_ood"]
    assert [(item.get_xdata()[0], item.get_ydata()[0]) for item in circle] == published.FIG08["rule"]["rule_ood"]["rl"]
    assert {item.get_markerfacecolor() for item in circle} == {"white"}
    assert len(drawn_images[8].data["series"]) == 2 * 2 * (1 + 5 + 5)  # panels, splits, checkpoints


def test_fig_8_draws_what_has_both_metrics(images):
    rule = images.metrics[images.metrics["split"] != "visual_ood"]
    assert len(draw.FIGURES[8](Tables("laptop", rule)).figure.axes) == 2
    few = rule[(rule["metric"] != "recognition") | (rule["step"] != 20)]
    series = draw.FIGURES[8](Tables("laptop", few)).data["series"]
    assert len(series) == 2 * (1 + 4 + 4)
    with pytest.raises(NothingToDraw, match="success and recognition"):
        draw.FIGURES[8](Tables("laptop", rule[rule["metric"] != "recognition"]))


def test_tuning_has_one_curve_a_rate_and_one_panel_a_part_frozen(images, drawn_images):
    panels = drawn_images[16].figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "all parts trained", "vision encoder frozen", "encoder and adapter frozen",
    ]  # fmt: skip
    curves = [[item for item in axes.lines if item.get_label().startswith("learning")] for axes in panels]
    assert [len(part) for part in curves] == [5, 2, 3]
    rows = tables.select(images.metrics, experiment="sft_tuning", setting="lr=0.001;frozen=vision+adapter")
    means = 100 * rows.groupby("step")["value"].mean().to_numpy()
    curve = line(panels[2], "learning rate 0.001")
    assert curve.get_ydata()[1:] == pytest.approx(means)
    assert curve.get_color() == line(panels[0], "learning rate 0.001").get_color()
    assert all(set(line(axes, "paper limit").get_ydata()) == {30} for axes in panels)
    assert "the paper's runs: at most 30 %" in texts(drawn_images[16].figure)
    rl = tables.select(tables.ends(images.metrics), experiment="main", method="rl", split="id", metric="success",
                       task="general_points")  # fmt: skip
    assert f"RL ends at {100 * rl['value'].mean():.0f} %" in texts(drawn_images[16].figure)
    frozen = {(item["frozen"], item["lr"]) for item in drawn_images[16].data["series"]}
    assert len(frozen) == 10 and ("vision", 0.001) in frozen


def test_tuning_has_a_row_or_panel_for_every_split_that_was_tested(images):
    tuned = tables.select(images.metrics, experiment=["sft_tuning", "rl_tuning"])
    also = Tables("laptop", tables.validate(pd.concat([images.metrics, tuned.assign(split="rule_ood")])))
    assert len(draw.FIGURES[16](also).figure.axes) == 6 and len(draw.FIGURES[17](also).figure.axes) == 2


def test_rl_tuning_starts_at_init_and_shows_the_papers_axis(images, drawn_images):
    axes = drawn_images[17].figure.axes[0]
    init = tables.select(images.metrics, task="general_points", method="init", split="id", metric="success")
    for rate in ("0.0003", "0.001"):
        rows = tables.select(images.metrics, experiment="rl_tuning", setting=f"lr={rate}")
        means = 100 * rows.groupby("step")["value"].mean().to_numpy()
        drawn_values = line(axes, f"learning rate {rate}").get_ydata()
        assert drawn_values == pytest.approx([100 * init["value"].mean(), *means])
    assert list(line(axes, "paper axis").get_ydata()) == [20, 50]
    without = Tables("laptop", images.metrics[images.metrics["method"] != "init"])
    assert len(line(draw.FIGURES[17](without).figure.axes[0], "learning rate 0.001").get_xdata()) == 5


def test_fig_18_is_whole_routes_in_and_out_of_distribution(images, drawn_images):
    for axes, split in zip(drawn_images[18].figure.axes, ("id", "rule_ood"), strict=True):
        rows = tables.select(images.metrics, task="navigation", method="sft", metric="success", split=split)
        means = 100 * rows.groupby("step")["value"].mean().to_numpy()
        assert line(axes, "sft -").get_ydata()[1:] == pytest.approx(means)
        assert list(line(axes, "paper axis").get_ydata()) == published.FIG18[f"{split}_success_axis"]


def test_fig_19_begins_at_the_overfitted_checkpoint(images, drawn_images):
    trained, axes = drawn_images[19].figure.axes
    found = tables.select(images.metrics, experiment="overfitted", split="rule_ood")
    assert line(trained, "start").get_ydata()[0] > 75
    sft, rl = (tables.select(found, method=method) for method in ("sft", "rl"))
    start = line(axes, "start")
    assert start.get_ydata()[0] == pytest.approx(100 * sft["value"].mean())
    rows = tables.select(rl, setting="lr=0.0003")
    means = 100 * rows.groupby("step")["value"].mean().to_numpy()
    assert line(axes, "learning rate 0.0003").get_ydata() == pytest.approx([start.get_ydata()[0], *means])
    assert "the paper's runs, at most 1.5 %" in texts(drawn_images[19].figure)
    twice = [sft.assign(setting=name) for name in ("lr=0.0001", "lr=0.0003")]  # the same start, once a setting
    again = draw.FIGURES[19](Tables("laptop", tables.validate(pd.concat([*twice, rl]))))
    before = [item["value"] for item in drawn_images[19].data["series"] if item["split"] == "rule_ood"]
    assert [item["value"] for item in again.data["series"]] == before
    alone = draw.FIGURES[19](Tables("laptop", rl))
    assert [len(item["value"]) for item in alone.data["series"]] == [5, 5]


@pytest.mark.parametrize("number", IMAGE_FIGURES)
def test_image_figures_say_which_rows_they_need(full, number):
    with pytest.raises(NothingToDraw, match="it needs (GP|V-IRL)-VL"):
        draw.FIGURES[number](full)


@pytest.mark.parametrize("number", IMAGE_FIGURES)
def test_image_figures_draw_from_one_seed_and_without_init(number):
    table = image_tasks(seeds=(4,), steps=2)
    assert "1 seed ·" in texts(draw.FIGURES[number](Tables("laptop", table)).figure)
    draw.FIGURES[number](Tables("laptop", table[table["method"] != "init"])).png(dpi=20)


def test_mechanism_tells_numbers_from_recognition(images):
    axes = draw.FIGURES["mechanism"](images).figure.axes[0]
    rows = tables.select(images.metrics, task="general_points", method="rl", split="rule_ood", metric="numbers")
    means = 100 * rows.groupby("step")["value"].mean().to_numpy()
    assert line(axes, "rl -").get_ydata()[1:] == pytest.approx(means)


def series(drawing):
    """What a figure draws of each task, but of toy methods."""
    found = {}
    for item in drawing.data["series"]:
        if item["method"] != "toy":
            found.setdefault(item["variant"], []).append(item)
    return found


@pytest.mark.parametrize("number", [5, 6, "mechanism", "protocols"])
def test_a_further_task_and_method_are_drawn_beside_the_papers(monkeypatch, both, drawn_both, number):
    """The toy task is GP-L's rows under its name: its own curves, nothing of the paper's; and the others stay."""
    register_toys(monkeypatch)
    drawing = draw.FIGURES[number](Tables("laptop", with_toys(both.metrics)))
    before, after = series(drawn_both[number]), series(drawing)
    assert list(after) == ["GP-L", "V-IRL-L", "Toy"]
    assert {name: after[name] for name in before} == before
    assert after["Toy"] == [item | {"variant": "Toy"} for item in before["GP-L"]]
    assert {item["variant"] for item in drawing.data["series"] if item["method"] == "toy"} == set(after)
    assert "Toy method" in texts(drawing.figure)
    panels = [axes for axes in shown(drawing.figure) if axes.get_title(loc="left").startswith("Toy · ")]
    written = [said for axes in panels for said in written_on(axes)]
    assert any(said.startswith("toy") for said in written) and not any("paper" in said for said in written)


def written_on(axes):
    """The texts on the axes, and the labels of what is drawn there."""
    labels = [str(artist.get_label()) for artist in (*axes.get_children(), *axes.containers)]
    return [*labels, *(text.get_text() for text in axes.findobj(mpl.text.Text))]


def test_a_further_method_has_a_bar_of_its_own_and_none_of_the_papers(monkeypatch, images):
    register_toys(monkeypatch)
    drawing = draw.FIGURES[7](Tables("laptop", with_toys(images.metrics)))
    places = {bar.get_label(): bar.patches[0].get_y() for bar in drawing.figure.axes[3].containers}
    assert places["init"] < places["paper init"] < places["sft"] < places["rl"] < places["paper rl"] < places["toy"]
    assert "paper toy" not in places


def test_no_open_pyplot_figures(drawn):
    assert mpl.pyplot.get_fignums() == []
