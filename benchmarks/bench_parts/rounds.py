"""Rounds of an interrupted run: which stand, and with which to go on. Pure."""

from __future__ import annotations

from collections import Counter

from .records import Record, Records


def whole_rounds(records: Records) -> list[Record]:
    """The records but for the blocks of a last round that was cut off.

    Every round has as many blocks as the first of all, which is the warm-up; alone, that one is never taken for whole.
    """
    counts = Counter(record["round"] for record in records if record["kind"] == "block")
    last = max(counts, default=0)
    cut = last if last == 0 or counts[last] < counts[0] else None
    return [record for record in records if record["kind"] != "block" or record["round"] != cut]


def next_round(done: Records) -> int:
    """The first round that is not there; 0 is the warm-up."""
    return 1 + max((record["round"] for record in done if record["kind"] == "block"), default=-1)


def of_kind(records: Records, *kinds: str) -> list[Record]:
    """Those records."""
    return [record for record in records if record["kind"] in kinds]
