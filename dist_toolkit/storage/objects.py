"""Checkpoints in an object store, by fsspec: no rename, no directories, no locks; an object is put as a whole."""

from __future__ import annotations

import errno
import io
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dist_toolkit.storage.base import FileReader, Storage
from dist_toolkit.storage.ranged import RangeReader
from dist_toolkit.storage.retry import Bound, retried
from dist_toolkit.storage.staged import Staged

_LOG = logging.getLogger("dist_toolkit")
_LOCK = ".lock"
_AT_ONCE = 8  # deletions under way
_T = TypeVar("_T")

_claims: dict[str, list[Any]] = {}
"""Root -> [what this process wrote to its .lock, number of holders]."""


class ObjectStorage(Storage):
    """A prefix in an object store that puts objects as a whole and shows what was put at once (S3, GCS, Azure do)."""

    renames = False

    def __init__(self, filesystem: Any, path: str, root: str, bound: Bound | None = None) -> None:
        """`path` is how `filesystem`, one of fsspec's without a cache of listings, writes `root`."""
        self.root = root.rstrip("/")
        self._fs, self._path, self._bound = filesystem, path.rstrip("/"), bound or Bound()

    def write_file(self, name: str, pieces: Iterable[memoryview | bytes]) -> int:
        """Stage the pieces on this machine, upload them, and look whether all arrived."""
        with Staged(pieces) as staged:
            self._do("writing", name, lambda: self._send(staged, name))
            return staged.size

    def open(self, name: str) -> FileReader:
        """Open with reading ahead."""
        size = int(self._do("opening", name, lambda: self._fs.info(self._at(name)))["size"])
        return RangeReader(f"{self.root}/{name}", size, lambda begin, end: self._fetch(name, begin, end))

    def read_bytes(self, name: str, limit: int | None = None) -> bytes:
        """The whole object; with a limit, one request more."""
        if limit is not None:
            size = int(self._do("opening", name, lambda: self._fs.info(self._at(name)))["size"] or 0)
            if size > limit:
                raise OSError(errno.EFBIG, f"has {size} bytes, more than {limit}", f"{self.root}/{name}")
        return bytes(self._do("reading", name, lambda: self._fs.cat_file(self._at(name))))

    def list(self, name: str = "") -> list[str]:
        """First parts of what follows the name in the names of objects, sorted."""
        path = self._at(name)
        try:
            found = self._do("listing", name, lambda: self._fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
        prefix = path + "/"
        return sorted({one.rstrip("/")[len(prefix) :] for one in found if one.rstrip("/").startswith(prefix)})

    def files(self, name: str = "") -> Sequence[str]:
        """All objects whose names begin so."""
        prefix = self._at(name) + "/"
        try:
            found = self._do("listing", name, lambda: self._fs.find(prefix))
        except FileNotFoundError:
            return []
        return sorted(one[len(prefix) :] for one in found if one.startswith(prefix) and one != prefix)

    def make_dir(self, name: str) -> None:
        """Nothing: names make directories."""

    def rename(self, old: str, new: str) -> None:
        """Not here: see `renames`."""
        raise io.UnsupportedOperation(f"{self.root}: an object store moves nothing in one step")

    def sync_dir(self, name: str) -> None:
        """Nothing: what was put lasts."""

    def replace_file(self, name: str, data: bytes) -> None:
        """Put the object, in one request."""
        self._do("writing", name, lambda: self._fs.pipe_file(self._at(name), data))

    def copy_file(self, old: str, new: str) -> None:
        """Copy within the store."""
        self._do("copying", old, lambda: self._fs.cp_file(self._at(old), self._at(new)))

    def remove_file(self, name: str) -> None:
        """Delete the object, or find it deleted."""
        try:
            self._do("deleting", name, lambda: self._fs.rm_file(self._at(name)))
        except FileNotFoundError:
            return

    def remove_tree(self, name: str) -> None:
        """Delete all objects whose names begin so, in no order."""
        found = [f"{name}/{file}" for file in self.files(name)]
        if not found:
            return
        with ThreadPoolExecutor(min(_AT_ONCE, len(found)), "dist_toolkit deleting") as pool:
            for _ in pool.map(self.remove_file, found):
                pass

    def claim(self, words: str, patience: float, take_over: bool = True) -> str | None:
        """Write our name to `.lock`. Nobody can tell whether a program named there still runs: it is taken over.

        Its next save finds out by `taken_by`, and is refused. There is nothing to wait for.
        """
        if self.root in _claims:
            _claims[self.root][1] += 1
            return None
        try:
            holder = self._holder()
            if holder is not None and not take_over:
                return f"{_first_line(holder)} (so says {self.root}/{_LOCK}; delete it if that program has ended)"
            mine = f"{words}\n{secrets.token_hex(8)}\n".encode()
            self.replace_file(_LOCK, mine)
        except OSError:  # the save will say so
            return None
        if holder is not None:
            _LOG.warning(
                "%s was last saved to by %s, which did not take leave; if it still runs, its next save is refused",
                self.root, _first_line(holder),
            )  # fmt: skip
        _claims[self.root] = [mine, 1]
        return None

    def taken_by(self) -> str | None:
        """Who stands in `.lock` in our place."""
        if self.root not in _claims:
            return None
        holder = self._holder()
        if holder == _claims[self.root][0]:
            return None
        return "a program that has ended since" if holder is None else _first_line(holder)

    def release(self) -> None:
        """Delete `.lock` if it is ours."""
        if self.root not in _claims:
            return
        _claims[self.root][1] -= 1
        if _claims[self.root][1] > 0:
            return
        mine, _ = _claims.pop(self.root)
        try:
            if self._holder() == mine:
                self.remove_file(_LOCK)
        except OSError as error:
            _LOG.warning("%s/%s stays behind: %s", self.root, _LOCK, error)

    def _holder(self) -> bytes | None:
        try:
            return self.read_bytes(_LOCK)
        except FileNotFoundError:
            return None

    def _send(self, staged: Staged, name: str) -> None:
        staged.send(self._fs, self._at(name))
        arrived = int(self._fs.info(self._at(name))["size"])
        if arrived != staged.size:
            raise EOFError(f"{arrived} of {staged.size} bytes arrived")

    def _fetch(self, name: str, begin: int, end: int) -> bytes:
        return self._do("reading", name, lambda: self._exactly(name, begin, end))

    def _exactly(self, name: str, begin: int, end: int) -> bytes:
        data = bytes(self._fs.cat_file(self._at(name), start=begin, end=end))
        if len(data) != end - begin:
            raise EOFError(f"{len(data)} of {end - begin} bytes arrived")
        return data

    def _do(self, verb: str, name: str, call: Callable[[], _T]) -> _T:
        return retried(f"{verb} {self.root}/{name}".rstrip("/"), call, self._bound)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path


def _first_line(words: bytes) -> str:
    return words.decode(errors="replace").partition("\n")[0] or "another program"
