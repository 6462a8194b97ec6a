"""Batches on their way to the device while the one before is computed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch

from dist_toolkit.data.feeds import Ready
from dist_toolkit.tensors import map_tensors


class Transfer(Protocol):
    """Moves a batch in two halves, so that something else can happen between them."""

    def start(self, batch: Any) -> Any:
        """Begin; returns at once."""
        ...

    def finish(self, started: Any) -> Any:
        """The batch, safe to compute on."""
        ...


class _OnTheWay(NamedTuple):
    batch: Any
    arrived: Any


class SideStream:
    """Copies to a CUDA device on a stream of its own; pinned memory makes the copies run beside the computation."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, batch: Any) -> Any:
        """Begin to copy every tensor of the batch."""
        with torch.cuda.stream(self._stream):
            moved = map_tensors(batch, lambda tensor: tensor.to(self._device, non_blocking=True))
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        return _OnTheWay(moved, arrived)

    def finish(self, started: _OnTheWay) -> Any:
        """Have the current stream wait for the copies, and their memory wait for the current stream."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(started.arrived)

        def in_use(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.device.type == "cuda":
                tensor.record_stream(current)
            return tensor

        return map_tensors(started.batch, in_use)


def one_ahead(batches: Iterator[Ready], transfer: Transfer) -> Iterator[Ready]:
    """The batches, each handed out when the transfer of the next one has begun.

    A batch keeps its position and weight on the way, so what was begun but not handed out does not count.
    """
    waiting: Ready | None = None
    for ready in batches:
        started = ready._replace(batch=transfer.start(ready.batch))
        if waiting is not None:
            yield waiting._replace(batch=transfer.finish(waiting.batch))
        waiting = started
    if waiting is not None:
        yield waiting._replace(batch=transfer.finish(waiting.batch))
