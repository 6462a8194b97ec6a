"""Checkpoints in a directory of a POSIX filesystem, local or shared."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from dist_toolkit.storage import lock
from dist_toolkit.storage.base import FileReader, Storage
from dist_toolkit.storage.start import JobStart

_COPY = 1 << 20  # bytes that are copied at a time
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in the place of a file opens at once, and is refused


class LocalStorage(Storage):
    """A directory. It is created at the first write."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()
        self.root = str(self._root)

    def write_file(self, name: str, pieces: Iterable[memoryview | bytes]) -> int:
        """Write, one fsync, close."""
        total = 0
        fd = os.open(self._root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces:
                rest = memoryview(piece).cast("B")
                total += len(rest)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        return total

    def open(self, name: str) -> FileReader:
        """Open with pread, so that readers share no position."""
        return _LocalReader(self._root / name)

    def read_bytes(self, name: str, limit: int | None = None) -> bytes:
        """The whole file, if it is one."""
        path = self._root / name
        fd = os.open(path, _READ)
        with open(fd, "rb") as file:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode):
                raise IsADirectoryError(errno.EISDIR, "is not a regular file", str(path))
            if limit is not None and seen.st_size > limit:
                raise OSError(errno.EFBIG, f"has {seen.st_size} bytes, more than {limit}", str(path))
            return file.read()

    def list(self, name: str = "") -> list[str]:
        """Names in the directory, sorted."""
        try:
            return sorted(os.listdir(self._root / name))
        except FileNotFoundError:
            return []

    def make_dir(self, name: str) -> None:
        """Create the directory; parents as needed, durably."""
        path = self._root / name
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            _fsync_dir(parent.parent)
        os.mkdir(path)

    def rename(self, old: str, new: str) -> None:
        """rename(2), then fsync of the directory that holds both names."""
        target = self._root / new
        if target.exists():
            raise FileExistsError(f"{target} exists")
        os.rename(self._root / old, target)
        _fsync_dir(target.parent)

    def sync_dir(self, name: str) -> None:
        """fsync of the directory."""
        _fsync_dir(self._root / name)

    def remove_file(self, name: str) -> None:
        """Delete the file."""
        os.unlink(self._root / name)

    def remove_tree(self, name: str) -> None:
        """Delete the directory."""
        path = self._root / name
        if path.is_symlink() or path.is_file():  # in the place of a directory: what it points to stays
            os.unlink(path)
        elif path.exists():
            shutil.rmtree(path)

    def check_writable(self) -> None:
        """Ask the system about the directory, or the nearest one above it that is there."""
        path = next(place for place in (self._root, *self._root.parents) if place.exists())
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if not os.access(path, os.W_OK | os.X_OK):
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
            number = errno.EROFS if read_only else errno.EACCES
            raise OSError(number, os.strerror(number), str(path))

    def replace_file(self, name: str, data: bytes) -> None:
        """A file beside it, one fsync, rename(2), fsync of the directory."""
        target = self._root / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            self.write_file(str(temporary.relative_to(self._root)), [data])
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_dir(target.parent)

    def copy_file(self, old: str, new: str) -> None:
        """Copy the bytes, durably."""
        with open(self._root / old, "rb") as source:
            self.write_file(new, iter(lambda: source.read(_COPY), b""))

    def files(self, name: str = "") -> Sequence[str]:
        """All files below the directory."""
        top = self._root / name
        return sorted(
            str((Path(folder) / file).relative_to(top)) for folder, _, names in os.walk(top) for file in names
        )

    def claim(self, words: str, patience: float, take_over: bool = True) -> str | None:
        """A lock on a file in the directory, which is created. See lock.py for who is taken over."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError:  # the save will say so
            return None
        return lock.acquire(self._root, words, patience, JobStart.from_env(os.environ), take_over)

    def taken_by(self) -> str | None:
        """By what the file of the lock says now."""
        return lock.taken_by(self._root)

    def release(self) -> None:
        """Give the lock back."""
        lock.release(self._root)


class _LocalReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, _READ)
        self.size = os.fstat(self._fd).st_size

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset`."""
        rest = view.cast("B")
        while rest:
            count = os.preadv(self._fd, [rest], offset) if hasattr(os, "preadv") else _pread(self._fd, rest, offset)
            if count == 0:
                raise EOFError(f"{self._path} ends at byte {offset}")
            rest, offset = rest[count:], offset + count

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _pread(fd: int, view: memoryview, offset: int) -> int:
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


def _fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
