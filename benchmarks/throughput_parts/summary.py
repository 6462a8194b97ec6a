"""Records -> medians, spreads and ratios. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import QUIET, Spread, others_cores, spread_of_others, status_of

from .tables import BASELINES


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


def summarise(records: Records) -> tuple[ModelSummary, ...]:
    """Every model that has a measured block, in the order of the records."""
    measured = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    setups = {(r["model"], r["strategy"]): r for r in records if r["kind"] == "setup"}
    models = dict.fromkeys(r["model"] for r in measured)
    return tuple(_model(m, [r for r in measured if r["model"] == m], setups) for m in models)


def quantities(records: Records) -> list[Quantity]:
    """The samples/s of each strategy on each model."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        if record["kind"] == "block" and not record["warmup"]:
            found.setdefault((record["model"], record["strategy"]), []).append(record["samples_per_s"])
    return [Quantity(name, "samples/s", "higher", tuple(values)) for name, values in found.items()]


def _model(model: str, blocks: list[Record], setups: Mapping[tuple[str, str], Record]) -> ModelSummary:
    strategies = [strategy for of, strategy in setups if of == model and any(b["strategy"] == strategy for b in blocks)]
    baseline = next((name for name in BASELINES if name in strategies), strategies[0])
    setup = setups[model, baseline]
    return ModelSummary(
        model=model,
        parameters=setup["parameters"],
        global_batch_size=setup["global_batch_size"],
        steps=blocks[0]["steps"],
        baseline=baseline,
        modes=tuple(_mode(name, baseline, blocks, setups[model, name]) for name in strategies),
        others_cores=spread_of_others(blocks),
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


def _ratio(pairs: list[tuple[Record, Record]]) -> Spread | None:
    return Spread.of([mine["samples_per_s"] / base["samples_per_s"] for mine, base in pairs]) if pairs else None


def as_json(records: Records) -> dict[str, Any]:
    """The summary as plain values, with the status of the run."""
    return {"status": status_of(records), "models": [asdict(model) for model in summarise(records)]}
