"""Interleaving: a round does each thing once, in an order that turns from round to round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

Done = Callable[[str, str, int], bool]
"""Whether an interrupted run has the record of this kind, of this command or kind of ranks, and of this round."""


def turns(things: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """(round, thing); round -1 only warms the file cache."""
    for number in range(-1, rounds):
        first = (number + 1) % len(things)
        for thing in (*things[first:], *things[:first]):
            yield number, thing
