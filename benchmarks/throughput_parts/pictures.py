"""The report's figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench_parts.figures import Bars, Figure, Lines, Stacks, Value

from .grids import PARTS
from .names import stem, work_name
from .summary import ModeSummary, WorkSummary
from .tables import STRATEGIES


def ratios(summary: Sequence[WorkSummary], weak: bool) -> Iterator[Figure]:
    """All strategies on all workloads, over what each is compared with; where there is more than one comparison."""
    compared = [(work, mode) for work in summary for mode in work.modes if mode.ratio is not None]
    to = {mode.compared_with.partition(" ")[0] for _, mode in compared}
    if len(compared) < 2 or len(to) > 1:
        return
    labels = list(dict.fromkeys(mode.label for _, mode in compared))
    named = [(work_name(work, summary, weak), mode) for work, mode in compared]
    found = {(name, mode.label): Value.of(mode.ratio) for name, mode in named if mode.ratio is not None}
    works = list(dict.fromkeys(name for name, _ in named))
    yield Bars(
        "throughput-ratios",
        f"Throughput over that of {STRATEGIES[to.pop()].title}, with the same shares of the machine",
        "times",
        tuple(works),
        tuple((label, tuple(found.get((name, label)) for name in works)) for label in labels),
        better="higher",
        baseline=1.0,
    )


def of_work(work: WorkSummary, name: str) -> Iterator[Figure]:
    """Rates, scaling and the parts of a step, on one workload."""
    labels = tuple(mode.label for mode in work.modes)
    yield Bars(
        f"{stem(work)}-rates", f"Throughput on {name}", "samples/s", labels,
        (("samples/s", tuple(Value.of(mode.samples_per_s) for mode in work.modes)),), better="higher",
    )  # fmt: skip
    yield from _scaling(work, name)
    timed = [mode for mode in work.modes if mode.parts_ms]
    names = [part for part in PARTS if any(part in mode.parts_ms for mode in timed)]
    if timed:
        yield Stacks(
            f"{stem(work)}-parts", f"Parts of a step on {name}", "ms", tuple(mode.label for mode in timed),
            tuple((part, tuple(_median(mode, part) for mode in timed)) for part in names),
        )  # fmt: skip


def _median(mode: ModeSummary, part: str) -> float:
    return mode.parts_ms[part].median if part in mode.parts_ms else 0.0


def _scaling(work: WorkSummary, name: str) -> Iterator[Figure]:
    shares = sorted({mode.nproc for mode in work.modes})
    series = []
    for strategy in dict.fromkeys(mode.strategy for mode in work.modes if not STRATEGIES[mode.strategy].one_share):
        points = sorted((float(m.nproc), Value.of(m.samples_per_s)) for m in work.modes if m.strategy == strategy)
        if len(points) > 1:
            series.append((strategy, tuple(points)))
    if not series:
        return
    start = next((m for m in work.modes if m.strategy == "single"), None)
    slope = start.samples_per_s.median if start else max(points[0][1].median / points[0][0] for _, points in series)
    yield Lines(
        f"{stem(work)}-scaling", f"Scaling on {name}; dashed: perfect, from {'one process' if start else 'the best'}",
        "ranks", "samples/s", tuple(series), log_x=True, ideal=tuple((float(n), n * slope) for n in shares),
    )  # fmt: skip
