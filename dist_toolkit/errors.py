"""Every error that this package raises on purpose. Each carries its facts as fields, and says what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_MANY = 10  # steps that a message lists


class DistToolkitError(Exception):
    """Base of all errors of this package."""


class ConfigError(DistToolkitError, ValueError):
    """What was asked for cannot be done; raised before anything started."""


class PeerError(DistToolkitError):
    """An operation failed on some ranks; raised on every rank.

    Attributes:
        failures: rank -> what that rank said.
    """

    def __init__(self, what: str, failures: Mapping[int, str]) -> None:
        self.failures = dict(failures)
        listed = "; ".join(f"rank {rank}: {words}" for rank, words in sorted(self.failures.items()))
        super().__init__(f"{what} failed on {len(self.failures)} rank(s): {listed}")


class MismatchedCallError(DistToolkitError):
    """The ranks entered one collective operation with different arguments."""


class DesyncError(DistToolkitError):
    """The ranks are not in the same collective operation: some entered another one, or ended; raised on every rank.

    Attributes:
        reason: what the records of the ranks prove, in one sentence.
        operations: rank -> the operation it entered, or None where it entered none.
        sites: rank -> `file:line` of the script where it did so, or where it is.
        steps: rank -> the training step there.
        step: the earliest of them.
        ranks: the ranks that differ from the others.
        EXIT_CODE: with which a process ends that could not be interrupted to raise this (EX_PROTOCOL).
    """

    EXIT_CODE = 76

    def __init__(self, reason: str, rows: Sequence[tuple[int, str | None, str, int]], ranks: Sequence[int]) -> None:
        self.reason, self.rows, self.ranks = reason, tuple(rows), tuple(ranks)
        self.operations = {rank: operation for rank, operation, _, _ in rows}
        self.sites = {rank: site for rank, _, site, _ in rows}
        self.steps = {rank: step for rank, _, _, step in rows}
        self.step = min(self.steps.values(), default=0)
        table = [("rank", "operation", "called from", "step")]
        table += [(str(rank), operation or "-", site, str(step)) for rank, operation, site, step in rows]
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        super().__init__(
            f"the ranks are not in the same collective operation: {reason}\n"
            + "\n".join(f"  {line}".rstrip() for line in lines)
            + "\nEvery rank must make the same calls in the same order: take the call out of the branch "
            "(`if rank == 0`, a loop that ends earlier on one rank), or use rt.decide or rt.main_first. What single "
            "ranks rightly do on their own belongs in group.unwatched(). init(desync_guard=False) or "
            "DTK_DESYNC_GUARD=0 ends this check."
        )


class CheckpointError(DistToolkitError):
    """Base of the checkpoint errors."""


class CheckpointNotFound(CheckpointError):
    """No committed checkpoint (of this step) is in the directory.

    Attributes:
        there: the steps that are, newest first.
    """

    def __init__(self, root: str | Path, step: int | None = None, there: Sequence[int] = ()) -> None:
        self.root, self.step, self.there = str(root), step, tuple(there)
        what = "no committed checkpoint" if step is None else f"no committed checkpoint of step {step}"
        super().__init__(f"{what} in {root}{_there(there)}")


def _there(steps: Sequence[int]) -> str:
    """The first of the steps, to end a message with; '' if there are none."""
    return f"; there are {', '.join(map(str, steps[:_MANY]))}{', ...' * (len(steps) > _MANY)}" if steps else ""


class CheckpointCorrupt(CheckpointError):
    """Bytes of a checkpoint are not what its commit record says.

    Attributes:
        path: the damaged file.
        reason: what does not fit, with the tensor's name where there is one.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"{path}: {reason}")


class OtherFormat(CheckpointCorrupt):
    """A whole checkpoint of another format version, which this version of dist-toolkit cannot read."""


class AllCheckpointsCorrupt(CheckpointError):
    """Every committed checkpoint in the directory, or the one that was asked for, is damaged; nothing was loaded.

    Attributes:
        step: the one that was asked for; None where any would have done.
        there: then, the other steps that have a whole commit record, newest first.
    """

    def __init__(
        self, root: str | Path, reasons: Sequence[str], step: int | None = None, there: Sequence[int] = ()
    ) -> None:
        self.root, self.reasons, self.step, self.there = str(root), tuple(reasons), step, tuple(there)
        what = (
            f"no checkpoint in {root} is whole"
            if step is None
            else f"the checkpoint of step {step} in {root} is damaged"
        )
        super().__init__(f"{what}: {'; '.join(reasons)}{_there(there)}")


class StateMismatch(CheckpointError):
    """The checkpoint is whole, but it is not a checkpoint of this program.

    Attributes:
        part: which part does not fit: `model`, `optim`, `rng`, `loader`, or a name of the user's state.
    """

    def __init__(self, part: str, reason: str) -> None:
        self.part, self.reason = part, reason
        super().__init__(reason)


class NotSerializable(CheckpointError, TypeError):
    """A value in a state_dict is neither a tensor nor plain data, and checkpoints hold no pickle."""

    def __init__(self, key: str, value: object, why: str | None = None) -> None:
        self.key, self.type_name = key, type(value).__name__
        shown = ("dtype", "layout") if getattr(value, "is_nested", False) else ("dtype", "layout", "shape")
        facts = [str(getattr(value, name)) for name in shown if hasattr(value, name)]
        if facts:
            self.type_name += f" ({', '.join(facts)})"
        super().__init__(
            f"state {key!r}, a {self.type_name}, {why}"
            if why
            else f"state {key!r} is a {self.type_name}; a checkpoint holds dense tensors of the usual types (no "
            "expanded or conjugate views, none nested or without data), numbers, strings, None, lists and dicts of "
            "them, and no pickle: convert it in state_dict()"
        )


class DirectoryInUse(CheckpointError):
    """Another program saves in this checkpoint directory.

    Attributes:
        owner: which.
    """

    def __init__(self, root: str | Path, owner: str) -> None:
        self.root, self.owner = str(root), owner
        super().__init__(
            f"{root} is in use by {owner}; end that program, or give this one a directory of its own (--run-dir)"
        )


class StorageNotShared(CheckpointError):
    """The checkpoint directory is not the same directory on all ranks."""

    def __init__(self, root: str | Path, hosts: Mapping[int, str]) -> None:
        self.root, self.hosts = str(root), dict(hosts)
        who = ", ".join(f"rank {rank} on {host}" for rank, host in sorted(self.hosts.items()))
        super().__init__(
            f"{root} is not the directory that rank 0 writes to, as seen by {who}; "
            "checkpoints need a directory that all nodes share: pass one on a shared filesystem"
        )


class Preempted(SystemExit):
    """Leaves the program with exit code 75 (EX_TEMPFAIL): saved, start me again.

    Attributes:
        step: the step of the checkpoint that holds all the work.
        together: all ranks raise it at the same point; otherwise this rank alone, outside the training loop.
        time_ns: when it was raised (Unix time): before the failures of ranks that this one left alone.
    """

    EXIT_CODE = 75

    def __init__(self, step: int, together: bool = True) -> None:
        self.step, self.together, self.time_ns = step, together, time.time_ns()
        super().__init__(self.EXIT_CODE)
