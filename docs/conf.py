"""Sphinx's settings of the book; `build.py` puts the pages together and calls Sphinx with these."""

import re

project = "SFT memorizes, RL generalizes: a reproduction"
author = "the authors of this package"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "SFT memorizes, RL generalizes"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "home_page_in_toc": True}

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"  # which browsers draw themselves; MathJax would come over the network
# Docstrings are plain text, not reStructuredText; a class that a package passes on has two names.
suppress_warnings = ["docutils", "ref.python", "mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"


def plain(lines):
    """A docstring as reStructuredText: it is plain text with names in backticks, lists and indented blocks."""
    found, block = [], False
    for line in lines:
        item = re.match(r"(\* |- |\(?[a-z0-9]\) )", line)
        indented = line.startswith(" ") and not (found and _in_list(found))
        if indented and not block:
            found += ["", "::", ""]
        if line.strip() and not indented and (block or (item and found and found[-1].strip() and not _in_list(found))):
            found.append("")
        block = indented or (block and not line.strip())
        if indented:
            found.append(f"   {line}")
        else:
            start = item.end() if item else 0
            found.append(line[:start] + _escaped(line[start:]))
    return found


def _in_list(lines):
    """Whether the last line belongs to an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if re.match(r"(\* |- |\(?[a-z0-9]\) )", line):
            return True
        if not line.startswith("  "):
            return False
    return False


def _escaped(line):
    """Names in backticks become literals; what would be taken for other markup is escaped."""
    parts = re.split(r"(``.*?``|`[^`]*`)", line)
    for index, part in enumerate(parts):
        if part.startswith("`"):
            after = "\\ " if index + 1 < len(parts) and re.match(r"\w", parts[index + 1]) else ""
            parts[index] = f"``{part.strip('`')}``{after}"
        else:
            parts[index] = re.sub(r"([*_|\\])", r"\\\1", part)
    return "".join(parts)


def _docstring(app, what, name, obj, options, lines):
    lines[:] = plain(lines)


def _inline(writer, node):
    _append(writer, node, "inline")


def _block(writer, node):
    _append(writer, node, "block")


def _append(writer, node, display):
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    formula = convert(node.astext(), display=display)
    writer.body.append(f"<div>{formula}</div>" if display == "block" else formula)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-docstring", _docstring)
