"""What is done, as the options say it: numbers of two runs can be compared where that is the same. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .quantities import Quantity

Name = tuple[str, ...]


def _of_all(name: Name) -> bool:
    return True


def _itself(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Work:
    """An option that says what is done. One that says how often or how long it is looked at is none, nor is one whose
    value is in the names of the numbers."""

    option: str
    of: Callable[[Name], bool] = _of_all
    """Of which numbers, by their names."""
    counts: Callable[[Any], Any] = _itself
    """What of its value counts; of None too, which is that of an older result that does not have it."""


def with_work(quantities: Iterable[Quantity], options: Mapping[str, Any], work: Iterable[Work]) -> list[Quantity]:
    """The same, and of each what was done.

    Args:
        options: of the run.
        work: which of them count.
    """
    work = tuple(work)
    return [
        replace(each, work={one.option: one.counts(options.get(one.option)) for one in work if one.of(each.name)})
        for each in quantities
    ]
