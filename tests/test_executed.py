"""Executed notebooks as they are kept: small, without paths of this machine, with links that lead somewhere."""

import base64
import io
import json
import sys

import nbformat
import pytest
from PIL import Image

from sftrl_lib import executed, paths
from sftrl_lib.jobs import target

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "PointsPlayer()"}


def png(width, height):
    image = Image.effect_noise((width, height), 80)
    file = io.BytesIO()
    image.convert("RGB").save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def run(home, name, *outputs, profile="smoke"):
    """Leave an executed notebook, and the one that it is a run of."""
    v4 = nbformat.v4
    first = v4.new_markdown_cell("# Title\nNext: [05](05_train.ipynb), [10](10_play.ipynb), [code](../sftrl_lib/a.py)")
    cells = [first, v4.new_code_cell("1", execution_count=1, outputs=list(outputs))]
    about = {"papermill": {"input_path": str(home)}, "kernelspec": {"name": "python3", "display_name": "Python"}}
    notebook = v4.new_notebook(cells=cells, metadata=about)
    notebook.cells[1].metadata["papermill"] = {"duration": 1.0}
    done = target(profile, name)
    done.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, done)
    for stem in (name.split("-")[0], "10_play"):
        (home / "notebooks" / f"{stem}.ipynb").touch()


def said(text):
    return nbformat.v4.new_output("stream", text=text)


def shown(data, **about):
    return nbformat.v4.new_output("display_data", data=data, metadata=about)


def read(name):
    return json.loads((executed.folder() / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_one_run_of_each_notebook_is_kept_that_of_the_first_seed(home):
    for seed in (100, 3, 21):
        run(home, f"05_train-gp-l-rl-main-s{seed}", said(f"seed {seed}"))
    for other in ("05_train-gp-l-sft-main-s0", "05_train-gp-l-rl-main-lr0.1-s0", "05_train-virl-l-rl-main-s0"):
        run(home, other, said("another"))
    run(home, "07_results", said("results"))
    target("smoke", "05_train-gp-l-rl-main-s1").with_suffix(".failed.ipynb").write_text("{}", encoding="utf-8")
    assert [path.name for path in executed.keep("smoke")] == ["05_train.ipynb", "07_results.ipynb"]
    assert read("05_train")["cells"][1]["outputs"][0]["text"] == ["seed 3"]


def test_places_on_this_machine_and_what_needs_a_kernel_are_gone(home):
    told = f"{home}/results/smoke and {sys.prefix}/lib; {home}2 is another"
    run(home, "07_results", said(told), shown(WIDGET), shown({"image/png": png(20, 10)}, **{"image/png": {"alt": "A"}}))
    executed.keep("smoke")
    text = (executed.folder() / "07_results.ipynb").read_text(encoding="utf-8")
    assert f"{home}/" not in text and sys.prefix not in text and "papermill" not in text and "widget-view" not in text
    first, second, third = read("07_results")["cells"][1]["outputs"]
    assert "".join(first["text"]).startswith("./results/smoke and <python>/lib")
    assert "".join(second["data"]["text/plain"]) == "PointsPlayer()"
    assert third["metadata"]["image/png"]["alt"] == "A"
    nbformat.validate(nbformat.read(executed.folder() / "07_results.ipynb", 4))


def test_links_lead_to_what_is_kept_or_can_be_run(home):
    run(home, "07_results")
    run(home, "05_train-gp-l-rl-main-s0")
    executed.keep("smoke")
    text = "".join(read("07_results")["cells"][0]["source"])
    assert "[05](05_train.ipynb)" in text and "[10](../notebooks/10_play.ipynb)" in text
    assert "(../sftrl_lib/a.py)" in text and "Executed at the profile smoke" in text
    assert executed.kept("smoke", "07_results") and not executed.kept("laptop", "07_results")
    assert executed.kept("smoke", "10_play") is None


def test_pictures_shrink_until_the_notebook_fits(home, monkeypatch):
    run(home, "07_results", *(shown({"image/png": png(400, 200)}) for _ in range(2)))
    monkeypatch.setattr(executed, "SIZES", ((300, 128), (200, 64), (100, 16)))
    monkeypatch.setattr(executed, "LARGEST", 50_000)
    [path] = executed.keep("smoke")
    assert path.stat().st_size <= 50_000
    picture = read("07_results")["cells"][1]["outputs"][0]["data"]["image/png"]
    assert Image.open(io.BytesIO(base64.b64decode("".join(picture)))).width in (100, 200)
    monkeypatch.setattr(executed, "LARGEST", 1_000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="07_results takes .* MB even with small pictures"):
        executed.keep("smoke")
    monkeypatch.setattr(executed, "LARGEST", 50_000)
    monkeypatch.setattr(executed, "LARGEST_ALL", 1_000)
    with pytest.raises(ValueError, match="MB together"):
        executed.keep("smoke")
    assert path.read_bytes() == before, "nothing is written unless all fit"


def test_the_same_runs_give_the_same_bytes_and_old_ones_go(home):
    run(home, "07_results", said("1"))
    run(home, "05_train-gp-l-rl-main-s0")
    first = {path.name: path.read_bytes() for path in executed.keep("smoke")}
    assert {path.name: path.read_bytes() for path in executed.keep("smoke")} == first
    target("smoke", "05_train-gp-l-rl-main-s0").unlink()
    executed.keep("smoke")
    assert [path.name for path in executed.folder().iterdir()] == ["07_results.ipynb"]


def test_without_runs_one_sentence_says_so(home, capsys):
    assert executed.main(["--profile", "smoke"]) == 2
    assert "make reproduce PROFILE=smoke" in capsys.readouterr().err
    assert executed.main(["--profile", "none"]) == 2


def test_what_is_kept_here_fits_and_names_no_place():
    """Whatever is committed."""
    for path in (paths.ROOT / "executed").glob("*.ipynb"):
        assert path.stat().st_size <= executed.LARGEST
        assert str(paths.ROOT) not in path.read_text(encoding="utf-8")
