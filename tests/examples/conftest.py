"""All examples' small runs: a file of cases for each subject."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.examples.running import Case

SUBJECTS = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))


def all_cases() -> list[Case]:
    """Of every file cases_*.py, in the order of the files."""
    return [case for name in SUBJECTS for case in importlib.import_module(f"tests.examples.{name}").CASES]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that ask for `case` run over all examples; those that ask for `mode` too, over all ways to run them."""
    names = set(metafunc.fixturenames)
    if {"case", "mode"} <= names:
        pairs = [(case, mode) for case in all_cases() for mode in case.modes]
        metafunc.parametrize(("case", "mode"), pairs, ids=[f"{case.name}-{mode}" for case, mode in pairs])
    elif "case" in names:
        metafunc.parametrize("case", all_cases(), ids=lambda case: case.name)
