"""Finds the fields of an answer in any text, wherever its JSON stands and however it is spelt.

Objects may be nested, in lists, in a code fence or in prose; the official template (single quotes in lists, trailing
commas) and answers that are broken or cut off are read too. One rule decides which of several fields counts: **the
first that is readable, those of an outer object before those inside it.** So the first of several objects counts, and
the first of repeated keys; a field that it lacks comes from the next object that has it. A field outside all objects is
an object of its own; a value that is not of the field's type is not readable.

The verifiers, the metrics and PPO's sequence-level ratio all read by this rule. The text is untrusted: it is read once,
without recursion, in time linear in a bounded length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .attempts import MAX_TEXT

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# What comes after a string tells keys and values from quotation marks in prose.
_TOKEN = re.compile(rf'({_STRING})(?:\s*+([:,}}\]]|\Z))?|["{{}}\[\],]|\\.', re.DOTALL)
_VALUE = re.compile(rf"\s*+({_STRING}|\[[^\[\]]*+\])", re.DOTALL)
_MARKS = {str: '"', list: "["}  # how a value of each type begins
_LIST = -1  # an open list, where an open object has its place in the text


@dataclass(frozen=True)
class _Field:
    """One occurrence of a key."""

    parent: int  # where its object begins
    start: int  # where its key begins
    value: str  # as spelt: a string, or a list without lists inside; empty for any other


def read_fields(text: str, types: Mapping[str, type]) -> dict[str, Any]:
    """The fields of the answer by name: those of `types` that are of their type there, ``str`` or ``list``.

    The items of a list are JSON values; in a list that is not JSON (['K'] or [K]) all are strings. Any text is
    accepted; one longer than `MAX_TEXT` has no fields.
    """
    found = _fields(text, types)
    best = {key: _best(found[key], kind) for key, kind in types.items()}
    return {key: _value(field.value) for key, field in best.items() if field and _is(field, types[key])}


def find_key(text: str, key: str, kind: type = str) -> int:
    """Where the field that counts begins, in characters, quotation mark included; -1 if there is no such key.

    A field that is not of its `kind`, ``str`` or ``list``, is found if there is no better one.
    """
    field = _best(_fields(text, (key,))[key], kind)
    return field.start if field else -1


def _is(field: _Field, kind: type) -> bool:
    return field.value.startswith(_MARKS[kind])


def _best(fields: list[_Field], kind: type) -> _Field | None:
    """The one that counts."""
    return min(fields, key=lambda field: (not _is(field, kind), field.parent, field.start), default=None)


def _fields(text: str, keys: Collection[str]) -> dict[str, list[_Field]]:
    """All fields with these keys."""
    fields: dict[str, list[_Field]] = {key: [] for key in keys}
    if len(text) > MAX_TEXT or not any(key in text for key in (*keys, "\\u")):  # an escape may spell a key
        return fields
    stack: list[int] = []  # what is open: where an object begins, or `_LIST`
    objects = 0  # in the stack
    ready = -1  # the end of a token that a value may follow; -1 after any other
    position = 0
    while token := _TOKEN.search(text, position):
        begin = token.start()
        mark, position = text[begin], begin + 1
        expected = ready >= 0 and not text[ready:begin].strip()
        in_list = bool(stack) and stack[-1] == _LIST
        ready = -1
        if mark == '"' and token[1]:
            if token[2] == ":":
                while stack and stack[-1] == _LIST:  # a list has no keys, so this one was never closed
                    stack.pop()
                position = ready = token.end()
                key = _unquote(token[1])
                if key in fields:
                    value = _VALUE.match(text, position)
                    fields[key].append(_Field(stack[-1] if stack else begin, begin, value[1] if value else ""))
            elif expected:
                # If the closing mark is missing, the one found may open the next key.
                position = token.end(1) - (token[2] is None)
        elif mark == "{":
            stack.append(begin)
            objects += 1
        elif mark == "}" and objects:
            while stack.pop() == _LIST:
                pass
            objects -= 1
        elif mark == "[":
            stack.append(_LIST)
            ready = position
        elif mark == "]" and in_list:
            stack.pop()
        elif mark == "," and in_list:
            ready = position
        elif mark == "\\":
            position = token.end()
    return fields


def _value(found: str) -> str | list[Any]:
    if found.startswith('"'):
        return _unquote(found)
    items = found[1:-1].rstrip().removesuffix(",")
    try:
        return json.loads(f"[{items}]", strict=False)
    except (ValueError, RecursionError):
        return [item.strip(" \t\r\n'\"") for item in items.split(",")]


def _unquote(string: str) -> str:
    """The content of a string in double quotes, with its escapes decoded if they are JSON's."""
    if "\\" in string:
        try:
            return json.loads(string, strict=False)
        except ValueError:
            pass
    return string[1:-1]
