"""Builds the book, a browsable site of notebooks, figures, reports and API, below build/book: `make book`.

    python docs/build.py --profile laptop

Nothing is executed: the notebooks are those that `make reproduce` executed for the profile, or those that were kept of
it (`sftrl_lib.executed`), where there are any. Every link to a file of the repository leads to a page of the book or to
a copy of the file, and all links are checked.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sftrl_lib import executed, paths
from sftrl_lib.figures import draw

RESULTS = ("RESULTS", "REPRODUCTION")  # of the reports, those on what came out
REPORTS = (  # as far as they exist
    "README", "RESULTS", "REPRODUCTION", "DIFFERENCES", "PROTOCOL", "CHECKLIST", "SPEED", "EXTENDING", "ECOSYSTEM",
    "CLUSTER",
)  # fmt: skip
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")  # of Markdown: [text](target#anchor)
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml")


def collect(profile: str, source: Path) -> None:
    """Put all pages of the book into `source`."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copytree(paths.ROOT / "docs" / "_static", source / "_static")
    shutil.copy(paths.ROOT / "docs" / "conf.py", source)
    _api(source)
    _figures(profile, source)
    notebooks, shown = _notebooks(profile, source)
    reports = [name for name in REPORTS if (paths.ROOT / f"{name}.md").is_file()]
    for name in reports:
        text = (paths.ROOT / f"{name}.md").read_text(encoding="utf-8")
        (source / f"{name}.md").write_text(_linked(text, source, Path(".")), encoding="utf-8")
    note = f"The notebooks are shown as the profile {profile} executed them."
    if shown < len(notebooks):
        note = f"Of the {len(notebooks)} notebooks {shown} are shown as executed at the profile {profile}."
    index = (paths.ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    index = index.replace("PROFILE", profile).replace("NOTE", note)
    results = [name for name in reports if name in RESULTS]
    others = [name for name in reports if name not in RESULTS]
    trees = {"The results": [*results, "figures"], "The notebooks": [f"notebooks/{name}" for name in notebooks],
             "The package": [*others, "api"]}  # fmt: skip
    for caption, pages in trees.items():
        index += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
    (source / "index.md").write_text(index, encoding="utf-8")


def _api(source: Path) -> None:
    """A page of the docstrings of every module, and one that lists them. A name is on the page of its own module."""
    folder = source / "api"
    folder.mkdir()
    lines, names = ["# API\n", "From the docstrings, module by module.\n"], []
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        parts = path.relative_to(paths.ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        names.append(name)
        page = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```\n"
        (folder / f"{name}.md").write_text(page, encoding="utf-8")
    tree = "\n".join(f"api/{name}" for name in names)
    listed = f"\n```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n"
    (source / "api.md").write_text("\n".join(lines) + listed, encoding="utf-8")


def _figures(profile: str, source: Path) -> None:
    """A page of all figures with their captions, and the files behind them. Raises ValueError if there is none."""
    folder = paths.figures(profile)
    shown = [name for number in draw.FIGURES if (folder / f"{(name := draw.file_name(number))}.json").is_file()]
    if not shown:
        raise ValueError(f"There are no figures of the profile {profile!r}; make figures PROFILE={profile} draws them.")
    shutil.copytree(folder, source / "figures" / profile)
    parts = ["# All figures\n"]
    for name in shown:
        data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        alt = re.sub(r"[\[\]\n]", " ", data.get("alt", data["title"]))
        files = ", ".join(f"[{kind}](figures/{profile}/{name}.{kind})" for kind in ("pdf", "json"))
        parts.append(f"## {data['title']}\n\n![{alt}](figures/{profile}/{name}.png)\n\n{data['caption']}. {files}\n")
    (source / "figures.md").write_text("\n".join(parts), encoding="utf-8")


def _notebooks(profile: str, source: Path) -> tuple[list[str], int]:
    """The notebooks, executed where a run of the profile is there; their names, and how many were executed."""
    folder, names, shown = source / "notebooks", [], 0
    folder.mkdir()
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        done, kept = executed.run_of(profile, path.stem), executed.kept(profile, path.stem)
        shown += bool(done or kept)
        notebook = json.loads((done or kept or path).read_text(encoding="utf-8"))
        if done or not kept:  # a kept one says it itself
            told = f"Executed at the profile {profile}." if done else "Not executed here; `make reproduce` does."
            notebook["cells"][0]["source"] = [*notebook["cells"][0]["source"], f"\n\n*{told}*"]
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = _linked("".join(cell["source"]), source, Path("notebooks"))
                cell["source"] = text.splitlines(keepends=True)
            for output in cell.get("outputs", ()):
                _with_alternative(output)
        (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")
        names.append(path.stem)
    return names, shown


def _with_alternative(output: dict) -> None:
    """Give a picture its alternative text, which is in the output's metadata and which Sphinx would not look for."""
    data, alt = output.get("data", {}), output.get("metadata", {}).get("image/png", {}).get("alt")
    if alt and "image/png" in data:
        encoded = "".join(data["image/png"]).replace("\n", "")
        base64.b64decode(encoded, validate=True)
        data["text/html"] = f'<img alt="{escape(alt)}" src="data:image/png;base64,{encoded}">'


def _linked(text: str, source: Path, folder: Path) -> str:
    """The text of a page in `folder` with its links to files of the repository leading into the book.

    Modules and packages lead to their page of the API, other files to a copy.
    """

    def lead(match: re.Match) -> str:
        before, target, after = match.groups()
        if urlsplit(target).scheme:
            return match[0]
        path = (paths.ROOT / folder / unquote(target)).resolve()
        if not path.is_relative_to(paths.ROOT) or not path.exists():
            return match[0]  # the check of links finds it
        name = path.relative_to(paths.ROOT)
        up = "../" * len(folder.parts)
        if name.parts[0] == "sftrl_lib" and (path.is_dir() or path.suffix == ".py"):
            module = ".".join(part for part in name.with_suffix("").parts if part != "__init__")
            if (source / "api" / f"{module}.md").is_file():
                return f"{before}{up}api/{module}.md)"
        if path.is_dir():
            return f"{before}{up}index.md)"
        if name.stem in REPORTS or name.parts[0] == "notebooks":
            return match[0]
        copy = source / name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            # A page that is in no table of contents, and may have no title of its own.
            head = f"---\norphan: true\n---\n\n# {name}\n\n" if name.suffix == ".md" else ""
            copy.write_bytes(head.encode() + path.read_bytes())
        return match[0]

    return LINK.sub(lead, text)


class _Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.anchors, self.bare = [], set(), 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if target := found.get("href" if tag == "a" else "src" if tag == "img" else ""):
            self.links.append(target)
        self.bare += tag == "img" and "alt" not in found


def broken(site: Path) -> list[str]:
    """The links of a site that lead nowhere, and the pages with pictures without alternative text, one line each."""
    pages = {page: _Links(page) for page in sorted(site.rglob("*.html"))}
    bare = {page: one.bare for page, one in pages.items() if one.bare}
    found = [f"{page.relative_to(site)}: {count} pictures without alternative text" for page, count in bare.items()]
    for page, one in pages.items():
        for link in one.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                found.append(f"{page.relative_to(site)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{page.relative_to(site)}: {link} (no such heading)")
    return sorted(set(found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python docs/build.py", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", help="whose notebooks and figures; default: laptop")
    options = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"The book needs {missing[0]}, which is not installed: {sys.executable} -m pip install -e '.[book]'",
              file=sys.stderr)  # fmt: skip
        return 2
    folder = paths.HOME / "build" / "book"
    try:
        collect(options.profile, folder / "source")
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    site = folder / "html"
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += [str(folder / "source"), str(site)]
    if status := subprocess.run(command).returncode:
        return status
    lost = broken(site)
    print(*lost, sep="\n", file=sys.stderr, end="\n" if lost else "")
    print(f"The book is in {site / 'index.html'}; {len(lost)} broken links.")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
