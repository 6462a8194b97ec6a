"""How busy other programs kept the cores while something was measured, and in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .records import Record, Records
from .statistics import QUIET, Spread

UNKNOWN = "How busy other programs kept the cores was not recorded."


@dataclass(frozen=True)
class Others:
    """Cores that other programs kept busy: over rounds, or whatever has a name."""

    median: float
    low: float | None
    high: float | None
    """Quartiles; None of a single one."""
    count: int
    worst: float
    worst_at: str
    """Where that was: `round 3`."""
    busy: int
    """Of `count`, those in which they took enough to change a number: QUIET or more."""

    @classmethod
    def of(cls, cores: Mapping[str, float]) -> Others | None:
        """From name -> cores; None of nothing."""
        if not cores:
            return None
        spread, worst = Spread.of(list(cores.values())), max(cores, key=cores.__getitem__)
        busy = sum(found >= QUIET for found in cores.values())
        return cls(spread.median, spread.low, spread.high, spread.count, cores[worst], worst, busy)

    @classmethod
    def by_round(cls, blocks: Records) -> Others | None:
        """From records with `round`, `seconds` and `others_cpu_seconds`; None where it could not be seen.

        Those of a round are added up: the system counts in ticks of 10 ms, too coarse for a short block.
        """
        return cls.of({f"round {number}": cores for number, cores in cores_by_round(blocks).items()})

    @property
    def matter(self) -> bool:
        """Whether they did so at least once."""
        return self.busy > 0

    def words(self, among: str = "round") -> str:
        """`0.08 cores busy in the median round, 1.92 in the worst (round 17)`."""
        median = f"{self.median:.2f} cores busy in the median {among}"
        return f"{median}, {self.worst:.2f} in the worst ({self.worst_at})" if self.count > 1 else median


def cores_by_round(blocks: Records) -> dict[int, float]:
    """Round -> cores that others kept busy, of rounds in which it could be seen."""
    sums: dict[int, tuple[float, float]] = {}
    for block in (block for block in blocks if block["others_cpu_seconds"] is not None):
        used, seconds = sums.get(block["round"], (0.0, 0.0))
        sums[block["round"]] = used + block["others_cpu_seconds"], seconds + block["seconds"]
    return {number: used / seconds for number, (used, seconds) in sorted(sums.items()) if seconds > 0}


def threads_in_words(records: Records) -> str:
    """The records' `threads`, by their `command` where they differ: `1`, or `1 (torchrun) and 2 (dtk launch)`."""
    found: dict[int | None, dict[str, None]] = {}
    for record in records:
        if "threads" in record:
            found.setdefault(record["threads"], {})[_of(record)] = None
    if len(found) < 2:
        return "".join(map(_number, found))
    return " and ".join(f"{_number(threads)} ({', '.join(names)})" for threads, names in found.items())


def _of(record: Record) -> str:
    return f"`{record['command']}`" if "command" in record else ""


def _number(threads: int | None) -> str:
    return "unset" if threads is None else str(threads)
