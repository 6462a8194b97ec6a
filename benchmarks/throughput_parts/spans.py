"""How long each part of a step takes, by a clock that fits the device. In ranks.

On a CPU operations are over when they return, so the host's clock does. On a GPU they are queued, so each mark is an
event in the stream that computes, and nothing waits for it: a part lasts from its first to its last operation there,
and a wait of that stream for another (for a reduction) counts where it happens. A process with several GPUs
(DataParallel) has no one stream: there each mark waits for all of them, which keeps the parts from overlapping.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks in time."""

    def mark(self) -> Any:
        """Now."""

    def milliseconds(self, first: Any, last: Any) -> float:
        """Between two marks, after `settle`."""

    def settle(self) -> None:
        """Wait until every mark has happened."""


class HostClock:
    """Of the host, once the devices have done all that was queued."""

    def __init__(self, gpus: Sequence[int] = ()) -> None:
        self._gpus = gpus

    def mark(self) -> float:
        """Now, in seconds."""
        self.settle()
        return time.perf_counter()

    def milliseconds(self, first: float, last: float) -> float:
        """Between two marks."""
        return 1000 * (last - first)

    def settle(self) -> None:
        """Wait for the devices."""
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)


class StreamClock:
    """Of the stream that computes on one GPU."""

    def __init__(self, gpu: int) -> None:
        self._gpu = gpu

    def mark(self) -> Any:
        """An event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._gpu))
        return event

    def milliseconds(self, first: Any, last: Any) -> float:
        """Between two events that have happened."""
        elapsed: float = first.elapsed_time(last)
        return elapsed

    def settle(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize(self._gpu)


def clock_for(gpus: Sequence[int]) -> Clock:
    """The clock of a process that computes on these GPUs; none: on the CPU."""
    return StreamClock(gpus[0]) if len(gpus) == 1 else HostClock(gpus)


class Spans:
    """The parts of steps, each without the parts within it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: list[str] = []
        self._seen: list[tuple[str, str, Any, Any]] = []

    @property
    def current(self) -> str:
        """The innermost part that is open; '' outside."""
        return self._open[-1] if self._open else ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The body is part `name` of the step, and not of what is around it."""
        around = self.current
        self._open.append(name)
        first = self._clock.mark()
        try:
            yield
        finally:
            self._seen.append((name, around, first, self._clock.mark()))
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Milliseconds of each part since the last call. Waits for the device."""
        self._clock.settle()
        found: dict[str, float] = defaultdict(float)
        for name, around, first, last in self._seen:
            elapsed = self._clock.milliseconds(first, last)
            found[name] += elapsed
            if around:
                found[around] -= elapsed
        self._seen.clear()
        return dict(found)
