"""Which tensors of two checkpoints hold other bytes: by their digests where both are cut alike, else by reading."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath

from dist_toolkit.checkpoint.manifest import Chunk, Manifest, TensorEntry
from dist_toolkit.checkpoint.tiling import overlap
from dist_toolkit.checkpoint.tool.boxes import runs, same_bytes
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.checkpoint.tool.terminal import Progress
from dist_toolkit.storage import FileReader, Storage


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints."""

    storage: Storage
    folder: str
    manifest: Manifest


def changed_contents(a: Side, b: Side, names: list[str]) -> list[str]:
    """Those of these names, of the same type and shape in both, whose bytes differ.

    Raises:
        UsageError: a file cannot be read, or ends too early.
    """
    pairs = {name: (a.manifest.tensors[name], b.manifest.tensors[name]) for name in names}
    to_read = [name for name, (left, right) in pairs.items() if not _cut_alike(left, right)]
    changed = {n for n, (left, right) in pairs.items() if _cut_alike(left, right) and _digests(left) != _digests(right)}
    total = sum(chunk.end - chunk.begin for name in to_read for chunk in pairs[name][0].chunks)
    with Progress(total) as progress, _Readers(a) as left_files, _Readers(b) as right_files:
        for name in to_read:
            progress.begin(name)
            if not _same_content(*pairs[name], left_files, right_files, progress):
                changed.add(name)
    return [name for name in names if name in changed]


def _digests(tensor: TensorEntry) -> dict[tuple[tuple[int, ...], tuple[int, ...]], str]:
    return {(chunk.offsets, chunk.sizes): chunk.digest for chunk in tensor.chunks}


def _cut_alike(a: TensorEntry, b: TensorEntry) -> bool:
    return _digests(a).keys() == _digests(b).keys()


def _same_content(a: TensorEntry, b: TensorEntry, left: _Readers, right: _Readers, progress: Progress) -> bool:
    for mine in a.chunks:
        for theirs in b.chunks:
            shared = overlap(mine, theirs)
            if shared is None:
                continue
            item = (mine.end - mine.begin) // _elements(mine)
            files = left.of(mine), right.of(theirs)
            for begins, length in runs(shared, (mine, theirs), item):
                if not _same_run(files, begins, length):
                    return False
                progress.advance(length)
    return True


def _same_run(files: tuple[FileReader, FileReader], begins: tuple[int, ...], length: int) -> bool:
    try:
        return same_bytes(*files, begins, length)
    except (EOFError, OSError) as error:
        raise UsageError(f"{error}: dtk ckpt verify says what is damaged") from None


def _elements(chunk: Chunk) -> int:
    count = 1
    for size in chunk.sizes:
        count *= size
    return count


class _Readers:
    """The data files of one checkpoint, opened when they are needed."""

    def __init__(self, side: Side) -> None:
        self._side, self._open, self._stack = side, dict[str, FileReader](), ExitStack()

    def of(self, chunk: Chunk) -> FileReader:
        """The file that holds the chunk."""
        if chunk.file not in self._open:
            name = str(PurePosixPath(self._side.folder, chunk.file))
            try:
                self._open[chunk.file] = self._stack.enter_context(self._side.storage.open(name))
            except OSError as error:
                raise UsageError(f"{self._side.storage.root}/{name}: {error.strerror or error}") from None
        return self._open[chunk.file]

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
