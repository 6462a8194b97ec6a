"""One program at a time in a directory: a lock of the operating system's, which ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

NAME = ".lock"
_POLL = 0.2  # seconds between two tries
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}

_held: dict[str, list[int]] = {}
"""Path -> [file descriptor, number of holders]: a lock is the process's, and closing any descriptor would end it."""


def acquire(folder: Path, words: str, patience: float) -> str | None:
    """Take the lock of `folder`, which exists, for this process; None, or the words of the process that has it.

    A filesystem without locks gives None as well. So does one that cannot be written: what writes next will say so.

    Args:
        words: who takes it, for others to read.
        patience: seconds to wait for another process to end.
    """
    path = os.path.realpath(folder / NAME)
    if path in _held:
        _held[path][1] += 1
        return None
    deadline = time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        owner = _try_lock(fd, path)
        if owner is None:
            with suppress(OSError):  # no space: the lock holds without words
                os.ftruncate(fd, 0)
                os.pwrite(fd, words.encode(), 0)
            _held[path] = [fd, 1]
            return None
        os.close(fd)
        if owner == "":
            return None
        if time.monotonic() > deadline:
            return owner
        time.sleep(_POLL)


def release(folder: Path) -> None:
    """Give the lock back; nothing where this process does not have it."""
    path = os.path.realpath(folder / NAME)
    if path not in _held:
        return
    _held[path][1] -= 1
    if _held[path][1] == 0:
        fd, _ = _held.pop(path)
        with suppress(OSError):  # the directory is gone, or is read-only by now
            Path(path).unlink()
        os.close(fd)


def _try_lock(fd: int, path: str) -> str | None:
    """None: it is ours. '': there are no locks here. Else who has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return ""
        return os.pread(fd, 1000, 0).decode(errors="replace") or "another process"
    try:
        current = Path(path).stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        current = False
    return None if current else "a process that has just ended"  # its file was removed: look again
