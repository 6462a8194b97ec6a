"""What an interrupted run has measured already. Pure."""

from __future__ import annotations

from bench_parts.records import Record, Records

from .cases import Mode, Workload
from .starts import ModeKey, mode_of, starts_of


def whole_rounds(records: Records) -> list[Record]:
    """The records but for those of rounds that were cut off.

    Of each start, that is its last one where a mode that it brought up, and that has not failed since, has no block in
    that round: neither of this start nor, as it was whole there, of an earlier one.
    """
    starts = starts_of(records)
    blocks: dict[int, set[int]] = {}
    alive: dict[int, set[ModeKey]] = {}
    for record, start in zip(records, starts, strict=True):
        if start is None:
            continue
        if record["kind"] == "setup":
            alive.setdefault(start, set()).add(mode_of(record))
        elif record["kind"] == "failed":
            alive[start].discard(mode_of(record))
        elif record["kind"] == "block":
            blocks.setdefault(start, set()).add(record["round"])
    there = {(mode_of(r), r["round"]) for r in records if r["kind"] == "block"}
    last = {start: max(rounds) for start, rounds in blocks.items()}
    cut = {(start, number) for start, number in last.items() if any((m, number) not in there for m in alive[start])}
    return [
        record
        for record, start in zip(records, starts, strict=True)
        if record["kind"] not in ("block", "phases") or (start, record["round"]) not in cut
    ]


class Kept:
    """The records that a run goes on with; none in a run that is new."""

    def __init__(self, records: Records) -> None:
        self._steps = {Workload.of(r): int(r["steps"]) for r in records if r["kind"] == "steps"}
        self._blocks = {(mode_of(r), r["round"]) for r in records if r["kind"] == "block"}
        self._fits = {mode_of(r) for r in records if r["kind"] == "fit"}
        self._models = {r["model"] for r in records if r["kind"] == "model"}

    def steps(self, workload: Workload) -> int | None:
        """Of a block, where that was found already."""
        return self._steps.get(workload)

    def has_block(self, mode: Mode, number: int) -> bool:
        """Whether a mode was measured in this round."""
        return ((mode.workload, mode.strategy, mode.nproc), number) in self._blocks

    def has_all(self, mode: Mode, rounds: int) -> bool:
        """Whether nothing of a mode is missing, but the largest batch."""
        return all(self.has_block(mode, number) for number in range(rounds + 1))

    def has_fit(self, mode: Mode) -> bool:
        """Whether the largest batch of a mode was found."""
        return (mode.workload, mode.strategy, mode.nproc) in self._fits

    def has_model(self, model: str) -> bool:
        """Whether the weights of a model were counted."""
        return model in self._models

    def add_model(self, model: str) -> None:
        """Its weights have been counted."""
        self._models.add(model)
