"""A program is killed, or refused, at every single operation on its storage: what is found is the old state or the new.

It is the new one exactly if the rename that commits took effect; and the next save works and clears what was left.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.errors import DistToolkitError, PeerError
from dist_toolkit.storage import Storage
from tests.faults.program import End, Program, found, results, run
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.storage import Fault, FaultyStorage, Killed

KILLS = [Fault(0, "before"), Fault(0, "half"), Fault(0, "after")]
REFUSALS = {
    "no space": [Fault(0, "before", errno.ENOSPC)],
    "failing disk": [Fault(0, "after", errno.EIO)],
    "others": [Fault(0, "half", errno.ENOSPC), Fault(0, "before", errno.EACCES), Fault(0, "before", errno.ESTALE)],
}


SHORT = ("next step", "same step again", "retention", "background", "after leftovers")


def cases(*quick: Any) -> list[Any]:
    """Every scenario on one rank and on two; those that are not in `quick` are slow."""
    every = [(name, ranks) for ranks in (1, 2) for name in SCENARIOS]
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.slow) for case in every]


@pytest.fixture(autouse=True)
def without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program leaves that is killed does not depend on the disk's cache, and waiting for disks takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@dataclass
class Sweep:
    """One scenario on copies of one prepared directory."""

    scenario: Scenario
    ranks: int
    folder: Path
    known: dict[Any, Any] = field(default_factory=dict)
    """What was found in directories that look like this one."""

    def __post_init__(self) -> None:
        self.scenario.prepare(self.folder / "prepared", self.ranks)
        self.number = 0

    def run(self, faults: dict[int, Fault]) -> tuple[Path, list[End], list[FaultyStorage]]:
        """Act, on a fresh copy."""
        self.number += 1
        root = self.folder / f"copy-{self.number}"
        shutil.copytree(self.folder / "prepared", root)
        ends, storages = run(root, self.scenario.act, self.ranks, faults, **self.scenario.options)
        return root, ends, storages

    def visits(self) -> list[int]:
        """How many operations each rank does when nothing fails."""
        root, ends, storages = self.run({})
        assert [end.error for end in ends] == [None] * self.ranks
        assert found(root, self.ranks) == self.scenario.new
        shutil.rmtree(root)
        return [len(storage.visited) for storage in storages]

    def check(self, root: Path, storages: list[FaultyStorage], about: str) -> None:
        """What a new program finds there, and that it can go on."""
        scenario, look = self.scenario, contents(root)
        committed = commits(scenario, storages[0])
        if look not in self.known:
            self.known[look] = found(root, self.ranks)
            self.goes_on(root, about)
        if committed:
            assert self.known[look] == scenario.new, about
        else:
            assert self.known[look] in {scenario.old, *scenario.between}, about
        shutil.rmtree(root, ignore_errors=True)

    def goes_on(self, root: Path, about: str) -> None:
        """A new program saves, and nothing is left of the old one."""
        results(root, lambda program: program.save(9, 90.0), self.ranks, retention=Retention(keep_last=1))
        assert found(root, self.ranks) == (9, 90.0), about
        names = {path.name for path in root.iterdir()}
        assert names - self.scenario.stays == {"step-00000009"}, about


def commits(scenario: Scenario, storage: FaultyStorage) -> bool:
    """Whether the rename that commits took effect."""
    return (scenario.commits + ".tmp", scenario.commits) in storage.moved


def contents(root: Path) -> tuple[Any, ...]:
    """Everything under `root`, files with their bytes; of tokens and records, in which there are times, the sizes."""
    rows: list[Any] = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != ".lock":
            rows.append(hash(path.read_bytes()) if path.suffix == ".safetensors" else path.stat().st_size)
        rows.append(str(path.relative_to(root)))
    return tuple(rows)


@pytest.mark.parametrize(("name", "ranks"), cases(*((name, 1) for name in SCENARIOS), *((name, 2) for name in SHORT)))
def test_killed_at_every_operation(tmp_path: Path, name: str, ranks: int) -> None:
    sweep = Sweep(SCENARIOS[name], ranks, tmp_path)
    outcomes = set()
    for rank, count in enumerate(sweep.visits()):
        assert count >= (20 if rank == 0 else 4)
        for at in range(count):
            for kind in KILLS:
                fault = Fault(at, kind.when)
                root, ends, storages = sweep.run({rank: fault})
                about = f"rank {rank} {fault}: {storages[rank].visited[-1]}"
                assert storages[rank].fired, about
                assert storages[rank].dead, about
                assert ends[rank].error is not None, about
                outcomes.add(commits(SCENARIOS[name], storages[0]))
                sweep.check(root, storages, about)
    assert outcomes == {True, False}, "some came before the commit, and some after"


@pytest.mark.parametrize("kinds", REFUSALS)
@pytest.mark.parametrize(("name", "ranks"), cases(("next step", 1), ("training loop", 1), ("next step", 2)))
def test_refused_at_every_operation(tmp_path: Path, name: str, ranks: int, kinds: str) -> None:
    """All ranks are told the cause, or none fails; the same program may then try again."""
    sweep = Sweep(SCENARIOS[name], ranks, tmp_path)
    scenario, refused = SCENARIOS[name], 0
    named: list[set[int]] = []

    def act_twice(program: Program) -> str:
        try:
            scenario.act(program)
        except DistToolkitError as error:
            named.append(set(error.failures) if isinstance(error, PeerError) else {rank})
            scenario.act(program)
            return str(error)
        return ""

    for rank, count in enumerate(sweep.visits()):
        for at in range(count - (rank == 0)):  # the last one gives the lock back at the end of the program
            for kind in REFUSALS[kinds]:
                fault = Fault(at, kind.when, kind.error)
                shutil.copytree(tmp_path / "prepared", root := tmp_path / "copy")
                ends, storages = run(root, act_twice, ranks, {rank: fault}, **scenario.options)
                about = f"rank {rank} {fault}: {storages[rank].visited[at]}; {ends}"
                assert storages[rank].fired, about
                assert not [end for end in ends if end.error is not None], about
                told = [end.value for end in ends]
                assert all(told) or not any(told), about
                for words in told:
                    assert not words or os.strerror(kind.error or 0) in words or "on another rank" in words, about
                assert all(ranks_named == {rank} for ranks_named in named), about
                named.clear()
                refused += any(told)
                assert found(root, ranks) == scenario.new, about
                if at % 5 == 0:
                    sweep.goes_on(root, about)
                shutil.rmtree(root)
    assert refused >= 10


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_restore_goes_back_for_damage_and_for_nothing_else(tmp_path: Path, ranks: int) -> None:
    """A disk that fails has lost the checkpoint; a file that may not be read now is no reason to lose work."""
    results(tmp_path, lambda program: [program.save(1, 10.0), program.save(2, 20.0)], ranks)
    before = contents(tmp_path)

    def restore(program: Program) -> Any:
        try:
            return program.restore()
        except DistToolkitError as error:
            assert program.numbers.rate == 77.0, "a refused restore changes nothing"
            return str(error)

    _, storages = run(tmp_path, restore, ranks)
    seen = set()
    for rank, count in enumerate([len(storage.visited) for storage in storages]):
        assert count >= 7
        for at in range(count):
            for number in (errno.EIO, errno.EACCES, errno.ESTALE, None):
                fault = Fault(at, "before", number)
                ends, storages = run(tmp_path, restore, ranks, {rank: fault})
                about = f"rank {rank} {fault}: {storages[rank].visited[at]}; {ends}"
                assert storages[rank].fired, about
                if number is None:
                    assert isinstance(ends[rank].error, Killed), about
                elif ends[0].value == (1, 10.0):
                    assert number == errno.EIO, about
                    seen.add("went back")
                else:
                    assert ends[0].value == (2, 20.0) or os.strerror(number) in ends[0].value, about
                    seen.add("refused")
                assert number is None or [type(end.value) for end in ends] == [type(ends[0].value)] * ranks, about
    assert seen == {"went back", "refused"}
    assert contents(tmp_path) == before, "a restore changes no file"


def test_the_faulty_storage_counts_every_operation_that_a_storage_has() -> None:
    """Else a new one would go untried."""
    operations = {name for name, value in vars(Storage).items() if callable(value) and not name.startswith("_")}
    assert operations <= set(vars(FaultyStorage))
