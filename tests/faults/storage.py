"""A storage that is killed, or refuses, at one chosen operation: before it, half-way through it, or after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from dist_toolkit.storage import FileReader, Storage, objects

When = Literal["before", "half", "after"]


class Killed(BaseException):
    """The program ends here, as by SIGKILL: nothing that it still wants to do with the storage is done."""


@dataclass(frozen=True)
class Fault:
    """What happens at operation number `at`: `error` (a number: that OSError); without one, the program is killed."""

    at: int
    when: When = "before"
    error: int | Exception | None = None

    def __str__(self) -> str:
        what = os.strerror(self.error) if isinstance(self.error, int) else repr(self.error or "killed")
        return f"{what} {self.when} operation {self.at}"


class FaultyStorage(Storage):
    """Does what `inner` does, and counts: each call, each piece of a file that is written, each read of an open file.

    Attributes:
        visited: the operations so far, in words.
        moved: the renames that took effect, (old, new).
        put: the files that were replaced, as an object store's records are.
        fired: whether the fault has happened.
        on_death: called where the program is killed.
    """

    def __init__(self, inner: Storage, fault: Fault | None = None) -> None:
        self.root, self.renames = inner.root, inner.renames
        self.inner, self.fault = inner, fault
        self.visited: list[str] = []
        self.moved: list[tuple[str, str]] = []
        self.put: list[str] = []
        self.fired = self.dead = False
        self.on_death: Callable[[], None] = lambda: None

    def bury(self) -> None:
        """What the operating system does after a process has ended: its lock is gone. Not so in an object store."""
        if not self.renames:
            objects._claims.clear()
            return
        for _ in range(3):  # however often it was taken; once more does nothing
            with suppress(OSError):
                self.inner.release()

    def write_file(self, name: str, pieces: Iterable[memoryview | bytes]) -> int:
        return self._do(f"write {name}", lambda: self.inner.write_file(name, self._watched(name, pieces)))

    def open(self, name: str) -> FileReader:
        return _Reader(self, name, self._do(f"open {name}", lambda: self.inner.open(name)))

    def read_bytes(self, name: str, limit: int | None = None) -> bytes:
        return self._do(f"read {name}", lambda: self.inner.read_bytes(name, limit))

    def list(self, name: str = "") -> list[str]:
        return self._do(f"list {name}", lambda: self.inner.list(name))

    def make_dir(self, name: str) -> None:
        self._do(f"make {name}", lambda: self.inner.make_dir(name))

    def rename(self, old: str, new: str) -> None:
        def move() -> None:
            self.inner.rename(old, new)
            self.moved.append((old, new))

        self._do(f"rename {old} to {new}", move)

    def sync_dir(self, name: str) -> None:
        self._do(f"sync {name}", lambda: self.inner.sync_dir(name))

    def remove_file(self, name: str) -> None:
        self._do(f"remove {name}", lambda: self.inner.remove_file(name))

    def remove_tree(self, name: str) -> None:
        def part() -> None:
            for file in self.inner.list(name)[:1]:
                self.inner.remove_file(f"{name}/{file}")

        self._do(f"remove all of {name}", lambda: self.inner.remove_tree(name), part)

    def check_writable(self) -> None:
        self._do("check", self.inner.check_writable)

    def replace_file(self, name: str, data: bytes) -> None:
        def put() -> None:
            self.inner.replace_file(name, data)
            self.put.append(name)

        self._do(f"replace {name}", put)

    def copy_file(self, old: str, new: str) -> None:
        self._do(f"copy {old} to {new}", lambda: self.inner.copy_file(old, new))

    def files(self, name: str = "") -> Sequence[str]:
        return self._do(f"list all of {name}", lambda: self.inner.files(name))

    def claim(self, words: str, patience: float, take_over: bool = True) -> str | None:
        return self._do("claim", lambda: self.inner.claim(words, patience, take_over))

    def taken_by(self) -> str | None:
        return self._do("taken by", self.inner.taken_by)

    def release(self) -> None:
        self._do("release", self.inner.release)

    def _watched(self, name: str, pieces: Iterable[memoryview | bytes]) -> Iterator[memoryview | bytes]:
        for piece in pieces:
            if not self._arrive(f"write a piece of {name}"):
                yield piece
                continue
            if self.fault is not None and self.fault.when != "before":
                view = memoryview(piece).cast("B")
                yield view if self.fault.when == "after" else view[: len(view) // 2]
            raise self._blow(name)

    def _do(self, words: str, effect: Callable[[], Any], part: Callable[[], None] = lambda: None) -> Any:
        if not self._arrive(words):
            return effect()
        if self.fault is not None and self.fault.when != "before":
            with suppress(OSError):  # that it would have raised anyway
                (effect if self.fault.when == "after" else part)()
        raise self._blow(words)

    def _arrive(self, words: str) -> bool:
        """Count an operation; whether the fault is here."""
        if self.dead:
            raise Killed(words)
        self.visited.append(words)
        self.fired = self.fired or (self.fault is not None and len(self.visited) - 1 == self.fault.at)
        return self.fault is not None and len(self.visited) - 1 == self.fault.at

    def _blow(self, words: str) -> BaseException:
        if self.fault is not None and isinstance(self.fault.error, Exception):
            return self.fault.error
        if self.fault is not None and self.fault.error is not None:
            return OSError(self.fault.error, os.strerror(self.fault.error), f"{self.root}: {words}")
        self.dead = True
        self.on_death()
        return Killed(words)


class _Reader:
    def __init__(self, storage: FaultyStorage, name: str, inner: FileReader) -> None:
        self._storage, self._name, self._inner = storage, name, inner
        self.size = inner.size

    def read_into(self, offset: int, view: memoryview) -> None:
        self._storage._do(f"read from {self._name}", lambda: self._inner.read_into(offset, view))

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._inner.__exit__(*exception)
