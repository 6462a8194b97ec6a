"""Who runs when: the strategies take turns in blocks of equally many steps, in an order that rotates each round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, Protocol, TypeVar

_MAX_STEPS = 1_000_000
_T = TypeVar("_T")


class Mode(Protocol):
    """A strategy that is ready to train and waits."""

    strategy: str

    def train(self, steps: int) -> dict[str, Any]:
        """Train this many steps; `samples`, `seconds` and what else was seen."""


def calibrate(modes: Sequence[Mode], block_seconds: float) -> int:
    """The number of steps that takes about `block_seconds`, averaged over the modes, which all train equally many."""
    for mode in modes:
        mode.train(1)  # the first step allocates and is no measure
    steps = 1
    while True:
        mean = fmean(mode.train(steps)["seconds"] for mode in modes)
        if mean >= block_seconds / 4 or steps >= _MAX_STEPS:
            return max(1, min(_MAX_STEPS, round(steps * block_seconds / mean)))
        steps = min(steps * 8, max(steps * 2, math.ceil(steps * block_seconds / 2 / mean)))


def measure(modes: Sequence[Mode], model: str, steps: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One record a block. Round 0 is a warm-up, which the summary leaves out."""
    for number in range(rounds + 1):
        for position, mode in enumerate(rotated(modes, number)):
            seen = mode.train(steps)
            yield {
                "kind": "block",
                "model": model,
                "strategy": mode.strategy,
                "round": number,
                "warmup": number == 0,
                "position": position,
                "steps": steps,
                **seen,
                "samples_per_s": round(seen["samples"] / seen["seconds"], 2),
            }


def rotated(items: Sequence[_T], by: int) -> list[_T]:
    """The items in turn, starting with number `by` (modulo their number)."""
    start = by % len(items)
    return [*items[start:], *items[:start]]
