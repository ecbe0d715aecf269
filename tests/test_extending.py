"""Proof by extension: `toy_extension.py` goes through everything, and the library is not touched for it.

In processes of their own, as a user's extension is: nothing that it registers is known to the other tests.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_rollout import chatml_policy  # noqa: F401 (a fixture: a tiny random Qwen2 with a template of its own)

from sftrl_lib import paths

HERE = Path(__file__).parent
EVERYTHING = """
import json
from sftrl_lib.claims import claims, comparison, report
from sftrl_lib import paths, tables
from sftrl_lib.evaluation.illustrations import illustrate
from sftrl_lib.evaluation.measurements import evaluate, merge
from sftrl_lib.figures.draw import draw_all
from sftrl_lib.jobs import jobs
from sftrl_lib.profiles import get_profile
from sftrl_lib.runs import training_runs
from sftrl_lib.training.fork import train

profile = get_profile("toy")
for study in profile.studies:
    for experiment in study.experiments:
        for run in training_runs(profile, study, experiment, 0):
            for each in (run.init, run):
                train(each)
                evaluate(each)
merge(profile)
illustrate("toy")
written = draw_all("toy")
committed = tables.read(paths.ROOT / "results" / "laptop" / "metrics.csv")
print(json.dumps({
    "jobs": [job.name for job in jobs(profile)],
    "written": written,
    "comparison": comparison.write("toy"),
    "claims": report.write("toy"),
    "laptop": claims.evaluate(committed),
}))
"""


@pytest.fixture(scope="module")
def environment(chatml_policy, tmp_path_factory):  # noqa: F811
    """What a user sets: the extension, a model by its path, and where everything is written."""
    model, home = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("home")
    critic, chatml_policy.value_head = chatml_policy.value_head, None
    chatml_policy.save(model)
    chatml_policy.value_head = critic
    return {
        **os.environ,
        "SFTRL_EXTENSIONS": "toy_extension",
        "SFTRL_HOME": str(home),
        "TOY_MODEL": str(model),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(paths.ROOT), *sys.path]),
    }


def run(environment, *arguments):
    result = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def outcome(environment):
    """Everything once: data, training of all methods, tests, tables, pictures, figures, claims."""
    return json.loads(run(environment, "-c", EVERYTHING).splitlines()[-1])


def table(environment):
    import pandas as pd

    return pd.read_csv(Path(environment["SFTRL_HOME"]) / "results" / "toy" / "metrics.csv", keep_default_na=False)


def test_every_run_is_in_the_table(outcome, environment):
    """The new task with the old methods and the new one, the new experiment, and an old task on the new model."""
    found = {tuple(row) for row in table(environment)[["task", "method", "experiment", "setting"]].to_numpy()}
    protocols = ("sampled", "single", "greedy")
    expected = {("sums", method, "main", p) for method in ("init", "sft", "rl", "reinforce") for p in protocols}
    expected |= {("general_points", method, "main", p) for method in ("init", "sft", "rl") for p in protocols}
    expected |= {("sums", "reinforce", "reinforce_rates", f"lr={rate:g}") for rate in (1e-3, 1e-2)}
    assert found == expected
    assert set(table(environment).query("task == 'sums'").split) == {"id", "rule_ood"}


def test_it_is_in_the_figures(outcome, environment):
    """In those of all tasks beside GP-L, nothing of the paper's beside it; and in its own."""
    assert {"fig05", "fig06", "fig12", "protocols", "reinforce_rates"} <= set(outcome["written"])
    folder = Path(environment["SFTRL_HOME"]) / "figures" / "toy"
    for name in ("fig05", "fig06"):
        figure = json.loads((folder / f"{name}.json").read_text())
        drawn = {(item["variant"], item["method"]) for item in figure["series"]}
        assert {("Sums", "sft"), ("Sums", "rl"), ("Sums", "reinforce"), ("GP-L", "rl")} <= drawn
        assert ("GP-L", "reinforce") not in drawn
    rates = json.loads((folder / "reinforce_rates.json").read_text())
    assert [item["lr"] for item in rates["series"]] == [0.001, 0.01]
    assert "## Sums" in outcome["comparison"] and "| REINFORCE - Init |" in outcome["comparison"]


def test_the_papers_claims_stay_the_papers(outcome):
    """With the extension loaded the committed tables give the committed claims, and the toy's rows decide none."""
    committed = json.loads((paths.ROOT / "results" / "laptop" / "claims.json").read_text())
    assert outcome["laptop"] == [record for record in committed if isinstance(record["id"], int)]
    said = json.dumps(outcome["claims"])
    assert "GP-L" in said and "Sums" not in said and "REINFORCE" not in said


def test_the_pipeline_knows_it(outcome, environment):
    """In every process: the list of jobs, and one of them executed by papermill."""
    assert "05_train-sums-reinforce-reinforce_rates-lr0.01-s0" in outcome["jobs"]
    listed = run(environment, "-m", "sftrl_lib.pipeline", "list", "--profile", "toy", "--tasks", "Sums")
    assert "05_train-sums-reinforce-main-s0" in listed and "gp-l" not in listed
    run(environment, "-m", "sftrl_lib.pipeline", "run", "05_train-sums-reinforce-main-s0", "--profile", "toy")
    notebook = Path(environment["SFTRL_HOME"]) / "build" / "toy" / "05_train-sums-reinforce-main-s0.ipynb"
    assert notebook.is_file()


def test_without_the_extension_its_names_are_unknown(environment):
    plain = {name: value for name, value in environment.items() if name != "SFTRL_EXTENSIONS"}
    for code, words in (
        ("from sftrl_lib.tasks import TASKS; TASKS['sums']", "Unknown task 'sums'; use one of gp-l, virl-l"),
        ("from sftrl_lib.methods import METHODS; METHODS['reinforce']", "Unknown method 'reinforce'; use one of init,"),
        ("from sftrl_lib.profiles import get_profile; get_profile('toy')", "Unknown profile 'toy'; use one of smoke"),
    ):
        failed = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
        assert failed.returncode and words in failed.stderr


def test_the_recipes_are_this_code():
    """EXTENDING.md quotes `toy_extension.py`, part by part."""
    source, recipes = (HERE / "toy_extension.py").read_text(), (HERE.parent / "EXTENDING.md").read_text()
    parts = re.findall(r"# --8<-- \[(\w+)\]\n(.*?)# --8<-- \[/\1\]", source, re.DOTALL)
    assert [name for name, _ in parts] == ["task", "method", "experiment", "profile", "figure"]
    for name, part in parts:
        assert f"```python\n{part.strip()}\n```" in recipes, f"the recipe for a {name}"
