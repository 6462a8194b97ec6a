"""What a program does while its storage fails, and what may be found afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.checkpoint.schedule import Schedule
from tests.faults.program import Program, results

Found = tuple[int, float]


@dataclass(frozen=True)
class Scenario:
    """A storage is prepared with `before`, then fails during `act`.

    Attributes:
        commits: the directory that a rename brings into place when the last thing that `act` saves is committed.
        old: what may be found where nothing of it was; new: what must be found where it was.
        between: what else may be found, where `act` commits several times or goes back.
        stays: directories that are rightly there at the end besides the last checkpoint.
    """

    before: Callable[[Program], Any]
    act: Callable[[Program], Any]
    commits: str
    old: Found
    new: Found
    between: frozenset[Found] = frozenset()
    stays: frozenset[str] = frozenset()
    leftovers: Callable[[Path], None] = lambda root: None
    options: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, root: Path | str, ranks: int) -> None:
        """Bring the directory, or the prefix in an object store, to where `act` begins."""
        results(root, self.before, ranks, **self.options)
        if isinstance(root, Path):
            self.leftovers(root)


def _save(*pairs: Found) -> Callable[[Program], None]:
    def body(program: Program) -> None:
        for step, value in pairs:
            program.save(step, value)

    return body


def _start_anew(program: Program) -> None:
    program.save(2, 22.0)


def _in_background(program: Program) -> None:
    program.save(2, 20.0, wait=False)
    program.fill(99.0)  # training goes on
    program.ckpt.wait()


def _go_back(program: Program) -> None:
    assert program.restore(1) in ((1, 10.0), None)
    program.save(2, 22.0)


def _train(program: Program) -> None:
    """Three steps, each saved; the first two in the background."""
    for step, _ in program.ckpt.steps([0] * 5, until=4):
        program.fill(step * 10.0)


def leave_everything(root: Path) -> None:
    """What killed saves and deletions leave, of the step to be saved and of others."""
    for name in ("step-00000002.tmp", "step-00000009.tmp", "step-00000001.del", "step-00000007.del"):
        (root / name).mkdir()
        (root / name / "rank-00000.safetensors").write_bytes(b"half a file")
    (root / "step-00000001").rename(root / "step-00000001.old")
    (root / "step-00000005").mkdir()  # without a record: not a checkpoint


ONE = Retention(keep_last=1)
NEWER = frozenset({"step-00000003.aside", "step-00000004.aside"})
SCENARIOS = {
    "next step": Scenario(_save((1, 10.0)), _save((2, 20.0)), "step-00000002", (1, 10.0), (2, 20.0)),
    "same step again": Scenario(_save((1, 10.0)), _save((1, 20.0)), "step-00000001", (1, 10.0), (1, 20.0)),
    "retention": Scenario(
        _save((1, 10.0)), _save((2, 20.0)), "step-00000002", (1, 10.0), (2, 20.0), options={"retention": ONE}
    ),
    "going back": Scenario(
        _save((1, 10.0), (2, 20.0), (3, 30.0), (4, 40.0)),
        _go_back,
        "step-00000002",
        (4, 40.0),
        (2, 22.0),
        stays=NEWER,
    ),
    "going back behind all": Scenario(
        _save((3, 30.0), (4, 40.0)), _start_anew, "step-00000002", (4, 40.0), (2, 22.0), stays=NEWER
    ),
    "background": Scenario(_save((1, 10.0)), _in_background, "step-00000002", (1, 10.0), (2, 20.0)),
    "training loop": Scenario(
        _save((1, 10.0)),
        _train,
        "step-00000004",
        (1, 10.0),
        (4, 40.0),
        between=frozenset({(2, 20.0), (3, 30.0)}),
        options={"schedule": Schedule(1), "retention": ONE},
    ),
    "after leftovers": Scenario(
        _save((1, 10.0)),
        _save((2, 20.0)),
        "step-00000002",
        (1, 10.0),
        (2, 20.0),
        stays=frozenset({"step-00000005"}),
        leftovers=leave_everything,
    ),
}
