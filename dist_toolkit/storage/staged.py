"""Bytes kept on this machine until an upload has gone well, so that it can be tried again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

_SMALL = 16 << 20  # bytes up to which they stay in memory


class Staged:
    """The pieces of a file: in memory if they are few, else in a temporary file that has no name and ends with us."""

    def __init__(self, pieces: Iterable[memoryview | bytes]) -> None:
        """Take all pieces. OSError where the temporary directory cannot hold them."""
        self.size = 0
        self._memory = bytearray()
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        try:
            self._take(pieces)
        except BaseException:
            self._stack.close()
            raise

    def send(self, filesystem: Any, path: str) -> None:
        """Upload, in several parts where the filesystem does so."""
        if self._file is None:
            filesystem.pipe_file(path, bytes(self._memory))
            return
        self._file.seek(0)
        filesystem.put_file(f"/dev/fd/{self._file.fileno()}", path)

    def _take(self, pieces: Iterable[memoryview | bytes]) -> None:
        for piece in pieces:
            self.size += memoryview(piece).nbytes
            if self._file is None and self.size > _SMALL:
                self._file = self._stack.enter_context(_temporary())
                _write(self._file, self._memory)
                self._memory = bytearray()
            if self._file is None:
                self._memory += piece
            else:
                _write(self._file, piece)

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0)  # the caller closes it


def _write(file: IO[bytes], piece: memoryview | bytes | bytearray) -> None:
    rest = memoryview(piece).cast("B")
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        words = f"{error.strerror}, in {tempfile.gettempdir()}, where an upload is staged (TMPDIR chooses the place)"
        raise OSError(error.errno, words) from error
