"""The book: which pages it has, where its links lead, and that a link or a picture that is lost is found."""

import importlib.util
import json
import subprocess
import sys

import pytest

from sftrl_lib import paths

SPEC = importlib.util.spec_from_file_location("book_build", paths.ROOT / "docs" / "build.py")
book = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(book)
PIXEL = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The pages of the committed results, with one notebook as executed."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        (home / "figures").symlink_to(paths.ROOT / "figures")
        notebook = json.loads((paths.NOTEBOOKS / "05_train.ipynb").read_text(encoding="utf-8"))
        about = {"image/png": {"alt": "a <b>"}}
        shown = {"output_type": "display_data", "data": {"image/png": PIXEL}, "metadata": about}
        next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["outputs"] = [shown]
        (home / "build" / "laptop").mkdir(parents=True)
        done = home / "build" / "laptop" / "05_train-gp-l-rl-main-s0.ipynb"
        done.write_text(json.dumps(notebook), encoding="utf-8")
        book.collect("laptop", home / "source")
    return home / "source"


def test_every_page_of_the_tables_of_contents_is_there(source):
    index = (source / "index.md").read_text(encoding="utf-8")
    pages = [line for block in index.split("```{toctree}")[1:] for line in block.split("```")[0].splitlines()]
    pages = [page for page in pages if page and not page.startswith(":")]
    assert {"RESULTS", "DIFFERENCES", "EXTENDING", "README", "figures", "api"} <= set(pages)
    assert {f"notebooks/{path.stem}" for path in paths.NOTEBOOKS.glob("*.ipynb")} <= set(pages)
    for page in pages:
        assert (source / f"{page}.md").is_file() or (source / f"{page}.ipynb").is_file(), page
    assert "1 are shown as executed" in index
    assert (source / "api" / "sftrl_lib.points.verifier.md").is_file()


def test_all_figures_are_shown_with_caption_and_alternative_text(source):
    page = (source / "figures.md").read_text(encoding="utf-8")
    for path in (paths.ROOT / "figures" / "laptop").glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["title"] in page and data["caption"] in page
        assert f"](figures/laptop/{path.stem}.png)" in page
        assert (source / "figures" / "laptop" / f"{path.stem}.pdf").is_file()
    assert "![]" not in page


def test_links_to_modules_lead_to_their_page_and_links_to_files_to_a_copy(source):
    text = (source / "RESULTS.md").read_text(encoding="utf-8")
    assert "(api/sftrl_lib.claims.statistics.md)" in text and "(sftrl_lib/" not in text
    assert (source / "results" / "laptop" / "claims.json").is_file()
    start = "".join(json.loads((source / "notebooks" / "00_start_here.ipynb").read_text())["cells"][2]["source"])
    assert "(../api/sftrl_lib.points.md)" in start and "(05_train.ipynb)" in start


def test_executed_notebooks_say_so_and_their_pictures_have_alternative_texts(source):
    done, plain = (
        json.loads((source / "notebooks" / name).read_text(encoding="utf-8"))
        for name in ("05_train.ipynb", "04_init.ipynb")
    )
    assert "Executed at the profile laptop" in "".join(done["cells"][0]["source"])
    assert "Not executed here" in "".join(plain["cells"][0]["source"])
    [output] = next(cell for cell in done["cells"] if cell["cell_type"] == "code")["outputs"]
    assert output["data"]["text/html"] == f'<img alt="a &lt;b&gt;" src="data:image/png;base64,{PIXEL}">'


def test_lost_links_headings_and_alternative_texts_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">b</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="here">b</p><a href="a.html#top">a</a><img src="c.png" alt="c">')
    assert book.broken(tmp_path) == ["b.html: c.png"]
    (tmp_path / "c.png").touch()
    assert book.broken(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#gone">a</a><img src="c.png">')
    assert book.broken(tmp_path) == [
        "a.html: b.html#here (no such heading)", "b.html: 1 pictures without alternative text",
        "b.html: a.html#gone (no such heading)",
    ]  # fmt: skip


def test_without_sphinx_or_figures_the_book_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(book, "NEEDED", ("no_such_package",))
    assert book.main([]) == 2 and "pip install -e '.[book]'" in capsys.readouterr().err
    monkeypatch.setattr(book, "NEEDED", ())
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert book.main(["--profile", "smoke"]) == 2
    assert "make figures PROFILE=smoke draws them" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("sphinx_book_theme") is None, reason="the extra `book` is not installed")
def test_the_book_is_built_without_a_warning_or_a_broken_link():
    command = [sys.executable, str(paths.ROOT / "docs" / "build.py")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "0 broken links" in result.stdout


def test_docstrings_become_restructuredtext():
    """Names, lists and indented blocks stay what they are; no other markup comes of them."""
    spec = importlib.util.spec_from_file_location("book_conf", paths.ROOT / "docs" / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    said = ["Of `Task`s, a * b and _x.", "* one, which", "  goes on", "* two", "", "Files:", "  id   *the* one", "End."]
    assert conf.plain(said) == [
        "Of ``Task``\\ s, a \\* b and \\_x.", "", "* one, which", "  goes on", "* two", "", "Files:", "", "::", "",
        "     id   *the* one", "", "End.",
    ]  # fmt: skip
