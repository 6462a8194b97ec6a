"""As `test_every_operation`, in an object store: killed at every operation, the old state is found or the new one."""

from __future__ import annotations

import uuid

import pytest

from dist_toolkit.checkpoint.layout import MANIFEST, parse_dir
from dist_toolkit.checkpoint.manifest import decode
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.storage import open_storage
from tests.faults.program import found, results, run
from tests.faults.scenarios import SCENARIOS
from tests.faults.storage import Fault
from tests.faults.test_every_operation import KILLS

NAMES = ("next step", "same step again", "retention", "going back", "going back behind all", "background")
QUICK = (("next step", 1), ("same step again", 1), ("retention", 1), ("going back behind all", 1))
CASES = [
    pytest.param(name, ranks, marks=[] if (name, ranks) in QUICK else pytest.mark.slow)
    for ranks in (1, 2)
    for name in NAMES
]


def place() -> str:
    return f"memory://{uuid.uuid4().hex}"


def copied(files: dict[str, bytes]) -> str:
    """A new place with these objects."""
    root = place()
    storage = open_storage(root)
    for name, data in files.items():
        storage.replace_file(name, data)
    return root


def goes_on(root: str, ranks: int, about: str) -> None:
    """A new program saves, and nothing is left of the old one but what is set aside, whole."""
    results(root, lambda program: program.save(9, 90.0), ranks, retention=Retention(keep_last=1))
    assert found(root, ranks) == (9, 90.0), about
    storage = open_storage(root)
    inside: dict[str, set[str]] = {}
    for path in storage.files():
        folder, _, name = path.rpartition("/")
        inside.setdefault(folder, set()).add(name)
    assert {folder for folder in inside if (parse_dir(folder) or (0, ""))[1] != ".aside"} <= {"step-00000009", ""}, (
        about
    )
    assert inside.pop("", set()) <= {".lock"}, about
    for folder, names in inside.items():
        record = decode(storage.read_bytes(f"{folder}/{MANIFEST}"), folder)
        assert names == {MANIFEST, *record.files}, about


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_killed_at_every_operation(name: str, ranks: int) -> None:
    scenario, outcomes = SCENARIOS[name], set()
    scenario.prepare(first := place(), ranks)
    storage = open_storage(first)
    prepared = {file: storage.read_bytes(file) for file in storage.files()}
    _, storages = run(copied(prepared), scenario.act, ranks, **scenario.options)
    for rank, count in enumerate([len(one.visited) for one in storages]):
        assert count >= (15 if rank == 0 else 4)
        for at in range(count):
            for kind in KILLS:
                root = copied(prepared)
                ends, storages = run(root, scenario.act, ranks, {rank: Fault(at, kind.when)}, **scenario.options)
                about = f"rank {rank} killed {kind.when} {storages[rank].visited[-1]}"
                assert storages[rank].dead, about
                assert ends[rank].error is not None, about
                committed = f"{scenario.commits}/{MANIFEST}" in storages[0].put
                outcomes.add(committed)
                assert found(root, ranks) == (scenario.new if committed else scenario.old), about
                if kind.when != "half":
                    goes_on(root, ranks, about)
                open_storage(root).remove_tree("")
    assert outcomes == {True, False}, "some came before the commit, and some after"
