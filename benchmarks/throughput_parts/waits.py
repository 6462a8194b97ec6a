"""Time that a step waits for collectives, seen where it waits. In ranks.

Every collective that Python calls (FSDP2 and DeepSpeed do, torch's DDP does not: it waits within C++) is called
through here: the functions of torch.distributed, `wait` of what they return, and on GPUs `wait_event` of the stream
that computes. What is passed on in a side stream, while the computing stream goes on, is not waited for and not
counted. A wait for a slower rank is counted: it cannot be told from one for the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from .spans import Spans

PART = "communication"

_COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "reduce", "broadcast", "all_gather", "all_gather_into_tensor",
    "all_gather_single", "_all_gather_base", "reduce_scatter", "reduce_scatter_tensor", "reduce_scatter_single",
    "_reduce_scatter_base", "all_to_all", "all_to_all_single", "barrier",
)  # fmt: skip
_COUNTED = ("forward", "backward", "optimizer")


class Waits:
    """Watches collectives from now on, until the process ends; counts them while it is `spans` that are recorded.

    Make it before DeepSpeed is imported, which keeps some of the functions.
    """

    def __init__(self) -> None:
        self.spans: Spans | None = None
        """Where waits are recorded as parts of the step; None: nowhere."""
        self._stream: Any = None
        self._within = threading.local()
        places: tuple[Any, ...] = (dist, dist.distributed_c10d)
        for name in _COLLECTIVES:
            for place in places:
                if hasattr(place, name):
                    setattr(place, name, self._watched(getattr(place, name)))
        work: Any = dist.Work
        work.wait = self._watched(work.wait)

    def watch_stream(self, gpu: int) -> None:
        """Count only what the stream waits for that computes on this GPU now."""
        self._stream = torch.cuda.current_stream(gpu)
        kind: Any = torch.cuda.Stream
        wait_event = kind.wait_event
        counted = self._watched(wait_event)

        def wait(stream: Any, event: Any) -> None:
            (counted if stream == self._stream else wait_event)(stream, event)

        kind.wait_event = wait

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            spans = self.spans
            if spans is None or spans.current not in _COUNTED or getattr(self._within, "call", False):
                return call(*args, **kwargs)
            if self._stream is not None and torch.cuda.current_stream(self._stream.device) != self._stream:
                return call(*args, **kwargs)
            self._within.call = True
            try:
                with spans.part(PART):
                    return call(*args, **kwargs)
            finally:
                self._within.call = False

        return watched
