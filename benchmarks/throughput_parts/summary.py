"""Records -> medians, spreads and ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench_parts.records import Record, Records
from bench_parts.statistics import QUIET, Spread, others_cores, spread_of_others

from .cases import Workload, label
from .peaks import peak_flops
from .starts import starts_of
from .steptimes import middle_and_slow
from .tables import BASELINES


@dataclass(frozen=True)
class Memory:
    """The most that was used, in MiB."""

    rss_most: float
    """Resident, of one process."""
    rss_sum: float
    """Resident, of all processes together; pages of libraries count once for each."""
    gpu_allocated: float | None
    """By tensors, on the fullest GPU; None on the CPU."""
    gpu_reserved: float | None
    """By torch, on the fullest GPU."""


@dataclass(frozen=True)
class ModeSummary:
    """One strategy with so many shares of the machine, on a workload."""

    strategy: str
    nproc: int
    """Its shares: GPUs, or times the threads of a rank."""
    ranks: int
    """Its processes."""
    threads: int
    """Of each process."""
    device: str
    global_batch_size: int
    samples_per_s: Spread
    step_ms: float
    """The median over the steps of all rounds."""
    slow_step_ms: float | None
    """What 95 % of the steps of all rounds do not exceed; None where there are too few of them to say."""
    cores_used: float
    """CPU time of its ranks a second, median."""
    parts_ms: Mapping[str, Spread]
    """Part of a step -> its time, over rounds."""
    timed_steps: int
    """Steps in which the parts were timed, over all rounds."""
    memory: Memory
    flops_per_s: float | None
    """Of forward and backward passes, as counted; None where that was not possible."""
    utilisation: float | None
    """Model FLOPs utilisation: `flops_per_s` over the peak of its GPUs; None where that is not known."""
    compared_with: str
    """The label of the mode that `ratio` is to; '' without one."""
    ratio: Spread | None
    """Its samples/s over those of `compared_with`, round by round; None where it is the one to compare with."""
    apart: bool
    """Whether, in a round of both, `compared_with` was not alive when this was measured: `ratio` is then of different
    minutes."""
    quiet_ratio: Spread | None
    """The same over those rounds alone in which other programs left the cores to both; None without one."""
    scaled_from: str
    """The label of the mode with fewer shares that `speedup` is over; '' without one."""
    speedup: Spread | None
    """Its samples/s over those of `scaled_from`, round by round."""
    scaled_apart: bool
    """The same of `scaled_from`, and of `speedup`."""
    efficiency: float | None
    """`speedup` over the ratio of the shares."""

    @property
    def label(self) -> str:
        """`ddp x2`."""
        return label(self.strategy, self.nproc)


@dataclass(frozen=True)
class WorkSummary:
    """All modes on one workload."""

    model: str
    precision: str
    batch: int
    """Global with --scaling strong, of each rank with weak."""
    parameters: int | None
    flops_per_sample: float | None
    steps: int
    """In a block."""
    block_seconds: Spread
    """How long blocks were."""
    modes: tuple[ModeSummary, ...]
    apart: bool
    """Whether not all of them were alive at once, in any round."""
    others_cores: Spread | None
    """Cores that other programs kept busy during the blocks; None where it could not be seen."""


def summarise(records: Records) -> tuple[WorkSummary, ...]:
    """Every workload that has a measured block, in the order of the records."""
    measured = [r for r in records if r["kind"] == "block" and not r["warmup"]]
    found = []
    for workload in dict.fromkeys(Workload.of(r) for r in measured):
        mine = [r for r in records if r["kind"] != "model" and "batch" in r and Workload.of(r) == workload]
        model = next((r for r in records if r["kind"] == "model" and r["model"] == workload.model), {})
        found.append(_work(workload, mine, model))
    return tuple(found)


Key = tuple[str, int]
"""Strategy and shares: a mode on a workload."""


def _work(workload: Workload, records: Sequence[Record], model: Mapping[str, Any]) -> WorkSummary:
    setups = {key_of(r): r for r in records if r["kind"] == "setup"}
    blocks: dict[Key, list[Record]] = {key: [] for key in setups}
    parts: dict[Key, list[Record]] = {key: [] for key in setups}
    for record, start in zip(records, starts_of(records), strict=True):
        if record["kind"] == "block" and not record["warmup"]:
            blocks[key_of(record)].append({**record, "start": start})
        elif record["kind"] == "phases":
            parts[key_of(record)].append(record)
    blocks = {key: found for key, found in blocks.items() if found}
    flops = model.get("flops_per_sample")
    everything = [block for found in blocks.values() for block in found]
    return WorkSummary(
        workload.model,
        workload.precision,
        workload.batch,
        parameters=model.get("parameters"),
        flops_per_sample=flops,
        steps=everything[0]["steps"],
        block_seconds=Spread.of([block["seconds"] for block in everything]),
        modes=tuple(_mode(key, blocks, parts[key], setups, flops) for key in blocks),
        apart=_apart(everything),
        others_cores=spread_of_others(everything),
    )


def _mode(
    key: Key,
    blocks: Mapping[Key, Sequence[Record]],
    parts: Sequence[Record],
    setups: Mapping[Key, Record],
    flops: float | None,
) -> ModeSummary:
    mine, setup = blocks[key], setups[key]
    base, start = compared_with(key, blocks), scaled_from(key, blocks)
    pairs = _pairs(mine, blocks[base]) if base else []
    scaled = _pairs(mine, blocks[start]) if start else []
    quiet = [pair for pair in pairs if all((others_cores(b) or 0.0) < QUIET for b in pair)]
    speedup = _ratio(scaled)
    rate = Spread.of([b["samples_per_s"] for b in mine])
    achieved = None if flops is None else flops * rate.median
    peak = peak_flops(setup["device"], setup["precision"])
    step_ms, slow_step_ms = middle_and_slow([b["step_ms"] for b in mine])
    return ModeSummary(
        *key,
        ranks=setup["ranks"],
        threads=setup["threads"],
        device=setup["device"],
        global_batch_size=setup["global_batch_size"],
        samples_per_s=rate,
        step_ms=step_ms,
        slow_step_ms=slow_step_ms,
        cores_used=median(b["cpu_seconds"] / b["seconds"] for b in mine),
        parts_ms=_parts(parts),
        timed_steps=sum(record["steps"] for record in parts),
        memory=_memory(mine),
        flops_per_s=achieved,
        utilisation=None if achieved is None or peak is None else achieved / (peak * key[1]),
        compared_with=label(*base) if base else "",
        ratio=_ratio(pairs),
        apart=_apart([block for pair in pairs for block in pair]),
        quiet_ratio=_ratio(quiet),
        scaled_from=label(*start) if start and speedup else "",
        speedup=speedup,
        scaled_apart=_apart([block for pair in scaled for block in pair]),
        efficiency=speedup.median * start[1] / key[1] if start and speedup else None,
    )


def compared_with(key: Key, keys: Iterable[Key]) -> Key | None:
    """The mode that another is compared with: of those with the same shares DataParallel, else one process, else the
    first; None where that is itself.
    """
    same = [other for other in keys if other[1] == key[1]]
    base = next((other for name in BASELINES for other in same if other[0] == name), same[0])
    return None if base == key else base


def scaled_from(key: Key, keys: Iterable[Key]) -> Key | None:
    """The mode that shows how another scales: of one share the same strategy, else one process, else the same
    strategy with the fewest shares; None where that is itself.
    """
    strategy, nproc = key
    there = list(keys)
    own = min(k[1] for k in there if k[0] == strategy)
    found = (strategy, own) if own == 1 else next((k for k in there if k[0] == "single"), (strategy, own))
    return found if found[1] < nproc else None


def _pairs(mine: Sequence[Record], others: Sequence[Record]) -> list[tuple[Record, Record]]:
    theirs = {b["round"]: b for b in others}
    return [(b, theirs[b["round"]]) for b in mine if b["round"] in theirs]


def _ratio(pairs: list[tuple[Record, Record]]) -> Spread | None:
    return Spread.of([mine["samples_per_s"] / base["samples_per_s"] for mine, base in pairs]) if pairs else None


def _apart(blocks: Sequence[Record]) -> bool:
    """Whether those of a round are of several starts."""
    return len({(b["round"], b["start"]) for b in blocks}) > len({b["round"] for b in blocks})


def _parts(records: Sequence[Record]) -> dict[str, Spread]:
    names = dict.fromkeys(name for record in records for name in record["parts"])
    return {name: Spread.of([record["parts"].get(name, 0.0) for record in records]) for name in names}


def _memory(blocks: Sequence[Record]) -> Memory:
    def most(name: str) -> float | None:
        found = [b[name] for b in blocks if name in b]
        return max(found) if found else None

    return Memory(
        max(b["rss_mib"]["most"] for b in blocks),
        max(b["rss_mib"]["sum"] for b in blocks),
        most("gpu_allocated_mib"),
        most("gpu_reserved_mib"),
    )


def key_of(record: Record) -> Key:
    """The mode that a record belongs to, on its workload."""
    return record["strategy"], record["nproc"]
