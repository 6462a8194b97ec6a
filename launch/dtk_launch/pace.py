"""How fast ranks step, and which of them is slow or late. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median_high

WINDOW_NS = 30_000_000_000
"""Steps per second are those of the last 30 s, or of the last two steps where these took longer."""
SLOWER = 1.5
"""A rank is a straggler when the median rank makes more than this many steps while it makes one."""
LATE_STEPS, LATE_SECONDS = 5, 10.0
"""A rank is late when its last step is longer ago than this many steps take, and than this many seconds."""


class Pace:
    """The steps of one rank as they are seen from time to time."""

    def __init__(self) -> None:
        self._beats: deque[tuple[int, int]] = deque()

    def note(self, steps: int, when_ns: int) -> None:
        """The rank has done `steps` steps in all, the last of them at `when_ns`."""
        if steps == 0 or (self._beats and self._beats[-1][1] == steps):
            return
        self._beats.append((when_ns, steps))
        while len(self._beats) > 2 and self._beats[1][0] <= when_ns - WINDOW_NS:
            self._beats.popleft()

    def rate(self) -> float | None:
        """Steps per second between the first and the last step that count; None before there are two."""
        if len(self._beats) < 2:
            return None
        (first_ns, first), (last_ns, last) = self._beats[0], self._beats[-1]
        return (last - first) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else None


def present_rate(rate: float | None, since: float | None) -> float | None:
    """The rate of a rank whose last step ended `since` seconds ago: a longer wait than usual counts at once."""
    if rate is None or since is None or since <= 0:
        return rate
    return min(rate, 1 / since)


def slow(rates: Mapping[int, float | None]) -> dict[int, float]:
    """The stragglers: rank -> how many steps the median rank makes while it makes one (infinite: it makes none)."""
    known = {rank: rate for rank, rate in rates.items() if rate is not None}
    if len(known) < 2:
        return {}
    median = median_high(known.values())
    return {rank: median / rate if rate > 0 else float("inf") for rank, rate in known.items() if rate * SLOWER < median}


def late(rate: float | None, since: float | None) -> bool:
    """Whether the last step of a rank that makes `rate` steps a second is suspiciously long ago."""
    if since is None or rate is None:
        return False
    return since > LATE_SECONDS and since * rate > LATE_STEPS
