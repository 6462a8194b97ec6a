"""What a place for checkpoints must be able to do. Names are relative to the storage's root, with `/` between parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
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

    @abstractmethod
    def write_file(self, name: str, pieces: Iterable[memoryview | bytes]) -> int:
        """Create the file from the pieces and make it durable; the number of bytes. The file must not exist."""

    @abstractmethod
    def open(self, name: str) -> FileReader:
        """Open a file to read. FileNotFoundError if it is not there."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """The whole file. FileNotFoundError if it is not there."""

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
        """Delete a file. FileNotFoundError if it is not there."""

    @abstractmethod
    def remove_tree(self, name: str) -> None:
        """Delete a directory and what is in it; nothing if it is not there."""

    def check_writable(self) -> None:  # noqa: B027  # a place where only writing tells
        """Raise OSError where it is known that nothing can be written here. Changes nothing."""

    def claim(self, words: str, patience: float) -> str | None:  # a place without locks
        """Keep other programs from saving here until `release`; None, or who is saving here.

        Args:
            words: who this is, for them to read.
            patience: seconds to wait for another program to end.
        """
        return None

    def release(self) -> None:  # noqa: B027  # a place without locks
        """Let others save here."""
