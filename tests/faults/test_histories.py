"""Random histories of a directory: programs that save and are killed or refused anywhere, retention, flipped bits.

After each, what a new program finds is compared with a model that knows only what was committed, and what was struck.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dist_toolkit.checkpoint.layout import replaced_dir, step_dir, temporary_dir
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.errors import AllCheckpointsCorrupt, DistToolkitError
from tests.faults.program import Program, found, run
from tests.faults.storage import Fault

FAULTS = st.one_of(
    st.none(),
    st.builds(
        Fault,
        st.integers(0, 70),
        st.sampled_from(["before", "half", "after"]),
        st.sampled_from([None, None, errno.ENOSPC, errno.EACCES, errno.EIO]),
    ),
)
KEPT = 2


class Directory(RuleBasedStateMachine):
    """One directory of checkpoints, and the model of it.

    Attributes:
        committed: step -> the number that was committed last; earlier: those before it.
        struck: steps with a flipped bit in a data file; unreadable: in the record.
        unsure: steps that retention, or a run that went back, may or may not have taken away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="dtk-histories-"))
        self.committed: dict[int, float] = {}
        self.earlier: dict[int, set[float]] = {}
        self.struck: set[int] = set()
        self.unreadable: set[int] = set()
        self.unsure: set[int] = set()
        self.next_value = 100.0
        self.patch = patch.object(os, "fsync", lambda fd: None)
        self.patch.start()

    def teardown(self) -> None:
        self.patch.stop()
        shutil.rmtree(self.root)

    @property
    def whole(self) -> set[int]:
        """Steps whose last checkpoint was committed and not struck."""
        return set(self.committed) - self.struck - self.unreadable

    @rule(again=st.lists(st.booleans(), min_size=1, max_size=3), fault=FAULTS, wait=st.booleans())
    def run_a_program(self, again: list[bool], fault: Fault | None, wait: bool) -> None:
        """It restores, and saves the same step again or the next, a few times; one operation may fail."""
        attempts: list[tuple[int, float, int]] = []

        def body(program: Program) -> None:
            try:
                restored = program.restore()
            except AllCheckpointsCorrupt:
                shutil.rmtree(self.root)  # a person starts anew
                self.forget()
                restored = None
            step = restored[0] if restored else 0
            for same in again:
                self.next_value += 1
                wanted = step if same and step else step + 1
                attempts.append((wanted, self.next_value, len(program.storage.moved)))
                try:
                    program.save(wanted, self.next_value, wait=wait)
                    program.ckpt.wait()
                    step = wanted
                except DistToolkitError:
                    assert program.storage.fired, "an error without a cause"

        ends, (storage,) = run(self.root, body, faults={0: fault} if fault else {}, size=50, retention=Retention(KEPT))
        error = ends[0].error
        assert error is None or storage.fired, error
        assert error is None or storage.dead or isinstance(error, (DistToolkitError, OSError)), error
        bounds = [*(begin for _, _, begin in attempts), len(storage.moved)][1:]
        for (step, value, begin), end in zip(attempts, bounds, strict=True):
            self.note(step, value, (temporary_dir(step), step_dir(step)) in storage.moved[begin:end])

    def note(self, step: int, value: float, committed: bool) -> None:
        """A save of `step` has ended."""
        self.unsure |= {other for other in self.committed if other > step}
        if not committed:
            return
        if step in self.committed:
            self.earlier.setdefault(step, set()).add(self.committed[step])
        self.committed = {other: v for other, v in self.committed.items() if other < step} | {step: value}
        for struck in (self.struck, self.unreadable, self.unsure):
            struck &= set(self.committed) - {step}
        counted = sorted(set(self.committed) - self.unreadable, reverse=True)
        self.unsure |= set(counted[KEPT:])

    @precondition(lambda self: self.whole)
    @rule(which=st.integers(0, 5), seed=st.integers(0, 2**32))
    def flip_a_bit(self, which: int, seed: int) -> None:
        """In some file of some checkpoint."""
        step = sorted(self.whole, reverse=True)[which % len(self.whole)]
        folders = [self.root / name for name in (step_dir(step), replaced_dir(step)) if (self.root / name).exists()]
        if not folders:
            assert step in self.unsure
            return
        choices = random.Random(seed)
        path = choices.choice(sorted(folders[0].iterdir()))
        data = bytearray(path.read_bytes())
        data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
        path.write_bytes(data)
        (self.unreadable if path.name == "manifest.json" else self.struck).add(step)

    def forget(self) -> None:
        """The directory is empty."""
        for known in (self.committed, self.earlier, self.struck, self.unreadable, self.unsure):
            known.clear()  # type: ignore[attr-defined]

    @invariant()
    def never_a_wrong_load_and_never_less_than_the_last_whole_one(self) -> None:
        """What a new program finds."""
        sure = max(self.whole - self.unsure, default=None)
        outcome: Any = None
        try:
            outcome = found(self.root, size=50)
        except AllCheckpointsCorrupt:
            assert sure is None, f"step {sure} is whole"
            return
        if outcome is None:
            assert not set(self.committed) - self.unsure, "there is something"
            return
        step, value = outcome
        generations = {self.committed.get(step)} if step in self.whole else set()
        if step in self.unreadable:  # then the one that was being replaced may still be there, whole
            generations |= self.earlier.get(step, set())
        assert value in generations, f"{outcome} is not what was saved"
        assert sure is None or step >= sure, f"{outcome}, and step {sure} is whole"


COMMON = settings(
    deadline=None, derandomize=True, stateful_step_count=8, suppress_health_check=list(HealthCheck)
)  # what is slow is the machine


def test_short_histories() -> None:
    run_state_machine_as_test(Directory, settings=settings(COMMON, max_examples=60))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_long_histories() -> None:
    run_state_machine_as_test(Directory, settings=settings(COMMON, max_examples=400, stateful_step_count=25))
