"""The numbers in the documentation of what was tried are those of the tests."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from tests.faults import test_edited_record as edited
from tests.faults import test_leftovers as leftovers
from tests.faults.scenarios import SCENARIOS
from tests.faults.test_every_operation import KILLS, SHORT, Sweep

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def documented(pattern: str) -> list[int]:
    """The numbers in that row."""
    [row] = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.search(pattern, line)]
    return [int(number.replace(",", "")) for number in re.findall(r"(?<![\w-])[\d,]*\d", row)]


def cases(test: Any) -> int:
    """How often it is run."""
    return math.prod(len(mark.args[1]) for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize")


def test_edits_and_leftovers() -> None:
    """Of values, of texts, and of the format; and every test of what is left."""
    edits = len(edited.EDITS) + len(edited.TEXTS) + cases(edited.test_an_unknown_format_is_refused)
    assert documented(r"edited by somebody")[0] == edits
    tests = [test for name, test in vars(leftovers).items() if name.startswith("test_")]
    assert documented(r"what is left in the directory")[-1] == sum(map(cases, tests))


def test_operations(tmp_path: Path) -> None:
    """More than so many, as one more or less is nobody's concern."""
    counts = {}
    for name, scenario in SCENARIOS.items():
        for ranks in (1, 2):
            counts[name, ranks] = sum(Sweep(scenario, ranks, tmp_path / f"{name}-{ranks}").visits())
    quick = sum(count for (name, ranks), count in counts.items() if ranks == 1 or name in SHORT)
    every, ways, said = documented(r"^\| killed before")
    assert ways == len(KILLS)
    assert every <= sum(counts.values()) < 1.3 * every, counts
    assert said <= quick < 1.3 * said, (quick, counts)
