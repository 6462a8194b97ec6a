"""One program at a time in a directory: a lock of the operating system's, which ends with the process that holds it.

What the file says tells who has it. A program that finds other words there than its own has been taken over: by a
later start of its own job, as SLURM takes it for dead (its node ran on, but SLURM could not see it any more), or, where
the file system has no locks, by whoever came later. A file that keeps such a program out stays when its owner ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dist_toolkit.storage.start import JobStart

NAME = ".lock"
_POLL = 0.2  # seconds between two tries
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_MOST = 4000  # bytes of a file of this kind
_STAYS = "stays, for it keeps out one that was taken over"


@dataclass
class _Claim:
    """What this process has. `fd` holds the lock: it is the process's, and closing any descriptor would end it."""

    fd: int
    says: bytes
    holders: int = 1


_held: dict[str, _Claim] = {}


def acquire(
    folder: Path, words: str, patience: float, start: JobStart | None = None, take_over: bool = True
) -> str | None:
    """Take the lock of `folder`, which exists, for this process; None, or the words of the process that has it.

    A file system without locks gives None as well. So does one that cannot be written: what writes next will say so.

    Args:
        words: who takes it, for others to read: one line.
        patience: seconds to wait for another process to end.
        start: of which job this process is part. An earlier start of the same job is taken over after that wait.
        take_over: that, and without locks whoever stands there.
    """
    path = os.path.realpath(folder / NAME)
    if path in _held:
        _held[path].holders += 1
        return None
    says = "".join(f"{line}\n" for line in (words, start.line if start else "", secrets.token_hex(8)) if line)
    deadline = time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        owner = _try_lock(fd, path)
        if owner is None or (owner == "" and take_over):
            _held[path] = _Claim(fd, _sign(fd, says, alone=owner is None))
            return None
        os.close(fd)
        if owner == "":
            return None
        if time.monotonic() > deadline:
            if not take_over or start is None or not start.succeeds(JobStart.read(owner)):
                return owner.partition("\n")[0]
            if _replace(path, says):
                return None
        time.sleep(_POLL)


def taken_by(folder: Path) -> str | None:
    """Who has taken over what this process has; None if nobody has, or it has nothing.

    Raises:
        OSError: that cannot be seen.
    """
    path = os.path.realpath(folder / NAME)
    if path not in _held:
        return None
    try:
        says = Path(path).read_bytes()
    except FileNotFoundError:  # somebody has tidied up
        return None
    return None if says == _held[path].says else says.partition(b"\n")[0].decode(errors="replace") or "another process"


def release(folder: Path) -> None:
    """Give the lock back; nothing where this process does not have it, or another has taken it over."""
    path = os.path.realpath(folder / NAME)
    if path not in _held:
        return
    _held[path].holders -= 1
    if _held[path].holders == 0:
        with suppress(OSError):  # the directory is gone, or is read-only by now
            if _STAYS.encode() not in _held[path].says and taken_by(folder) is None:
                Path(path).unlink()
        os.close(_held.pop(path).fd)


def _sign(fd: int, says: str, alone: bool) -> bytes:
    """Put our words into the file; what it says then. Where there is no space for them the lock holds without."""
    before = os.pread(fd, _MOST, 0)
    if _STAYS.encode() in before or (before and not alone):
        says += f"{_STAYS}\n"
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, says.encode(), 0)
    return os.pread(fd, _MOST, 0)


def _try_lock(fd: int, path: str) -> str | None:
    """None: it is ours. '': there are no locks here. Else what the file of the one who has it says."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return ""
        return os.pread(fd, _MOST, 0).decode(errors="replace") or "another process"
    try:
        current = Path(path).stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        current = False
    return None if current else "a process that has just ended"  # its file was removed: look again


def _replace(path: str, says: str) -> bool:
    """Put a file that this process has locked in the place of one that another holds. Whether that could be done."""
    beside = f"{path}.{secrets.token_hex(4)}"
    try:
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        written = f"{says}{_STAYS}\n".encode()
        os.pwrite(fd, written, 0)
        Path(beside).rename(path)
    except OSError:
        with suppress(OSError):
            Path(beside).unlink()
        os.close(fd)
        return False
    _held[path] = _Claim(fd, written)
    return True
