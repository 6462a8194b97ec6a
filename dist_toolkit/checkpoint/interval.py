"""How often to save: every so many steps, or as often as loses least. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 20
"""Steps before the first save of an interval that is to be found: it measures what a save costs."""


@dataclass(frozen=True)
class Interval:
    """Steps between two saves, and why."""

    steps: int
    words: str = ""


def young_daly(cost: float, between_failures: float) -> float:
    """Seconds of training between two saves that lose least, where a save costs `cost` seconds.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
    Computer Systems 22 (2006), equation 37; its first term is Young's sqrt(2 C M) of 1974.

    Args:
        between_failures: mean time between failures, seconds.
    """
    if cost >= 2 * between_failures:
        return between_failures
    ratio = cost / (2 * between_failures)
    return math.sqrt(2 * cost * between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def choose(step_seconds: float, stall: float, duration: float, failures_per_day: float) -> Interval:
    """The interval to use from now on.

    Args:
        step_seconds: of a training step, saves left out.
        stall: seconds that a save kept training waiting.
        duration: seconds from the start of a save to its commit; the next one does not begin before.
    """
    wanted = young_daly(max(stall, 1e-3), 86400.0 / failures_per_day)
    seconds = max(wanted, duration)
    steps = max(1, round(seconds / step_seconds))
    why = "Young/Daly" if seconds == wanted else "no more often than one save takes"
    return Interval(
        steps,
        f"saving every {steps} steps (about {_time(steps * step_seconds)}): a save keeps training waiting for "
        f"{_time(stall)} and takes {_time(duration)}; at {failures_per_day:g} failures a day this loses least ({why})",
    )


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
