"""No memory, or any other surprise, on one rank alone: every rank raises, and none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from dist_toolkit.checkpoint import plan, restore
from dist_toolkit.checkpoint.staging import Staging
from dist_toolkit.errors import PeerError
from tests.faults.program import Body, End, Program, found, results, run
from tests.faults.storage import Fault

WORDS = "DefaultCPUAllocator: not enough memory: you tried to allocate 80000 bytes"


def restoring(program: Program) -> Any:
    program.fill(77.0)
    program.ckpt.restore()


def saving(program: Program) -> Any:
    program.save(3, 30.0)


def in_background(program: Program) -> Any:
    program.save(3, 30.0, wait=False)
    program.ckpt.wait()


def told(program: Program, body: Body) -> str:
    """What `body` raised."""
    try:
        body(program)
    except (PeerError, MemoryError, RuntimeError) as error:
        installed = program.numbers.rate not in (77.0, 30.0)
        return f"{type(error).__name__}: {error}{' and something was installed' * installed}"
    return ""


def check(ends: list[End], rank: int, about: str, words: str = WORDS) -> bool:
    """Whether the ranks were told, all of them, of `rank`; the rank itself may raise its own error."""
    assert [end.error for end in ends] == [None] * len(ends), about
    if not any(end.value for end in ends):
        return False
    for number, end in enumerate(ends):
        assert words in end.value, about
        assert "installed" not in end.value, about
        if number != rank:
            assert f"rank {rank}: " in end.value, about
    return True


@pytest.mark.parametrize("body", [restoring, saving, in_background])
@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_a_surprise_at_every_operation(tmp_path: Path, body: Body, kind: type[Exception]) -> None:
    """And the same program can do the same again."""
    root = tmp_path / "ckpt"
    results(root, lambda program: [program.save(1, 10.0), program.save(2, 20.0)], 2)

    def twice(program: Program) -> str:
        first = told(program, body)
        body(program)
        return first

    _, storages = run(root, body, 2)
    counts, heard = [len(storage.visited) for storage in storages], 0
    for rank, count in enumerate(counts):
        for at in range(count - (rank == 0 and body is not restoring)):  # the last gives the lock back
            ends, storages = run(root, twice, 2, {rank: Fault(at, "before", kind(WORDS))})
            heard += check(ends, rank, f"rank {rank} {storages[rank].visited[at]}: {ends}")
    assert heard > sum(counts) // 2
    assert found(root, 2) == ((2, 20.0) if body is restoring else (3, 30.0))


PLACES: dict[str, tuple[Body, Any, str]] = {
    "templates": (restoring, torch, "empty"),
    "listing the records": (restoring, restore, "glance"),
    "reading the record": (restoring, restore, "decode_whole"),
    "opening files": (restoring, restore, "open_file"),
    "reading": (restoring, restore, "read_tensors"),
    "verifying": (restoring, restore, "verify_chunks"),
    "planning": (saving, plan, "share_out"),
    "copying": (in_background, Staging, "hold"),
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", PLACES)
def test_no_memory_at(tmp_path: Path, place: str, rank: int) -> None:
    """A function fails in the threads of one rank."""
    body, holder, name = PLACES[place]
    results(tmp_path, lambda program: program.save(1, 10.0), 2)
    original: Callable[..., Any] = getattr(holder, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread().name == f"rank {rank}":
            raise RuntimeError(WORDS)
        return original(*args, **kwargs)

    with patch.object(holder, name, fail):
        ends, _ = run(tmp_path, lambda program: told(program, body), 2)
    reached = (place, rank) != ("listing the records", 1)
    assert check(ends, rank, f"{place}: {ends}") == reached
    assert found(tmp_path, 2) == ((1, 10.0) if reached or body is restoring else (3, 30.0))
