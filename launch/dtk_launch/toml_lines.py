"""Which line of a TOML text sets which key. Pure. (Python's parser keeps no positions.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Key = tuple[str, ...]


def key_lines(text: str, parse: Callable[[str], dict[str, Any]]) -> dict[Key, int]:
    """Key -> number of the line where it, or the first key below it, is set. `text` must be TOML, read by `parse`.

    A statement is the shortest run of lines that parses alone: so the parser itself decides what a string, an array
    over several lines or a quoted key is.
    """
    lines: dict[Key, int] = {}
    table: Key = ()
    statement, start = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        start = start if statement else number
        statement += line + "\n"
        try:
            values = parse(statement)
        except ValueError:  # goes on in the next line
            continue
        if statement.lstrip().startswith("["):
            table = max(_keys(values), key=len)
            found: list[Key] = [table[:depth] for depth in range(1, len(table) + 1)]
        else:
            found = [(*table, *key) for key in _keys(values)]
        for key in found:
            lines.setdefault(key, start)
        statement = ""
    return lines


def _keys(values: Any) -> Iterator[Key]:
    """Every key of nested tables, outer ones first."""
    if isinstance(values, list):  # [[a.b]]
        values = values[0] if values and isinstance(values[0], dict) else {}
    if isinstance(values, dict):
        for name, below in values.items():
            yield (name,)
            yield from ((name, *key) for key in _keys(below))
