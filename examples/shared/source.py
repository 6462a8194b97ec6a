"""Labelled samples from the source of Python's standard library: where a snippet is from, and what its names are."""

from __future__ import annotations

import io
import keyword
import random
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PACKAGES = ["asyncio", "email", "unittest", "json", "http", "xml", "logging", "importlib", "multiprocessing", "ctypes"]
"""What a snippet may be from."""

STARTS = {"class": "class", "def": "function", "import": "module", "from": "module", "@": "decorator"}
"""The kind of the entity behind a word."""

LABELS = ["O", *(f"{place}-{kind}" for kind in sorted(set(STARTS.values())) for place in "BI")]


def modules(packages: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a package's name and the text of one of its files, in the same order everywhere."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in packages:
        for path in sorted((library / package).rglob("*.py")):
            yield package, path.read_text(encoding="utf-8", errors="replace")


def some(samples: list[T], most: int) -> list[T]:
    """At most so many of the samples, of all parts of the list: the same ones everywhere."""
    return random.Random(0).sample(samples, min(most, len(samples)))


def snippets(lines: int, packages: list[str]) -> list[tuple[str, int]]:
    """Pieces of `lines` lines, without imports, which would tell; and the number of the package they are from."""
    found = []
    for package, text in modules(packages):
        kept = [
            line for line in text.splitlines() if line.strip() and not line.strip().startswith(("import ", "from "))
        ]
        for start in range(0, len(kept) - lines + 1, lines):
            found.append(("\n".join(kept[start : start + lines]), packages.index(package)))
    return found


def tagged(words: int, packages: list[str]) -> list[tuple[list[str], list[str]]]:
    """Rows of `words` words of the source and their labels, where one word in eight or more belongs to an entity."""
    rows: list[tuple[list[str], list[str]]] = []
    for _, text in modules(packages):
        found, labels = labelled(text)
        starts = range(0, len(found) - words + 1, words)
        rows += [(found[start : start + words], labels[start : start + words]) for start in starts]
    return [row for row in rows if row[1].count("O") <= words * 7 / 8]


def labelled(text: str) -> tuple[list[str], list[str]]:
    """The words of Python source, without strings and comments; and of each its label, O, B-KIND or I-KIND (IOB2).

    An entity is what `class`, `def` or `import` names, or a decorator; `os.path` is one of three words.
    """
    words: list[str] = []
    labels: list[str] = []
    kind, inside = "", False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        word = token.string
        if token.type in (tokenize.COMMENT, tokenize.STRING) or not word.strip():
            kind, inside = "", False
            continue
        is_name = token.type == tokenize.NAME and not keyword.iskeyword(word)
        joins = inside and labels[-1] != "O" and (word == "." or words[-1] == ".")
        if kind and (joins or (is_name and not inside)):
            labels.append(f"{'I' if inside else 'B'}-{kind}")
            inside = True
        else:
            kind, inside = (kind if word == "," and kind == "module" else STARTS.get(word, "")), False
            labels.append("O")
        words.append(word)
    return words, labels
