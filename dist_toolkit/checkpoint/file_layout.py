"""Where everything lies in a rank's file: a safetensors header, then the bytes. Pure, but for the order no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, digest
from dist_toolkit.checkpoint.sharing import Held
from dist_toolkit.checkpoint.sound import BITS

_PIECE = 4 << 20
_PIECES = 16
"""A large box has this many digests, each of _PIECE bytes or more: a rank that needs a part of it reads little else."""


@dataclass(frozen=True)
class FileLayout:
    """One rank's file: its header, and for each box the place of its bytes."""

    boxes: tuple[Held, ...]

    @cached_property
    def header(self) -> bytes:
        """Length, JSON, padding to 8 bytes. A box that is a whole tensor has the tensor's name."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for box, begin, end in zip(self.boxes, self._ends, self._ends[1:], strict=False):
            entries[label(box)] = {"dtype": box.dtype, "shape": box.sizes, "data_offsets": [begin, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def entry(self) -> FileEntry:
        """The file as the manifest names it."""
        return FileEntry(len(self.header) + self._ends[-1], len(self.header), digest(self.header))

    @cached_property
    def chunks(self) -> tuple[tuple[Held, int, int], ...]:
        """What has a digest of its own: boxes, large ones cut in pieces, each with its begin and end in the file."""
        start = len(self.header)
        return tuple(
            piece for box, begin in zip(self.boxes, self._ends, strict=False) for piece in _cut(box, start + begin)
        )

    @cached_property
    def _ends(self) -> list[int]:
        ends = [0]
        for box in self.boxes:
            ends.append(ends[-1] + box.bytes)
        return ends

    def rows(self, file: str, digests: Sequence[str]) -> Iterator[tuple[Held, Chunk]]:
        """For the manifest: each chunk with its digest, under the file's name."""
        for (box, begin, end), seen in zip(self.chunks, digests, strict=True):
            yield box, Chunk(file, begin, end, box.offsets, box.sizes, seen)


def label(box: Held) -> str:
    """The name of a box in the file: the tensor's own if this is the whole of it."""
    return box.name if box.sizes == box.shape else f"{box.name}@{','.join(map(str, box.offsets))}"


def _cut(box: Held, begin: int) -> Iterator[tuple[Held, int, int]]:
    """The box in pieces, as even as cutting along one dimension makes them."""
    size = box.bytes
    if size <= _PIECE or max(box.sizes, default=1) == 1:
        yield box, begin, begin + size
        return
    dim = next(d for d, length in enumerate(box.sizes) if length > 1)  # those before it do not break the bytes up
    row = size // box.sizes[dim]
    step = max(1, max(_PIECE, -(-size // _PIECES)) // row)
    for start in range(0, box.sizes[dim], step):
        length = min(step, box.sizes[dim] - start)
        offsets = (*box.offsets[:dim], box.offsets[dim] + start, *box.offsets[dim + 1 :])
        sizes = (*box.sizes[:dim], length, *box.sizes[dim + 1 :])
        yield box._replace(offsets=offsets, sizes=sizes), begin + start * row, begin + (start + length) * row


def in_file_order(boxes: Sequence[Held]) -> list[int]:
    """Positions in the order of the file: wide types first, so that every tensor lies as its type wants it."""
    return sorted(range(len(boxes)), key=lambda number: -BITS[boxes[number].dtype])
