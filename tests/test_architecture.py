"""The layers of the library, read off its imports: what plays does not know what learns, figures read files alone."""

import ast
import graphlib
import subprocess
import sys

import pytest

from sftrl_lib import paths

LEARNING = ("models", "training", "foundation", "evaluation")
HEAVY = ("torch", "transformers", "trl", "peft", "datasets")


def module_name(path):
    """sftrl_lib.points.task; a package's own module is called like the package."""
    parts = path.relative_to(paths.PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(paths.PACKAGE.rglob("*.py"))}


def imported(module):
    """The modules that a module imports: ours and others', those of type checkers left out."""
    package = module.split(".") if MODULES[module].stem == "__init__" else module.split(".")[:-1]
    found, nodes = set(), [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])] if node.level else None
            base = ".".join(base) if base else node.module
            inside = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else base for name in inside}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def needed(module):
    """What of ours a module needs, at once or in a function: what it names, and the packages around that."""
    named = imported(module) & MODULES.keys()
    around = {name[:dot] for name in named for dot, letter in enumerate(name) if letter == "."}
    return named | {package for package in around if not f"{module}.".startswith(f"{package}.")}


def below(*folders):
    """The modules of some parts of the library; a folder's own __init__ as well."""
    wanted = {f"sftrl_lib.{folder}" for folder in folders}
    return [module for module in MODULES if ".".join(module.split(".")[:2]) in wanted]


@pytest.mark.parametrize(("folders", "kept_out"), [
    (("points", "virl"), (*LEARNING, *HEAVY)),
    (("figures",), (*LEARNING, "play")),
    (("play",), ("models", "training", "foundation", *HEAVY)),
    (("claims",), (*LEARNING, "figures")),
    (("tables", "methods", "experiments", "profiles", "runs", "jobs", "provenance"), HEAVY),
])  # fmt: skip
def test_nothing_is_imported_from_another_layer(folders, kept_out):
    names = {f"sftrl_lib.{name}" if name not in HEAVY else name for name in kept_out}
    for module in below(*folders):
        found = {name for name in imported(module) if any(f"{name}.".startswith(f"{other}.") for other in names)}
        assert not found, f"{module} imports {found}"


def test_nothing_imports_the_games():
    games = set(below("play"))
    assert games and not [module for module in MODULES.keys() - games if games & imported(module)]


def test_no_module_is_needed_by_what_it_needs():
    """Raises CycleError, which names the modules, if there is such a circle."""
    order = list(graphlib.TopologicalSorter({module: needed(module) for module in MODULES}).static_order())
    assert set(order) == MODULES.keys() and order.index("sftrl_lib.paths") < order.index("sftrl_lib.runs")


def test_jobs_figures_and_claims_load_no_torch():
    loading = "import sys, sftrl_lib.jobs, sftrl_lib.figures.draw, sftrl_lib.claims.claims"
    subprocess.run([sys.executable, "-c", f"{loading}; assert 'torch' not in sys.modules"], check=True)
