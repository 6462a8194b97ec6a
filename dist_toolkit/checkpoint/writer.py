"""Write one rank's chunks as a safetensors file, with a digest of every byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from dist_toolkit.checkpoint.file_layout import FileLayout, in_file_order
from dist_toolkit.checkpoint.manifest import Chunk, Digest, FileEntry, digest
from dist_toolkit.checkpoint.sharing import Held
from dist_toolkit.storage import Storage
from dist_toolkit.tensors import DTYPE_NAMES, byte_view

_SLICE = 1 << 20  # bytes that are digested and written at a time
_SMALL = 1 << 16  # pieces below this are copied together


@dataclass(frozen=True)
class OutChunk:
    """A box of tensor `name` to write: `data` lies at `offsets` of a tensor of `shape`."""

    name: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    data: torch.Tensor

    @property
    def box(self) -> Held:
        """Where it belongs."""
        return Held(self.name, DTYPE_NAMES[self.data.dtype], self.shape, self.offsets, tuple(self.data.shape))


@dataclass(frozen=True)
class Written:
    """What a rank wrote: its file, and a row for each chunk in it."""

    file: FileEntry
    rows: tuple[tuple[Held, Chunk], ...]


def write_shard(storage: Storage, path: str, file: str, chunks: Sequence[OutChunk]) -> Written:
    """Write `chunks` to the new file `path`, durably. `file` is the name that the manifest will use."""
    boxes = [chunk.box for chunk in chunks]
    order = in_file_order(boxes)
    layout = FileLayout(tuple(boxes[number] for number in order))
    digests = write_file(storage, path, layout, [chunks[number].data for number in order])
    return Written(layout.entry, tuple(layout.rows(file, digests)))


def write_file(storage: Storage, path: str, layout: FileLayout, data: Sequence[torch.Tensor]) -> list[str]:
    """Write the new file `path`, durably: the digest of each of the layout's chunks.

    Args:
        data: the tensor of each of the layout's boxes.
    """
    digests: list[str] = []
    storage.write_file(path, _joined(_pieces(layout, data, digests)))
    return digests


def _pieces(layout: FileLayout, data: Sequence[torch.Tensor], digests: list[str]) -> Iterator[memoryview | bytes]:
    yield layout.header
    chunks = iter(layout.chunks)
    for tensor in data:
        view = byte_view(tensor.contiguous().cpu())
        done = 0
        while True:
            _, begin, end = next(chunks)
            yield from _digested(view[done : done + end - begin], digests)
            done += end - begin
            if done == len(view):
                break


def _digested(view: memoryview, digests: list[str]) -> Iterator[memoryview]:
    """The same bytes; once all were taken, `digests` has one more."""
    if len(view) <= _SLICE:
        digests.append(digest(view))
        yield view
        return
    seen = Digest()
    for start in range(0, len(view), _SLICE):
        piece = view[start : start + _SLICE]
        seen.update(piece)  # and the write that follows finds it in the processor's cache
        yield piece
    digests.append(seen.hex())


def _joined(pieces: Iterable[memoryview | bytes]) -> Iterator[memoryview | bytes]:
    """The same bytes, small pieces copied together: one call of the system for many small tensors."""
    small = bytearray()
    for piece in pieces:
        if len(piece) < _SMALL:
            small += piece
        if small and (len(piece) >= _SMALL or len(small) >= _SLICE):
            yield bytes(small)
            small = bytearray()
        if len(piece) >= _SMALL:
            yield piece
    if small:
        yield bytes(small)
