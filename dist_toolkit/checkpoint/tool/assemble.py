"""Write tensors of a checkpoint as one safetensors file, a slice at a time: no tensor is made."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from dist_toolkit.checkpoint.manifest import Chunk, Digest, Manifest, TensorEntry
from dist_toolkit.checkpoint.tiling import Overlap
from dist_toolkit.checkpoint.tool.boxes import runs
from dist_toolkit.checkpoint.tool.tree import size_of
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import FileReader, Storage

_SLICE = 1 << 20


def assemble(
    storage: Storage, folder: str, manifest: Manifest, tensors: Mapping[str, TensorEntry], target: Path,
    about: Mapping[str, str], advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Write `tensors`, by their names in the new file, comparing every digest; durably.

    Raises:
        CheckpointCorrupt: names file and tensor.
        OSError: the target cannot be written.
    """
    header, places = _layout(tensors, about)
    by_file: dict[str, list[tuple[str, Chunk, Chunk]]] = defaultdict(list)
    for name, place in places.items():
        for chunk in tensors[name].chunks:
            by_file[chunk.file].append((name, chunk, place))
    with target.open("xb") as out:
        out.write(header)
        out.truncate(max([len(header), *(place.end for place in places.values())]))
        for file in sorted(by_file):
            path = f"{folder}/{file}"
            with _open(storage, path, manifest.files[file].size) as reader:
                for name, chunk, place in sorted(by_file[file], key=lambda row: row[1].begin):
                    if _copy(reader, chunk, out, place, advance) != chunk.digest:
                        raise CheckpointCorrupt(
                            path, f"{name}: bytes {chunk.begin} to {chunk.end} do not match their digest"
                        )
        out.flush()
        os.fsync(out.fileno())


def _layout(tensors: Mapping[str, TensorEntry], about: Mapping[str, str]) -> tuple[bytes, dict[str, Chunk]]:
    """The safetensors header, and for each tensor its place in the new file; wide types first, so all are aligned."""
    entries: dict[str, object] = {"__metadata__": dict(about)}
    ends = [0]
    names = sorted(tensors, key=lambda name: -_item(tensors[name]))
    for name in names:
        ends.append(ends[-1] + size_of(tensors[name]))
        entries[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": ends[-2:],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    shift = len(header)
    places = {}
    for name, begin, end in zip(names, ends, ends[1:], strict=False):
        shape = tensors[name].shape
        places[name] = Chunk("", shift + begin, shift + end, (0,) * len(shape), shape, "")
    return header, places


def _item(tensor: TensorEntry) -> int:
    """Bytes of an element; 1 where there is none."""
    count = 1
    for size in tensor.shape:
        count *= size
    return size_of(tensor) // count if count else 1


def _copy(reader: FileReader, chunk: Chunk, out: BinaryIO, place: Chunk, advance: Callable[[int], None]) -> str:
    """Copy the bytes of a chunk to where they belong in the whole tensor; their digest."""
    seen = Digest()
    count = 1
    for size in chunk.sizes:
        count *= size
    if count == 0:
        return seen.hex()
    item = (chunk.end - chunk.begin) // count
    buffer = memoryview(bytearray(min(_SLICE, chunk.end - chunk.begin)))
    for (source, target), length in runs(Overlap(chunk.offsets, chunk.sizes), (chunk, place), item):
        out.seek(target)
        for start in range(0, length, _SLICE):  # runs follow the order of the chunk's own bytes
            view = buffer[: min(_SLICE, length - start)]
            reader.read_into(source + start, view)
            seen.update(view)
            out.write(view)
            advance(len(view))
    return seen.hex()


def _open(storage: Storage, path: str, size: int) -> FileReader:
    try:
        reader = storage.open(path)
    except FileNotFoundError:
        raise CheckpointCorrupt(path, "is missing") from None
    if reader.size != size:
        reader.__exit__(None, None, None)
        raise CheckpointCorrupt(path, f"has {reader.size} bytes, should have {size}")
    return reader
