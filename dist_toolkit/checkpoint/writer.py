"""Write one rank's chunks as a safetensors file, with a digest of every byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dist_toolkit.checkpoint.manifest import Chunk, Digest, FileEntry, digest
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
    def label(self) -> str:
        """The tensor's name in the file: its own if this is the whole of it."""
        whole = tuple(self.data.shape) == self.shape
        return self.name if whole else f"{self.name}@{','.join(map(str, self.offsets))}"


@dataclass(frozen=True)
class Written:
    """What a rank wrote: its file, and a row (name, dtype, shape, chunk) for each chunk in it."""

    file: FileEntry
    rows: tuple[tuple[str, str, tuple[int, ...], Chunk], ...]

    def to_json(self) -> Any:
        """Plain data, for the other ranks."""
        file = [self.file.size, self.file.header, self.file.digest]
        rows = [[n, d, s, [c.file, c.begin, c.end, c.offsets, c.sizes, c.digest]] for n, d, s, c in self.rows]
        return {"file": file, "rows": rows}

    @classmethod
    def from_json(cls, value: Any) -> Written:
        """The inverse of `to_json`."""
        rows = [(name, dtype, tuple(shape), _chunk(chunk)) for name, dtype, shape, chunk in value["rows"]]
        return cls(FileEntry(*value["file"]), tuple(rows))


def write_shard(storage: Storage, path: str, file: str, chunks: Sequence[OutChunk]) -> Written:
    """Write `chunks` to the new file `path`, durably. `file` is the name that the manifest will use."""
    header, begins = _header(chunks)
    rows: list[tuple[str, str, tuple[int, ...], Chunk]] = []
    size = storage.write_file(path, _joined(_pieces(header, chunks, begins, file, rows)))
    return Written(FileEntry(size, len(header), digest(header)), tuple(rows))


def _header(chunks: Sequence[OutChunk]) -> tuple[bytes, list[int]]:
    """The safetensors header (length, JSON, padded to 8 bytes) and the offset of each chunk in the file."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ends = [0]
    for chunk in chunks:
        ends.append(ends[-1] + chunk.data.numel() * chunk.data.element_size())
        entries[chunk.label] = {
            "dtype": DTYPE_NAMES[chunk.data.dtype],
            "shape": list(chunk.data.shape),
            "data_offsets": ends[-2:],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, [len(header) + end for end in ends[:-1]]


def _pieces(
    header: bytes,
    chunks: Sequence[OutChunk],
    begins: Sequence[int],
    file: str,
    rows: list[tuple[str, str, tuple[int, ...], Chunk]],
) -> Iterator[memoryview | bytes]:
    yield header
    for chunk, begin in zip(chunks, begins, strict=True):
        view = byte_view(chunk.data.contiguous().cpu())
        seen = Digest()
        for start in range(0, len(view), _SLICE):
            piece = view[start : start + _SLICE]
            seen.update(piece)  # and the write that follows finds it in the processor's cache
            yield piece
        place = Chunk(file, begin, begin + len(view), chunk.offsets, tuple(chunk.data.shape), seen.hex())
        rows.append((chunk.name, DTYPE_NAMES[chunk.data.dtype], chunk.shape, place))


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


def _chunk(value: Any) -> Chunk:
    file, begin, end, offsets, sizes, seen = value
    return Chunk(file, begin, end, tuple(offsets), tuple(sizes), seen)
