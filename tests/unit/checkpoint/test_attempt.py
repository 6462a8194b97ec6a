"""Two programs that save the same step in one object store, in every order: what was not refused is whole."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from dist_toolkit.checkpoint.attempt import Attempt, attempt
from dist_toolkit.checkpoint.catalog import committed_checkpoints, delete
from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import FileEntry, Manifest, digest
from dist_toolkit.errors import CheckpointError
from dist_toolkit.storage import Storage, open_storage

STEP = 7
CALLS = ("pipe_file", "cat_file", "rm_file", "ls", "find")


class Program:
    """A program that saves; it goes on a stage at a time."""

    def __init__(self, place: str, token: str) -> None:
        self.storage: Storage = open_storage(place)
        self.attempt: Attempt = attempt(self.storage, STEP, token * 16)
        self.stages = iter((self.attempt.open, self.write, self.publish))
        self.outcome = ""

    def go_on(self) -> None:
        """The next stage, unless it was refused before."""
        stage = next(self.stages, None)
        if stage is not None and not self.outcome:
            try:
                stage()
            except CheckpointError:
                self.outcome = "refused"

    def write(self) -> None:
        file = self.attempt.file(0)
        self.storage.write_file(self.attempt.path(file), [self.attempt.token.encode()])
        entry = FileEntry(16, 16, digest(self.attempt.token.encode()))
        self.record = Manifest(STEP, 1, "2026-01-02T03:04:05+00:00", self.attempt.token, {file: entry}, {})

    def publish(self) -> None:
        self.attempt.publish(self.record.encode())
        self.outcome = "saved"


class Interrupted:
    """A filesystem before whose requests others may do something."""

    def __init__(self, filesystem: Any, before: Callable[[int], None]) -> None:
        self._filesystem, self._before, self.count = filesystem, before, 0

    def __getattr__(self, name: str) -> Any:
        if name in CALLS:
            self._before(self.count)
            self.count += 1
        return getattr(self._filesystem, name)


def race(moments: tuple[int, ...]) -> tuple[Program, Program, int]:
    """B's three stages begin before these requests of A's; the number of A's requests."""
    place = f"memory://{uuid.uuid4().hex}"
    before = Program(place, "0")
    a, b = Program(place, "a"), Program(place, "b")
    for _ in range(3):
        before.go_on()
    assert before.outcome == "saved"

    def step_in(count: int) -> None:
        for moment in moments:
            if moment == count:
                b.go_on()

    storage: Any = a.storage
    storage._fs = Interrupted(storage._fs, step_in)
    for _ in range(3):
        a.go_on()
    for _ in range(3):
        b.go_on()
    return a, b, storage._fs.count


def test_two_programs_in_every_order() -> None:
    """One order is left: B saves as a whole while A's request with the record is on its way, and that is found."""
    outcomes, lost = set(), set()
    count = race((-1, -1, -1))[2]
    assert count > 8
    for moments in itertools.combinations_with_replacement(range(count + 1), 3):
        a, b, _ = race(moments)
        outcomes.add((a.outcome, b.outcome))
        [entry] = committed_checkpoints(b.storage)
        if "saved" in (a.outcome, b.outcome):
            assert entry.manifest is not None
            [file] = entry.manifest.files
            if file not in b.storage.list(entry.folder):
                lost.add((moments, a.outcome))
                continue
            assert b.storage.read_bytes(f"{entry.folder}/{file}").decode() == entry.manifest.token
            assert (a.outcome if entry.manifest.token == a.attempt.token else b.outcome) == "saved"
    assert {("saved", "saved"), ("refused", "saved")} <= outcomes, f"both kinds of orders were seen: {outcomes}"
    [((first, second, third), outcome)] = lost
    assert first == second == third
    assert outcome == "refused"


def test_a_checkpoint_whose_record_cannot_be_deleted_keeps_its_files() -> None:
    place = f"memory://{uuid.uuid4().hex}"
    program = Program(place, "0")
    for _ in range(3):
        program.go_on()
    storage: Any = program.storage
    names, original, other = list(storage.files()), storage._fs.rm_file, threading.Event()

    def refuse(path: str) -> None:
        if path.endswith(MANIFEST):
            other.wait(0.3)  # time for a deletion beside it, which there must not be
            raise PermissionError("kept by a policy")
        other.set()
        original(path)

    [entry] = committed_checkpoints(storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage._fs, "rm_file", refuse)
        with pytest.raises(PermissionError):
            delete(storage, entry)
    assert list(storage.files()) == names
    delete(storage, entry)
    assert list(storage.files()) == []


def test_a_program_whose_place_was_claimed_by_another_is_refused() -> None:
    place = f"memory://{uuid.uuid4().hex}"
    storage = open_storage(place)
    assert storage.claim("the first", 0.0) is None
    open_storage(place).replace_file(".lock", b"the second\n1234\n")
    assert storage.taken_by() == "the second"
    program = Program(place, "a")
    program.go_on()
    assert program.outcome == "refused"
    storage.release()
    assert storage.read_bytes(".lock").startswith(b"the second"), "it is not ours to delete"
