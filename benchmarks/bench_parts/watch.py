"""How busy other programs keep the cores while the driver's own processes work, as the driver sees it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .machine import busy_core_seconds


@contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """`seconds` and `others_cpu_seconds` of the body, there after it; the latter is None off Linux.

    Others are all but this process and what it has started. A process whose parent ended without waiting for it counts
    as another from then on.
    """
    seen: dict[str, Any] = {}
    busy, own, start = busy_core_seconds(), own_cpu_seconds(), time.perf_counter()
    yield seen
    seconds = time.perf_counter() - start
    after, own = busy_core_seconds(), own_cpu_seconds() - own
    others = None if busy is None or after is None else round(max(0.0, after - busy - own), 3)
    seen |= {"seconds": round(seconds, 6), "others_cpu_seconds": others}


def own_cpu_seconds() -> float:
    """Used by this process, by those it has waited for, and by all that it has started and that live."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    waited = sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
    return waited + sum(map(_cpu_seconds, _descendants(os.getpid())))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            found += map(int, children.read_text().split())
    return [*found, *(each for child in found for each in _descendants(child))]


def _cpu_seconds(pid: int) -> float:
    """Of a process and of those it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
