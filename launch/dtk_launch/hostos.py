"""What only Linux has, in one place: parent-death signal, child subreaper, pidfd, /proc.

On other systems each function does nothing and says so by its return value. The rank's bootstrap loads this file by
path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None) if LINUX else None


def _prctl(option: int, value: int) -> bool:
    return _libc is not None and _libc.prctl(option, value, 0, 0, 0) == 0


def die_with_parent() -> bool:
    """The kernel sends this process SIGKILL when the thread that started it ends; if it has ended, nothing comes."""
    return _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def become_subreaper() -> bool:
    """Orphans among this process's descendants become its children instead of init's."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def parent_of(pid: int) -> int | None:
    """Parent of a process; None if there is no such process or the system has no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def children_of(pid: int) -> list[int]:
    """Direct children of a process, ended but unreaped ones included; empty where there is no /proc."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    return [child for child in pids if parent_of(child) == pid]


def descendants_of(pid: int) -> list[int]:
    """Children, their children and so on, parents first."""
    found = children_of(pid)
    for child in found:  # the list grows while it is read
        found.extend(children_of(child))
    return found


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it has ended or the system has no pidfd."""
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except OSError:
        return None


def exit_code_of(pid: int) -> int | None:
    """Exit code, as Popen gives it, of a process that has ended and that its parent has not asked for; else None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == b"Z" else None
    except (OSError, IndexError, ValueError):
        return None


def send(pid: int, signum: int) -> None:
    """Signal a process that may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def send_to_main_thread(pid: int, signum: int) -> None:
    """Signal the main thread of a process that may have ended; where the system cannot, the process."""
    tgkill = getattr(_libc, "tgkill", None)
    if tgkill is None or tgkill(pid, pid, int(signum)) != 0:
        send(pid, signum)


def usage_of(pid: int) -> tuple[int, float] | None:
    """(resident bytes, seconds of CPU so far) of a process; None if it has ended or the system has no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), seconds
    except (OSError, IndexError, ValueError):
        return None
