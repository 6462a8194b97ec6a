"""The run directory of a launch: made, checked and held, so that two launches never write into one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dtk_launch import nodes, wholefile
from dtk_launch.errors import PlanError
from dtk_launch.fence import Fence
from dtk_launch.plan import LaunchPlan
from dtk_launch.processes import has_file

_POLL = 0.05  # seconds between tries
_RESERVE = 32768  # bytes that a run directory must have room for, and that are kept for what is written at the end
_LEAST = 4096  # bytes; with less a disk is full
_LOCK_WAIT = 5.0  # seconds for the torchrun of a launch that was just killed to let go of the run directory
_OVERTAKEN_WAIT = 30.0  # and for an earlier start of this job to see that it is overtaken (fence.py)
_SURE_AFTER = 0.3  # seconds after which a dtk that holds it and is there is one that runs, and not one that was killed


def launcher_log(plan: LaunchPlan) -> Path:
    """Where this node's torchrun writes."""
    node = plan.topology.node
    return plan.run_dir / ("launcher.log" if node == "0" else f"launcher-{node}.log")


@contextlib.contextmanager
def held_run_directory(plan: LaunchPlan, fence: Fence) -> Iterator[BinaryIO]:
    """Make the run directory and hold it for this launch: two runs that write the same checkpoints would ruin both.

    The lock is on torchrun's log. torchrun inherits it, so it is held as long as one of the two lives. An earlier start
    of the same job is waited for; one that does not let go, as its node stands still, ends when it goes on.
    """
    probe = plan.run_dir / "ranks" / f".writable-{socket.gethostname()}-{os.getpid()}"
    made = [folder for folder in (plan.run_dir, *plan.run_dir.parents) if not os.path.lexists(folder)]
    try:
        (plan.run_dir / "ranks").mkdir(parents=True, exist_ok=True)
        probe.write_bytes(os.urandom(_RESERVE))  # a full disk takes an empty file, some file systems zeros
        log = open(launcher_log(plan), "ab")  # noqa: SIM115  # closed below
    except OSError as error:
        _remove(probe)
        _take_back(plan, made)
        raise _unwritable(plan, error) from None
    with log:
        try:
            _lock(log, plan, fence.put())
            with contextlib.suppress(OSError):
                probe.replace(_reserve(plan))
        finally:
            _remove(probe)
        if plan.topology.node == "0":
            try:
                _check_plan_file(plan)
                for name in ("ranks/0.live", "verdict.json"):  # of an earlier launch
                    (plan.run_dir / name).unlink(missing_ok=True)
            except OSError as error:
                make_room(plan)
                _take_back(plan, made)
                raise _unwritable(plan, error) from None
        try:
            yield log
        finally:
            make_room(plan)


def _check_plan_file(plan: LaunchPlan) -> None:
    """Raise OSError where `write_plan` would fail."""
    path = plan.run_dir / "plan.json"
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    path.with_suffix(".tmp").touch()
    if path.exists():
        (plan.run_dir / "plans").mkdir(exist_ok=True)


def write_plan(plan: LaunchPlan, text: str) -> None:
    """Put plan.json in place, whole; that of an earlier launch goes to `plans/`. A failed write never ends the run."""
    path = plan.run_dir / "plan.json"
    with contextlib.suppress(OSError):
        if path.exists():
            shutil.copy2(path, plan.run_dir / "plans" / f"{path.stat().st_mtime_ns}.json")
        wholefile.put(path, text + "\n", path.with_suffix(".tmp"))


def lack_of_room(run_dir: Path) -> str:
    """Why nothing more can be written there, in the system's words; '' if there is room, or the system cannot tell."""
    try:
        seen = os.statvfs(run_dir)
    except OSError as error:
        return error.strerror or ""
    free = seen.f_bfree if os.geteuid() == 0 else seen.f_bavail  # some are root's alone
    full = seen.f_blocks > 0 and free * seen.f_frsize < _LEAST
    return os.strerror(errno.ENOSPC) if full or (seen.f_files > 0 and seen.f_ffree == 0) else ""


def _reserve(plan: LaunchPlan) -> Path:
    return plan.run_dir / f".reserve-{plan.topology.node}"


def make_room(plan: LaunchPlan) -> None:
    """Give back the room that this launch has kept: the end of a run that has filled its disk can be written."""
    _remove(_reserve(plan))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _take_back(plan: LaunchPlan, made: list[Path]) -> None:
    """Remove what was made for a launch that cannot be, and nothing else."""
    with contextlib.suppress(OSError):
        if plan.run_dir in made:
            launcher_log(plan).unlink(missing_ok=True)
            (plan.run_dir / "plan.tmp").unlink(missing_ok=True)
            (plan.run_dir / "ranks").rmdir()
        for folder in made:
            folder.rmdir()


def _unwritable(plan: LaunchPlan, error: OSError) -> PlanError:
    name = error.filename2 or error.filename  # none of a write that fails
    reason = f"{name}: {error.strerror}" if name else error.strerror
    return PlanError(f"the run directory {plan.run_dir} cannot be written ({reason}); pass another --run-dir")


def _lock(log: BinaryIO, plan: LaunchPlan, overtakes: bool) -> None:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if overtakes:
                if time.monotonic() > began + _OVERTAKEN_WAIT:
                    return
                time.sleep(_POLL)
                continue
            holder = _holder(log, plan) if time.monotonic() > began + _SURE_AFTER else None
            if holder is not None or time.monotonic() > began + _LOCK_WAIT:
                who = f" (pid {holder})" if holder is not None else ""
                raise PlanError(
                    f"another dtk launch{who} is running in {plan.run_dir}; wait for it, or pass another --name or "
                    "--run-dir"
                ) from None
            time.sleep(_POLL)
        except OSError:  # a file system without locks
            return
        else:
            return


def _holder(log: BinaryIO, plan: LaunchPlan) -> int | None:
    """Pid of the dtk that holds the log, if it is on this machine and runs; None if only its torchrun is left."""
    entry = nodes.entries(plan.run_dir).get(plan.topology.node, {})
    pid = entry.get("pid")
    if entry.get("host") != socket.gethostname() or not isinstance(pid, int) or pid == os.getpid():
        return None
    return pid if has_file(pid, os.fstat(log.fileno())) else None
