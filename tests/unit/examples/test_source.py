"""Labels that Python's own tokenizer gives."""

import pytest
from shared.source import LABELS, PACKAGES, labelled, snippets, some, tagged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class A(B):", "class/O A/B-class (/O B/O )/O :/O"),
        ("def f(x):", "def/O f/B-function (/O x/O )/O :/O"),
        ("import os.path", "import/O os/B-module ./I-module path/I-module"),
        ("import os, sys", "import/O os/B-module ,/O sys/B-module"),
        ("from a.b import c", "from/O a/B-module ./I-module b/I-module import/O c/B-module"),
        ("from . import c", "from/O ./O import/O c/B-module"),
        ("import a as b", "import/O a/B-module as/O b/O"),
        ("@a.b\ndef f(): pass", "@/O a/B-decorator ./I-decorator b/I-decorator "
         "def/O f/B-function (/O )/O :/O pass/O"),
        ("x = 'class A'  # def f", "x/O =/O"),
        ("f(a, b)", "f/O (/O a/O ,/O b/O )/O"),
    ],
)  # fmt: skip
def test_labels(text: str, expected: str) -> None:
    words, labels = labelled(text)
    assert " ".join(f"{word}/{label}" for word, label in zip(words, labels, strict=True)) == expected


def test_rows_of_the_library_have_all_labels() -> None:
    rows = tagged(16, PACKAGES[:1])
    assert len(rows) > 50
    assert all(len(words) == len(labels) == 16 for words, labels in rows)
    assert {label for _, labels in rows for label in labels} <= set(LABELS)


def test_snippets_tell_no_imports_and_are_of_every_package() -> None:
    found = snippets(8, PACKAGES[:4])
    assert {label for _, label in found} == {0, 1, 2, 3}
    assert not any(line.strip().startswith(("import ", "from ")) for text, _ in found for line in text.splitlines())


def test_some_are_always_the_same_and_of_the_whole_list() -> None:
    chosen = some([*range(1000)], 50)
    assert chosen == some([*range(1000)], 50)
    assert len(set(chosen)) == 50
    assert min(chosen) < 200
    assert max(chosen) > 800
    assert sorted(some([1, 2, 3], 10)) == [1, 2, 3]
