"""What a place for checkpoints must be able to do. Names are relative to the storage's root, with `/` between parts."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol


class FileReader(Protocol):
    """An open file."""

    size: int
    """Bytes in the file."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset`.

        Raises:
            EOFError: the file ends before that.
        """
        ...

    def __enter__(self) -> FileReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(ABC):
    """A tree of files that lasts. All methods raise OSError when the place refuses."""

    root: str
    """The place, as a person would write it."""
    renames: bool = True
    """Whether `rename` moves a directory in one step. Where it is False there are no directories but in names, and
    `replace_file`, `copy_file` and `files` are what a commit is built on."""

    @abstractmethod
    def write_file(self, name: str, pieces: Iterable[memoryview | bytes]) -> int:
        """Create the file from the pieces and make it durable; the number of bytes. The file must not exist."""

    @abstractmethod
    def open(self, name: str) -> FileReader:
        """Open a file to read. FileNotFoundError if it is not there."""

    @abstractmethod
    def read_bytes(self, name: str, limit: int | None = None) -> bytes:
        """The whole file. FileNotFoundError if it is not there; EFBIG, unread, if it has more bytes than `limit`."""

    @abstractmethod
    def list(self, name: str = "") -> list[str]:
        """Names in a directory, sorted; empty if it is not there."""

    @abstractmethod
    def make_dir(self, name: str) -> None:
        """Create a directory and its parents. The directory itself must not exist."""

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Move a directory to a name that does not exist, all or nothing, and make the move durable."""

    @abstractmethod
    def sync_dir(self, name: str) -> None:
        """Make the names in a directory durable."""

    @abstractmethod
    def remove_file(self, name: str) -> None:
        """Delete a file. FileNotFoundError if it is not there, except where `renames` is False: then nothing."""

    @abstractmethod
    def remove_tree(self, name: str) -> None:
        """Delete a directory and what is in it; nothing if it is not there."""

    def check_writable(self) -> None:  # noqa: B027  # a place where only writing tells
        """Raise OSError where it is known that nothing can be written here. Changes nothing."""

    def replace_file(self, name: str, data: bytes) -> None:
        """Create a small file, or put another in its place: readers see the old bytes or the new ones, whole."""
        raise io.UnsupportedOperation(f"{self.root}: no file can be replaced here")

    def copy_file(self, old: str, new: str) -> None:
        """Make `new` the same bytes as `old`, without moving them through this machine."""
        raise io.UnsupportedOperation(f"{self.root}: no file can be copied here")

    def files(self, name: str = "") -> Sequence[str]:
        """All files below a directory, at any depth, by their names relative to it, sorted."""
        raise io.UnsupportedOperation(f"{self.root}: files cannot be listed at once here")

    def claim(self, words: str, patience: float, take_over: bool = True) -> str | None:  # a place without locks
        """Keep other programs from saving here until `release`; None, or who is saving here.

        Args:
            words: who this is, for them to read.
            patience: seconds to wait for another program to end.
            take_over: put this one in the place of a program that counts as dead, or of which nobody can tell.
        """
        return None

    def taken_by(self) -> str | None:
        """Who has claimed this place since `claim`, where two programs cannot be kept apart; None if nobody."""
        return None

    def release(self) -> None:  # noqa: B027  # a place without locks
        """Let others save here."""
