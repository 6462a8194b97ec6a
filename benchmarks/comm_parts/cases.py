"""What is measured, and in which order it takes turns. Pure: driver and ranks come to the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """An operation of a backend, among these ranks, of this size in bytes."""

    backend: str
    scope: str
    operation: str
    size: int


def scopes(nodes: int, nproc: int) -> tuple[str, ...]:
    """Among which ranks: those of a node (on all nodes at once), all of them, or both in turn."""
    if nodes == 1:
        return ("within",)
    return ("across",) if nproc == 1 else ("within", "across")


def all_cases(
    backends: Sequence[str], nodes: int, nproc: int, operations: Sequence[str], sizes: Sequence[int]
) -> list[Case]:
    """Every combination, in the order of the report."""
    return [
        Case(backend, scope, operation, size)
        for backend in backends
        for scope in scopes(nodes, nproc)
        for operation in operations
        for size in sizes
    ]


def turns(cases: Sequence[Case], rounds: int, seed: int) -> Iterator[tuple[int, Case]]:
    """(round, case) from round 1: every case once a round, in an order that is drawn anew in each."""
    for number in range(1, rounds + 1):
        order = list(cases)
        random.Random(seed * 1_000_003 + number).shuffle(order)
        yield from ((number, case) for case in order)


def elements(size: int, itemsize: int, ranks: int) -> int:
    """Of a buffer of at most `size` bytes that can be dealt out to all ranks equally, as nccl-tests does."""
    return size // itemsize // ranks * ranks
