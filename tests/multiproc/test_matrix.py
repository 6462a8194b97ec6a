"""Saved by any strategy on any number of ranks, restored by any other on any other: the same to the last bit.

Each number of ranks is started twice, and with the others: once all strategies save, once all restore what all have
saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dist_toolkit.testing import RanksFailed
from tests.multiproc.matrix import CASES, KINDS, RANKS, restore_all, save_all
from tests.multiproc.together import Call, run_together

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "strategies-and-checkpoints.md"
CAST_WHOLE = ("fsdp", "hybrid")
"""They compute in 16 bits throughout; autocast, which the others use, computes some operations in 32."""


@cache
def ran() -> tuple[dict[tuple[str, int], list[dict[str, Any]]], dict[tuple[str, int], list[dict[str, Any]]]]:
    """By case, and by rank: what was saved; and by case, rank and folder: what was restored."""
    with TemporaryDirectory(prefix="dtk-matrix-") as root:
        return _on_all(save_all, root), _on_all(restore_all, root)


def _on_all(program: Callable[..., Any], root: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """By case, and by rank."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    calls = {ranks: Call(program, ranks, (root, ranks)) for ranks in RANKS}
    for ranks, seen in run_together(calls, timeout=400).items():
        if isinstance(seen, RanksFailed):
            raise seen
        found |= {(name, ranks): [rank[name] for rank in seen] for name in seen[0]}
    return found


def pairs(first: str, second: str) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """All numbers of ranks that `first` saves on, with all that `second` restores on."""
    for saver in CASES:
        for reader in CASES:
            if (saver[0], reader[0]) == (first, second):
                yield saver, reader


def test_the_ranks_of_a_save_agree_on_what_it_is() -> None:
    """And no two cases in a row saved the same, so that a restore which leaves something as it was would be seen."""
    saved, _ = ran()
    assert tuple(saved) == CASES
    for case, states in saved.items():
        bits = [{key: value for key, value in state.items() if key != "losses"} for state in states]
        assert bits == [bits[0]] * case[1]
    first = [saved[case][0] for case in CASES]
    for one, other in pairwise([*first, first[0]]):
        alike = {key for key, value in one.items() if value == other[key]}
        assert {name.rpartition(" ")[2] for name in alike} == {"fixed.weight"}


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_restored_to_the_last_bit(first: str, second: str) -> None:
    """Weights, buffers, averages, moments and steps of each parameter, groups, schedule, loss scale; on every rank."""
    saved, restored = ran()
    for saver, reader in pairs(first, second):
        expected = {key: value for key, value in saved[saver][0].items() if key != "losses"}
        for rank in restored[reader]:
            found = rank[f"{saver[0]}-{saver[1]}"]
            differing = [key for key in expected | found if key != "losses" and expected.get(key) != found.get(key)]
            assert not differing, f"saved by {saver}, restored by {reader}"


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_training_goes_on(first: str, second: str) -> None:
    """Two more steps, fp16, the same samples on all ranks: the losses of a run that was not interrupted."""
    saved, restored = ran()
    alike = (first in CAST_WHOLE) == (second in CAST_WHOLE)
    for saver, reader in pairs(first, second):
        if saver[1] == reader[1]:
            for rank in restored[reader]:
                found = rank[f"{saver[0]}-{saver[1]}"]["losses"]
                assert found == pytest.approx(saved[saver][0]["losses"], rel=1e-6 if alike else 2e-3)


def table() -> str:
    """How many (ranks at the save, ranks at the restore) there are of each pair of strategies in these tests."""
    lines = ["| saved by, restored by | " + " | ".join(f"`{name}`" for name in KINDS) + " |"]
    lines.append("|---" * (len(KINDS) + 1) + "|")
    for first in KINDS:
        counts = [len(list(pairs(first, second))) for second in KINDS]
        lines.append(f"| `{first}` | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def test_the_page_shows_what_is_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert table() in text, table()
    assert f"All {len(CASES) ** 2} of" in text
