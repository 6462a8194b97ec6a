"""What is measured, as values: workloads, and on each the modes that take turns. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import lcm
from typing import Any

from .tables import MODELS, STRATEGIES


@dataclass(frozen=True, order=True)
class Workload:
    """The work that strategies are compared on."""

    model: str
    precision: str
    batch: int
    """Of a step: over all ranks with --scaling strong, of each rank with weak."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Workload:
        """The one that a record belongs to."""
        return cls(record["model"], record["precision"], record["batch"])


@dataclass(frozen=True, order=True)
class Mode:
    """One strategy with so many shares of the machine (GPUs, or a rank's threads), on a workload."""

    workload: Workload
    strategy: str
    nproc: int
    """Shares, which are ranks where it is launched."""
    gpus: int = field(compare=False)
    """0: on the CPU."""
    threads: int = field(compare=False)
    """Of each process."""
    global_batch_size: int = field(compare=False)

    @property
    def processes(self) -> int:
        """That train."""
        return self.nproc if STRATEGIES[self.strategy].launched else 1

    @property
    def label(self) -> str:
        """`ddp x2`: the name of the strategy and its shares."""
        return label(self.strategy, self.nproc)

    @property
    def name(self) -> str:
        """In words and as a file's name: `ddp x2 on mlp fp32 512`."""
        load = self.workload
        return f"{self.label} on {load.model} {load.precision} {load.batch}"

    @property
    def key(self) -> dict[str, Any]:
        """What each of its records says."""
        return {**asdict(self.workload), "strategy": self.strategy, "nproc": self.nproc}


def label(strategy: str, nproc: int) -> str:
    """Of a mode, as reports show it."""
    return f"{strategy} x{nproc}"


def modes_on(
    workload: Workload, strategies: Sequence[str], nprocs: Sequence[int], *, cores: int, gpus: bool, weak: bool
) -> list[Mode]:
    """All modes of a workload.

    The machine is shared out into max(nprocs) equal shares, so that N shares are the same for every strategy: N GPUs,
    or N times the threads of a rank. A strategy of one share is there once, whatever `nprocs` says.
    """
    each = max(1, cores // max(nprocs))
    made = []
    for strategy in strategies:
        spec = STRATEGIES[strategy]
        for nproc in (1,) if spec.one_share else nprocs:
            made.append(
                Mode(
                    workload,
                    strategy,
                    nproc,
                    gpus=0 if not gpus else 1 if spec.launched else nproc,
                    threads=each if spec.launched else each * nproc,
                    global_batch_size=workload.batch * nproc if weak else workload.batch,
                )
            )
    return made


def default_batch(model: str, size: str, nprocs: Sequence[int], weak: bool) -> int:
    """The model's, rounded up so that every number of ranks can share it evenly; with `weak`, of each rank."""
    wanted, unit = MODELS[model].at(size).batch, lcm(*nprocs)
    if weak:
        return max(MODELS[model].least, -(-wanted // max(nprocs)))
    return max(-(-wanted // unit) * unit, MODELS[model].least * unit)


def groups(modes: Sequence[Mode], size: str, gib: float, at_once: int | None) -> Iterator[list[Mode]]:
    """The modes that are alive at once: all of them, or as many as fit into `gib` GiB of memory, or `at_once`."""
    group: list[Mode] = []
    taken = 0.0
    for mode in modes:
        needed = mode.processes * needs_gib(mode, size)
        if group and (taken + needed > gib if at_once is None else len(group) >= at_once):
            yield group
            group, taken = [], 0.0
        group.append(mode)
        taken += needed
    if group:
        yield group


_TORCH_GIB = 0.75
"""Resident in a process that has loaded torch and runs an empty step; shared pages count in each."""
_SHARDED_GIB = 0.15
"""What FSDP and DeepSpeed load besides."""


def needs_gib(mode: Mode, size: str) -> float:
    """About what each process of a mode needs of the machine's memory, in GiB."""
    own = MODELS[mode.workload.model].at(size).gib
    base = _TORCH_GIB + (_SHARDED_GIB if mode.strategy.startswith(("fsdp", "zero")) else 0.0)
    return base + (min(own, 1.0) if mode.gpus else own)  # most of it is on the GPU, where there is one
