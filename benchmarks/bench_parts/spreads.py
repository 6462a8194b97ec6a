"""How far the rounds lie apart, in words; of too few of them, how many there were. Pure."""

from __future__ import annotations

from collections.abc import Callable

from .markdown import count
from .statistics import Paired, Spread

Form = Callable[[float], str]
"""How a number is written."""


def quartiles(spread: Spread, form: Form = "{:.2f}".format, of: str = "round") -> str:
    """`0.98 to 1.02`; of a single one, `1 round`."""
    return _between(spread.low, spread.high, spread.count, form, of)


def interval(paired: Paired, form: Form = "{:.2f}".format) -> str:
    """The 95 % interval of the median, `0.98 to 1.02`; of too few rounds for one, `3 rounds`."""
    return _between(paired.low, paired.high, paired.spread.count, form, "round")


def _between(low: float | None, high: float | None, number: int, form: Form, of: str) -> str:
    return count(number, of) if low is None or high is None else f"{form(low)} to {form(high)}"
