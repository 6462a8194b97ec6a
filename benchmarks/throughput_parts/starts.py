"""Which records are of processes that were alive at once: a run that is resumed starts all of them again. Pure."""

from __future__ import annotations

from bench_parts.records import Record, Records

from .cases import Workload

ModeKey = tuple[Workload, str, int]
"""Workload, strategy and shares."""


def mode_of(record: Record) -> ModeKey:
    """The one that a record belongs to."""
    return Workload.of(record), record["strategy"], record["nproc"]


def starts_of(records: Records) -> list[int | None]:
    """Of each record the number of the start that it belongs to; None where it belongs to none.

    A start is that of all modes which are then alive at once: their setups follow each other and name the same modes in
    `together`. A block belongs to the last start of its mode.
    """
    found: list[int | None] = []
    latest: dict[ModeKey, int] = {}
    members: set[ModeKey] = set()
    number, alive, before = -1, None, ""
    for record in records:
        mode = mode_of(record) if "strategy" in record else None
        if record["kind"] == "setup" and mode is not None:
            now = mode[0], tuple(record["together"])
            if before != "setup" or now != alive or mode in members:
                number, alive, members = number + 1, now, set()
            members.add(mode)
            latest[mode] = number
        found.append(None if mode is None else latest.get(mode))
        before = record["kind"]
    return found
