"""How long a run may go without a step before somebody should look: learned from its own steps. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from dtk_launch.hanging import FIRST, FLOOR

ENOUGH = 3
"""Steps until there is a usual one."""
_STEPS, _PAUSES = 30, 3  # auto: this many times a usual step, and the longest pause so far
_SHORTEST_PATIENCE = 30.0  # seconds, where the user gave a timeout
_KEPT = 64  # steps of which the usual one is taken

Beats = Mapping[Any, tuple[int, int]]
"""Process -> (steps so far, monotonic ns of the last), (0, 0) before the first."""


class Pace:
    """The steps of the ranks of one node."""

    def __init__(self, timeout: float | None, began_ns: int) -> None:
        """`timeout`: seconds without a step, None to learn it; `began_ns`: monotonic, when there was no rank yet."""
        self._timeout = timeout
        self._last: dict[Any, tuple[int, int]] = {}
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._moved_ns = began_ns
        self._pause = 0.0
        self._looked_ns = began_ns
        self.steps = 0
        """Of the rank that has made most."""

    def observe(self, beats: Beats, now_ns: int) -> None:
        """What the ranks' pages show now. A rank that has come or gone counts as a sign of life."""
        before = self._moved_ns
        if self._last.keys() != beats.keys():
            self._moved_ns = now_ns
        for process, (steps, when_ns) in beats.items():
            old_steps, old_ns = self._last.get(process, (0, 0))
            if steps != old_steps:
                self._moved_ns = max(self._moved_ns, when_ns)
            if 0 < old_steps < steps:
                self._seconds.append((when_ns - old_ns) / 1e9 / (steps - old_steps))
            elif steps > 1 and process in self._last and old_steps == 0:  # all of them since the last look: at most
                self._seconds.append((when_ns - self._looked_ns) / 1e9 / (steps - 1))
        self.steps = max((steps for steps, _ in beats.values()), default=0)
        if self._moved_ns > before and self.steps > ENOUGH:
            self._pause = max(self._pause, (self._moved_ns - before) / 1e9)
        self._last, self._looked_ns = dict(beats), now_ns

    def silent(self, now_ns: int) -> float:
        """Seconds since any rank made a step, started or ended."""
        return max(0.0, (now_ns - self._moved_ns) / 1e9)

    @property
    def step(self) -> float | None:
        """Seconds of a usual step; None before there were enough."""
        return median(self._seconds) if self.steps >= ENOUGH and self._seconds else None

    @property
    def timeout(self) -> float:
        """Seconds of silence after which to look."""
        if self._timeout is not None:
            return self._timeout
        if self.step is None:
            return FIRST
        return max(FLOOR, _STEPS * self.step, _PAUSES * self._pause)

    @property
    def patience(self) -> float:
        """Seconds of silence after which a rank that computes without going anywhere is named, too."""
        return max(_SHORTEST_PATIENCE if self._timeout is not None else FIRST, 5 * self.timeout)
