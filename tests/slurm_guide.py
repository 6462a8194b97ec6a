"""slurm/README.md as data: its parts, tables and console blocks."""

import re
from pathlib import Path

PATH = Path(__file__).parents[1] / "slurm" / "README.md"
HOME = "/home/ada"
"""Whose paths it shows."""


def part(title: str) -> str:
    """The text below a heading, to the next one of its level or above."""
    lines, level, fenced, found = PATH.read_text(encoding="utf-8").splitlines(keepends=True), 0, False, []
    for line in lines:
        fenced ^= line.startswith("```")
        marks = 0 if fenced else len(line) - len(line.lstrip("#"))
        if level and marks and marks <= level:
            break
        if level:
            found.append(line)
        elif marks and line[marks:].strip() == title:
            level = marks
    assert found, title
    return "".join(found)


def rows(text: str) -> list[list[str]]:
    """The cells of every table in it, headings left out."""
    tables = re.findall(r"^\|.*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    lines = "".join(tables).splitlines()
    return [[cell.strip() for cell in line[1:-1].split(" |")] for line in lines]


def quotes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def block(text: str, language: str) -> str:
    """Its one block of this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found


def commands(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of its console blocks, in order."""
    shown = "".join(re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    pairs = [entry.partition("\n") for entry in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]]
    return [(command, printed) for command, _, printed in pairs]
