"""Interleaving: a round does each thing once, in an order that turns from round to round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

Done = Callable[[str, str, int], bool]
"""Whether an interrupted run has the record of this kind, of this command or kind of ranks, and of this round."""


def turns(things: Sequence[T], rounds: int) -> Iterator[tuple[int, Sequence[T]]]:
    """(round, things in its order); round 0 only warms the file cache."""
    for number in range(rounds + 1):
        first = number % len(things)
        yield number, (*things[first:], *things[:first])
