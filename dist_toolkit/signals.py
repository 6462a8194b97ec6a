"""Requests to stop: a signal sets a flag, and the ranks agree on the step at which they act on it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch

from dist_toolkit.process_group import Group, Pending

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Asked(NamedTuple):
    """What the ranks have agreed on."""

    stop: bool
    """A signal has come to some rank."""
    trouble: bool
    """Some rank has said so."""


class StopRequest:
    """While entered, SIGTERM and SIGUSR1 ask for a stop instead of ending the process.

    One rank that has seen a signal is enough: the flags are reduced over the ranks in the background of a step and read
    at the next step's end, so all ranks get the same answer at the same step, without waiting for each other.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._seen = False
        self._pending: Pending | None = None
        self._previous: dict[int, Any] = {}

    def poll(self, trouble: bool = False) -> Asked:
        """Whether all ranks are to stop after this step. Collective: call it at the same point of every step.

        Args:
            trouble: something else that one rank knows and all are to hear of in the same way.
        """
        if self._group.world.world_size == 1:
            return Asked(self._seen, trouble)
        with self._group.watched("agreement to stop"):
            agreed = [0, 0] if self._pending is None else self._pending.wait().tolist()
            flags = torch.tensor([self._seen, trouble], dtype=torch.int32)
            self._pending = self._group.start_all_reduce(flags, "max")
        return Asked(*map(bool, agreed))

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._pending is not None and kind is None:
            self._pending.wait()
        self._pending = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
