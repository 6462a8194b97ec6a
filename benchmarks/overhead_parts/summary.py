"""Records -> medians, spreads, ratios and differences, all taken round by round. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_parts.others import Others
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import Paired, Spread, ratios, status_of
from bench_parts.work import Work, with_work

from .tables import BASELINE, SAME_OPTIONS

WORK = (Work("nproc"), Work("device"), Work("batch"), Work("width"))


@dataclass(frozen=True)
class LoopSummary:
    """One loop on one feed."""

    loop: str
    step_ms: Spread
    ratio: Paired | None
    """Its time over the hand-written loop's; None for that loop itself, and without a round of both."""
    wrapper: Paired | None
    """Its time over the hand-written loop's with the same DDP options."""
    extra_us: Paired | None
    """Its time less the hand-written loop's, in microseconds a step."""
    cpu: Paired | None
    """CPU time of its ranks over that of the hand-written loop's."""
    collectives: float | None
    """Calls of torch.distributed in a step; None: not known."""
    identical: bool | None
    """Whether it ended with the weights of the hand-written loop, to the last bit; None: not known."""
    difference: float | None
    """The largest difference of a weight, relative to the largest weight."""


@dataclass(frozen=True)
class FeedSummary:
    """All loops on one feed."""

    feed: str
    steps: int
    """In a block."""
    loops: tuple[LoopSummary, ...]
    others_cores: Others | None
    """Cores that other programs kept busy during the blocks; None where it could not be seen."""


@dataclass(frozen=True)
class Summary:
    """A run."""

    status: str
    feeds: tuple[FeedSummary, ...]
    guard_us: Paired | None
    """dist_toolkit's time with the desync guard less that without it, in microseconds a step."""
    guard_alone_us: float | None
    """The guard's three records of a step, timed alone."""


def summarise(records: Records) -> Summary:
    """Everything that was measured until the records end."""
    blocks = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    weights = {(r["feed"], r["loop"]): r for r in records if r["kind"] == "weights"}
    alone = [1e6 * r["seconds"] for r in records if r["kind"] == "guard"]
    feeds = dict.fromkeys(r["feed"] for r in blocks)
    return Summary(
        status=status_of(records),
        feeds=tuple(_feed(feed, [b for b in blocks if b["feed"] == feed], weights) for feed in feeds),
        guard_us=_differences(_times(blocks, "memory", "dtk"), _times(blocks, "memory", "dtk-noguard")),
        guard_alone_us=alone[0] if alone else None,
    )


def as_json(records: Records) -> dict[str, Any]:
    """The summary as plain values."""
    return asdict(summarise(records))


def quantities(records: Records) -> list[Quantity]:
    """The time of a step of each loop."""
    blocks = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    keys = dict.fromkeys((b["feed"], b["loop"]) for b in blocks)
    numbers = (
        Quantity((*key, "step"), "ms", "lower", tuple(1000 * seconds for seconds in _times(blocks, *key).values()))
        for key in keys
    )
    return with_work(numbers, records[0]["options"], WORK)


def _feed(feed: str, blocks: list[Record], weights: Mapping[tuple[str, str], Record]) -> FeedSummary:
    names = [name for kind, name in weights if kind == feed]
    names += [name for name in sorted({b["loop"] for b in blocks}) if name not in names]
    measured = [name for name in names if any(b["loop"] == name for b in blocks)]
    return FeedSummary(
        feed=feed,
        steps=blocks[0]["steps"],
        loops=tuple(_loop(name, feed, blocks, weights.get((feed, name))) for name in measured),
        others_cores=Others.by_round(blocks),
    )


def _loop(name: str, feed: str, blocks: list[Record], weights: Record | None) -> LoopSummary:
    mine, base = _times(blocks, feed, name), _times(blocks, feed, BASELINE)
    tuned = _times(blocks, feed, SAME_OPTIONS)
    return LoopSummary(
        loop=name,
        step_ms=Spread.of([1000 * seconds for seconds in mine.values()]),
        ratio=None if name == BASELINE else ratios(mine, base),
        wrapper=None if name == SAME_OPTIONS else ratios(mine, tuned),
        extra_us=None if name == BASELINE else _differences(mine, base),
        cpu=None if name == BASELINE else ratios(_cpu_times(blocks, feed, name), _cpu_times(blocks, feed, BASELINE)),
        collectives=None if weights is None else weights["collectives"],
        identical=None if weights is None else weights["identical"],
        difference=None if weights is None else weights["difference"],
    )


def _times(blocks: Sequence[Record], feed: str, loop: str) -> dict[int, float]:
    """Round -> seconds a step."""
    return {b["round"]: b["seconds"] / b["steps"] for b in blocks if (b["feed"], b["loop"]) == (feed, loop)}


def _cpu_times(blocks: Sequence[Record], feed: str, loop: str) -> dict[int, float]:
    """Round -> CPU seconds of all ranks."""
    return {b["round"]: b["cpu_seconds"] for b in blocks if (b["feed"], b["loop"]) == (feed, loop)}


def _differences(mine: Mapping[int, float], base: Mapping[int, float]) -> Paired | None:
    found = [1e6 * (seconds - base[number]) for number, seconds in mine.items() if number in base]
    return Paired.of(found) if found else None
