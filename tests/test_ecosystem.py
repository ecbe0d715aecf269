"""The snippets of ECOSYSTEM.md, each in a process in which nothing of this package has been imported."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from sftrl_lib import paths

SNIPPETS = re.findall(r"```python\n(.*?)```", (paths.ROOT / "ECOSYSTEM.md").read_text(encoding="utf-8"), re.DOTALL)
OPTIONAL = ("skyrl_gym", "verifiers")  # not in the lock; tests/test_interfaces.py has stand-ins

# One process loads what takes long and is not ours, then forks for every snippet.
SERVER = """
import os, runpy, sys, torch, transformers, trl, peft, datasets, gymnasium
torch.set_num_threads(1)
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.path.insert(0, os.environ["ROOT"])
        os.dup2(os.open(line.strip() + ".out", os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            assert not any(name.startswith("sftrl_lib") for name in sys.modules)
            runpy.run_path(line.strip(), run_name="__main__")
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A function from a snippet's file to its exit code."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "ROOT": str(paths.ROOT), "SFTRL_HOME": str(home), "TRL_EXPERIMENTAL_SILENCE": "1"}
    environment.pop("PYTHONPATH", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=home, env=environment, **pipes) as process:

        def run(file):
            process.stdin.write(f"{file}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


def first_lines(snippet):
    return next(line for line in snippet.splitlines() if "sftrl" in line)


def installed(package):
    """Whether it is there for another process; a stand-in of another test has no specification."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        return False


@pytest.mark.parametrize("snippet", SNIPPETS, ids=first_lines)
def test_a_snippet_runs_as_it_stands(snippet, python, tmp_path):
    for package in OPTIONAL:
        if re.search(rf"^(import|from) {package}\b", snippet, re.MULTILINE):
            if not installed(package):
                pytest.skip(f"{package} is not installed")
    file = tmp_path / "snippet.py"
    file.write_text(snippet, encoding="utf-8")
    code = python(file)
    said = (tmp_path / "snippet.py.out").read_text(encoding="utf-8")
    assert code == 0, said
    assert said.strip(), "a snippet prints what it is about"


def test_the_page_has_snippets():
    assert len(SNIPPETS) >= 8
