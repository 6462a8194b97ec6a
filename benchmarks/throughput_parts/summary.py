"""Records -> medians, spreads and ratios. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from .tables import BASELINES

QUIET = 0.1
"""Cores: other programs that use less than this do not count."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it; all three are the value itself where there is only one."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


@dataclass(frozen=True)
class ModeSummary:
    """One strategy on one model."""

    strategy: str
    ranks: int
    threads: int
    """Of each rank."""
    device: str
    samples_per_s: Spread
    step_ms: float
    """Median."""
    cores_used: float
    """CPU time of its ranks a second, median."""
    ratio: Spread | None
    """Its samples/s over the baseline's, round by round; None for the baseline, or without a round of both."""
    quiet_ratio: Spread | None
    """The same over those rounds alone in which other programs left the cores to both; None without one."""


@dataclass(frozen=True)
class ModelSummary:
    """All strategies on one model."""

    model: str
    parameters: int
    global_batch_size: int
    steps: int
    """In a block."""
    baseline: str
    """The strategy that the others are compared with."""
    modes: tuple[ModeSummary, ...]
    others_cores: Spread | None
    """Cores that other programs kept busy during the blocks; None where it could not be seen."""


def summarise(records: Sequence[Record]) -> tuple[ModelSummary, ...]:
    """Every model that has a measured block, in the order of the records."""
    measured = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    setups = {(r["model"], r["strategy"]): r for r in records if r["kind"] == "setup"}
    models = dict.fromkeys(r["model"] for r in measured)
    return tuple(_model(m, [r for r in measured if r["model"] == m], setups) for m in models)


def _model(model: str, blocks: list[Record], setups: Mapping[tuple[str, str], Record]) -> ModelSummary:
    strategies = [strategy for of, strategy in setups if of == model and any(b["strategy"] == strategy for b in blocks)]
    baseline = next((name for name in BASELINES if name in strategies), strategies[0])
    setup = setups[model, baseline]
    others = [cores for cores in map(others_cores, blocks) if cores is not None]
    return ModelSummary(
        model=model,
        parameters=setup["parameters"],
        global_batch_size=setup["global_batch_size"],
        steps=blocks[0]["steps"],
        baseline=baseline,
        modes=tuple(_mode(name, baseline, blocks, setups[model, name]) for name in strategies),
        others_cores=Spread.of(others) if others else None,
    )


def _mode(strategy: str, baseline: str, blocks: list[Record], setup: Record) -> ModeSummary:
    mine = [b for b in blocks if b["strategy"] == strategy]
    theirs = {b["round"]: b for b in blocks if b["strategy"] == baseline and strategy != baseline}
    pairs = [(b, theirs[b["round"]]) for b in mine if b["round"] in theirs]
    quiet = [pair for pair in pairs if all((others_cores(b) or 0.0) < QUIET for b in pair)]
    return ModeSummary(
        strategy=strategy,
        ranks=setup["ranks"],
        threads=setup["threads"],
        device=setup["device"],
        samples_per_s=Spread.of([b["samples_per_s"] for b in mine]),
        step_ms=1000 * median(b["seconds"] / b["steps"] for b in mine),
        cores_used=median(b["cpu_seconds"] / b["seconds"] for b in mine),
        ratio=_ratio(pairs),
        quiet_ratio=_ratio(quiet),
    )


def others_cores(block: Record) -> float | None:
    """Cores that other programs kept busy during a block; None where it could not be seen."""
    seconds = block["others_cpu_seconds"]
    return None if seconds is None else seconds / block["seconds"]


def _ratio(pairs: list[tuple[Record, Record]]) -> Spread | None:
    return Spread.of([mine["samples_per_s"] / base["samples_per_s"] for mine, base in pairs]) if pairs else None


def as_json(summary: Sequence[ModelSummary], records: Sequence[Record]) -> dict[str, Any]:
    """The summary as plain values, with the status of the run."""
    status = next((r["status"] for r in reversed(records) if r["kind"] == "end"), "unfinished")
    return {"status": status, "models": [asdict(model) for model in summary]}
