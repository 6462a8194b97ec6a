"""Records -> medians, spreads and rates, all taken round by round. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_parts.others import Others
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import Paired, Spread, ratios, status_of
from bench_parts.work import Work, with_work

from .tables import BASELINE, COPY, METHODS, PHASES

WORK = (
    Work("nproc"),
    Work("mib", of=lambda name: name[0] == "large"),
    Work("tensors", of=lambda name: name[0] == "small"),
    Work("settle"),
)
"""A write right after a large deletion is slower, so how long is waited counts."""


@dataclass(frozen=True)
class PhaseSummary:
    """One phase of one method: save, load, or load of what is not in memory."""

    ms: Spread
    rate: Paired | None
    """Bytes a second relative to the baseline's; None for the baseline itself, and without a round of both."""


@dataclass(frozen=True)
class MethodSummary:
    """One method on one state."""

    method: str
    phases: Mapping[str, PhaseSummary]
    """Those of PHASES that were measured."""
    stall_ms: Spread | None
    """Until training could go on; None where that is the whole save."""
    stall: Paired | None
    """That over the time to copy the same bytes in memory."""
    same: bool | None
    """Whether every load gave what was saved, to the last bit; None: nothing was loaded."""


@dataclass(frozen=True)
class CaseSummary:
    """All methods on one state."""

    case: str
    methods: tuple[MethodSummary, ...]
    copy_ms: Spread | None
    """To copy the same bytes in memory."""
    others_cores: Others | None
    """Cores that other programs, and the system on its own account, kept busy; None where it could not be seen."""

    def method(self, name: str) -> MethodSummary | None:
        """The summary of one method; None if it was not measured."""
        return next((method for method in self.methods if method.method == name), None)


@dataclass(frozen=True)
class Summary:
    """A run."""

    status: str
    cases: tuple[CaseSummary, ...]


def summarise(records: Records) -> Summary:
    """Everything that was measured until the records end."""
    blocks = [r for r in records if r["kind"] == "block"]
    names = dict.fromkeys(b["case"] for b in blocks if not b["warmup"] and b["method"] != COPY)
    return Summary(
        status=status_of(records),
        cases=tuple(_case(name, [b for b in blocks if b["case"] == name]) for name in names),
    )


def as_json(records: Records) -> dict[str, Any]:
    """The summary as plain values."""
    return asdict(summarise(records))


def quantities(records: Records) -> list[Quantity]:
    """The time of each phase of each method, and how long a save in the background holds training up."""
    blocks = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    found: dict[tuple[str, ...], list[float]] = {}
    for block in blocks:
        name = (block["case"], block["method"], block["phase"])
        found.setdefault(name, []).append(1000 * block["seconds"])
        if "stall" in block:
            found.setdefault((*name[:2], "stall"), []).append(1000 * block["stall"])
    numbers = (Quantity(name, "ms", "lower", tuple(values)) for name, values in found.items())
    return with_work(numbers, records[0]["options"], WORK)


def _case(name: str, blocks: Sequence[Record]) -> CaseSummary:
    timed = [b for b in blocks if not b["warmup"]]
    copies = _times(timed, COPY, "copy")
    there = {b["method"] for b in timed}
    return CaseSummary(
        case=name,
        methods=tuple(_method(method, timed, blocks, copies) for method in METHODS if method in there),
        copy_ms=_milliseconds(copies),
        others_cores=Others.by_round([b for b in timed if b["method"] != COPY]),
    )


def _method(name: str, timed: Sequence[Record], blocks: Sequence[Record], copies: Mapping[int, float]) -> MethodSummary:
    stalls = {b["round"]: b["stall"] for b in timed if b["method"] == name and "stall" in b}
    loads = [b["same"] for b in blocks if b["method"] == name and "same" in b]  # the warm-up's count too
    phases = {}
    for phase in PHASES:
        mine = _times(timed, name, phase)
        if mine:
            base = _times(timed, BASELINE, phase)
            rate = None if name == BASELINE else ratios(base, mine)
            phases[phase] = PhaseSummary(Spread.of([1000 * seconds for seconds in mine.values()]), rate)
    return MethodSummary(
        method=name,
        phases=phases,
        stall_ms=_milliseconds(stalls),
        stall=ratios(stalls, copies),
        same=all(loads) if loads else None,
    )


def _times(blocks: Sequence[Record], method: str, phase: str) -> dict[int, float]:
    """Round -> seconds."""
    return {b["round"]: b["seconds"] for b in blocks if (b["method"], b["phase"]) == (method, phase)}


def _milliseconds(seconds: Mapping[int, float]) -> Spread | None:
    return Spread.of([1000 * value for value in seconds.values()]) if seconds else None
