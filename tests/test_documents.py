"""The documents at the top: every link leads somewhere, and their numbers are those of the committed tables."""

import re
from pathlib import Path

import pytest
from test_comparison import committed

from sftrl_lib import tables
from sftrl_lib.claims import claims, comparison, report

ROOT = Path(__file__).parent.parent
DOCUMENTS = tuple(
    f"{name}.md"
    for name in "README RESULTS REPRODUCTION CHECKLIST DIFFERENCES EXTENDING PROTOCOL SPEED ECOSYSTEM CLUSTER".split()
)


@pytest.fixture
def metrics(tmp_path):
    return tables.read(committed("results/laptop/metrics.csv", tmp_path))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        if not target.startswith("http"):
            assert (ROOT / target).exists(), f"{name}: {link}"
            assert not anchor or f"\n## {anchor}" in slugs((ROOT / (target or name)).read_text(encoding="utf-8")), link


def slugs(text):
    """A document's headings as GitHub's anchors, a line each."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return "".join("\n## " + re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings)


def test_the_front_page_is_short_and_holds_the_tables_numbers(metrics, tmp_path):
    readme = committed("README.md", tmp_path).read_text(encoding="utf-8")
    assert readme.count("\n") <= 140
    assert comparison.front(metrics) in readme
    records = claims.evaluate(metrics)
    assert report.tally(records) in readme and report.cells_tally(records) in readme


def test_the_results_hold_the_committed_tables(metrics, tmp_path):
    text = comparison.markdown(metrics)
    assert text == committed("results/laptop/comparison.md", tmp_path).read_text(encoding="utf-8")
    results = committed("RESULTS.md", tmp_path).read_text(encoding="utf-8")
    found = [table for table in text.strip().split("\n\n") if table.startswith("|")]
    assert len(found) == 10
    for table in found:
        assert table in results, table


def test_the_results_hold_every_verdict(metrics, tmp_path):
    results = committed("RESULTS.md", tmp_path).read_text(encoding="utf-8")
    records = claims.evaluate(metrics)
    assert report.markdown(records, "laptop") in results
    assert report.tally(records) in results and report.cells_tally(records) in results
