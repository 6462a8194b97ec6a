"""When the loop saves: at fixed steps, or as often as loses least. All ranks get the same answers."""

from __future__ import annotations

import logging
import time
from statistics import median
from typing import Literal

from dist_toolkit.checkpoint.interval import FIRST, Interval, choose
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group

_LOG = logging.getLogger("dist_toolkit")
_KEPT = 50  # steps, of whose times the median counts


class Schedule:
    """The saves of `Checkpointer.steps`."""

    def __init__(self, every: int | Literal["auto"] | None, failures_per_day: float | None = None) -> None:
        """
        Args:
            every: steps; `auto`: find out; None: never before the end.
            failures_per_day: of the whole run, for `auto` (default: 1).

        Raises:
            ConfigError: out of range, or a failure rate without `auto`.
        """
        if every not in (None, "auto") and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ConfigError(f"every={every!r} is not a positive number of steps; pass one, or every='auto'")
        if failures_per_day is not None and every != "auto":
            raise ConfigError(f"failures_per_day={failures_per_day} is for every='auto', and every is {every!r}")
        rate = 1.0 if failures_per_day is None else failures_per_day
        if not 0 < rate < float("inf"):
            raise ConfigError(f"failures_per_day={failures_per_day} is not a positive number")
        self._every, self._rate = every, rate
        self._next: int | None = None
        self._found: Interval | None = None
        self._times: list[float] = []
        self._since: float | None = None
        self._duration = 0.0

    def start(self, step: int) -> None:
        """The loop begins after `step`."""
        self._since = time.monotonic()
        self._next = step + FIRST if self._every == "auto" else None

    def stepped(self) -> None:
        """A step has ended."""
        now = time.monotonic()
        if self._since is not None:
            self._times = [*self._times[-_KEPT + 1 :], now - self._since]
        self._since = now

    def is_due(self, step: int) -> bool:
        """Whether to save after `step`."""
        if self._every == "auto":
            return self._next is not None and step >= self._next
        return self._every is not None and step % self._every == 0

    @property
    def needs_duration(self) -> bool:
        """Whether the interval is to be found and it is not known yet how long a save takes."""
        return self._every == "auto" and self._duration == 0.0

    def took(self, seconds: float) -> None:
        """A save in the background took so long."""
        self._duration = seconds

    def saved(self, step: int, stall: float, group: Group) -> None:
        """The state of `step` was saved, and training waited for `stall` seconds. Collective with `auto`."""
        self._since = time.monotonic()  # the next step's time does not hold this save's
        if self._every != "auto":
            return
        steps = 0
        if group.world.is_main and self._times:
            found = choose(median(self._times), stall, max(stall, self._duration), self._rate)
            if self._found is None or not 0.8 < found.steps / self._found.steps < 1.25:
                _LOG.info("%s", found.words)
                self._found = found
            steps = self._found.steps
        self._next = step + max(1, int(group.broadcast_json(steps)))
