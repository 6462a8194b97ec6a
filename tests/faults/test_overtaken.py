"""A start of a job that SLURM takes for dead, and that is not: the next start overtakes it, at every operation it does.

Whatever the earlier one still does, what the later one has saved is the newest, and whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.errors import DistToolkitError
from dist_toolkit.group import SoloGroup
from dist_toolkit.storage import LocalStorage, lock
from dist_toolkit.world import World
from tests.faults.program import Program, found, results
from tests.faults.storage import FaultyStorage


@pytest.fixture(autouse=True)
def without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about the disk's cache."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@contextlib.contextmanager
def start(number: int, held: dict[str, lock._Claim]) -> Iterator[None]:
    """Be the process that holds these locks, in this start of the job. The others live."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "_held", held)
        patch.setattr(lock, "_try_lock", lambda fd, path: os.pread(fd, 1000, 0).decode() or None)
        patch.setenv("SLURM_JOB_ID", "12")
        patch.setenv("SLURM_RESTART_COUNT", str(number))
        yield


class Overtaken(FaultyStorage):
    """Calls `overtake` once, before operation number `at` from when it is armed."""

    at, overtake = -1, staticmethod(lambda: None)

    def arm(self, at: int, overtake: Callable[[], None]) -> None:
        self.visited.clear()
        self.at, self.overtake = at, overtake

    def _arrive(self, words: str) -> bool:
        if len(self.visited) == self.at:
            self.overtake()
        return super()._arrive(words)


def running(root: Path) -> Program:
    """A program that has the directory, and has restored from it."""
    storage = Overtaken(LocalStorage(root))
    made = Program(storage, SoloGroup(World(), torch.device("cpu")), size=8, retention=Retention(keep_last=2))
    assert storage.claim("this one", 0.0) is None
    made.ckpt._has_claim = True
    assert made.restore() is not None
    return made


def train(of: Program) -> None:
    """Two more steps, each saved, with numbers that tell whose they are."""
    for step, _ in of.ckpt.steps([0] * 9, until=of.ckpt.step + 2):
        of.fill(step * 10.0)


def overtaken(root: Path, at: int, when: str) -> tuple[list[Program], str, bool]:
    """(who has overtaken, before which operation, whether the one that was overtaken failed)."""
    successors: list[Program] = []
    locks: dict[str, lock._Claim] = {}
    results(root, lambda of: [of.save(step, step * 10.0) for step in (2, 3)], size=8)

    def overtake() -> None:
        with start(1, locks):
            successors.append(running(root))
        if when == "after its saves":
            succeed()

    def succeed() -> None:
        with start(1, locks):
            step = successors[0].ckpt.step + 1
            successors[0].save(step, step * 1000.0)
            successors[0].save(step + 1, step * 1000.0 + 1)

    with start(0, {}):
        earlier = running(root)
        earlier.storage.arm(at, overtake)
        failed = False
        try:
            train(earlier)
        except DistToolkitError:
            failed = True
        with contextlib.suppress(OSError):
            earlier.ckpt.close(failed=True)
    if successors and when == "before its first save":
        succeed()
    for each in successors:
        with start(1, locks):
            each.ckpt.close()
    return successors, (earlier.storage.visited[at:] or ["nothing"])[0], failed


@pytest.mark.parametrize("when", ["before its first save", "after its saves"])
def test_the_earlier_start_never_takes_the_place_of_what_the_later_one_saves(tmp_path: Path, when: str) -> None:
    at, outcomes = 0, set()
    while True:
        root = tmp_path / str(at)
        successors, operation, failed = overtaken(root, at, when)
        if not successors:
            assert not failed
            break
        step = successors[0].ckpt.step
        assert found(root, size=8) == (step, (step - 1) * 1000.0 + 1), f"before operation {at}, {operation}"
        outcomes.add(failed)
        at += 1
    assert at > 20
    assert outcomes == {True, False}, "some came before its last commit, and some after"
