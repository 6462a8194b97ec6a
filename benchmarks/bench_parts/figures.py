"""What a report draws, as values. Pure; `plots` makes pictures of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .statistics import Paired, Spread

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Value:
    """A median, and the quartiles or the interval around it where there is one."""

    median: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, spread: Spread) -> Value:
        """The same, with quartiles where it has them."""
        return cls(spread.median, spread.low, spread.high)

    @classmethod
    def paired(cls, paired: Paired) -> Value:
        """The median, with its 95 % interval where it has one."""
        return cls(paired.spread.median, paired.low, paired.high)


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars: a group a category, a bar a series."""

    name: str
    """The stem of its file."""
    title: str
    unit: str
    categories: tuple[str, ...]
    series: tuple[tuple[str, tuple[Value | None, ...]], ...]
    """Name -> a value a category; None where there is none."""
    better: Better = ""
    baseline: float | None = None
    """A value at which a line is drawn."""

    def __post_init__(self) -> None:
        for name, values in self.series:
            if len(values) != len(self.categories):
                raise ValueError(f"{self.name}: {name} has {len(values)} values for {len(self.categories)} categories")


@dataclass(frozen=True)
class Lines:
    """Lines over a number, such as samples/s over ranks."""

    name: str
    """The stem of its file."""
    title: str
    x: str
    """What is on this axis, with its unit."""
    y: str
    series: tuple[tuple[str, tuple[tuple[float, Value], ...]], ...]
    """Name -> points, by x."""
    log_x: bool = False
    """Ticks at powers of two."""
    log_y: bool = False
    ideal: tuple[tuple[float, float], ...] = ()
    """A dashed line to compare with, such as that of perfect scaling."""


@dataclass(frozen=True)
class Stacks:
    """A horizontal bar a category, of parts that add up, such as the phases of a step."""

    name: str
    """The stem of its file."""
    title: str
    unit: str
    categories: tuple[str, ...]
    parts: tuple[tuple[str, tuple[float, ...]], ...]
    """Name -> a part of each category."""

    def __post_init__(self) -> None:
        for name, values in self.parts:
            if len(values) != len(self.categories):
                raise ValueError(f"{self.name}: {name} has {len(values)} values for {len(self.categories)} categories")


Figure: TypeAlias = Bars | Lines | Stacks
