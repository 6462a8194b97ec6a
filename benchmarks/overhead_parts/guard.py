"""What the desync guard costs a step, alone: finer than any difference between two training loops."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import dist_toolkit as dtk

_STEPS, _BLOCKS = 200, 25


def cost_alone(rank: int, device: str) -> dict[str, Any]:
    """Seconds of the three records of a training step (forward, backward, step), the median of some blocks.

    Collective. What a loop without a guard does in its place, about a microsecond, is not subtracted.
    """
    with dtk.init(device=device, desync_guard=True) as rt:
        group = rt.group
        found = []
        for _ in range(_BLOCKS):
            start = time.perf_counter()
            for _ in range(_STEPS):
                with group.watched("engine forward"):
                    pass
                with group.watched("engine backward"):
                    pass
                with group.watched("engine step"):
                    pass
            found.append((time.perf_counter() - start) / _STEPS)
            rt.group.barrier()
    return {"kind": "guard", "rank": rank, "seconds": median(found)}
