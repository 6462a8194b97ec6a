"""Where checkpoints are written: a folder that is emptied outside the clock, and made durable within it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_place(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="dtk-bench-checkpoint-", dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the filesystem that holds `path`; `unknown` where it cannot be seen."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return "unknown"
    holders = [(len(fields[1]), fields[2]) for fields in lines if path.is_relative_to(fields[1])]
    return max(holders)[1] if holders else "unknown"


def empty(folder: Path, settle: float) -> None:
    """Remove all files and folders in it, and wait until the disk has nothing more to do with them."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.sync()
    time.sleep(settle)


def sync(path: Path) -> None:
    """fsync of a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(folder: Path) -> None:
    """Ask the system to drop what it holds in memory of the files, which are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
