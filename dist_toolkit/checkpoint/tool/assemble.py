"""Write tensors of a checkpoint as one safetensors file, a slice at a time: no tensor is made, types may change."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from dist_toolkit.checkpoint.manifest import Chunk, Digest, Manifest, TensorEntry
from dist_toolkit.checkpoint.tiling import Overlap
from dist_toolkit.checkpoint.tool.boxes import runs
from dist_toolkit.checkpoint.tool.cast import DoesNotFit, cast, cast_type, item_size
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import FileReader, Storage

_SLICE = 1 << 20


def assemble(
    storage: Storage, folder: str, manifest: Manifest, tensors: Mapping[str, TensorEntry], target: Path,
    about: Mapping[str, str], advance: Callable[[int], None], dtype: str | None = None,
) -> None:  # fmt: skip
    """Write `tensors`, by their names in the new file, comparing every digest; durably.

    Args:
        dtype: the safetensors name of the type that floats get; None: their own.

    Raises:
        CheckpointCorrupt: names file and tensor.
        UsageError: a number does not fit into `dtype`.
        OSError: the target cannot be written.
    """
    types = {name: (tensor.dtype, cast_type(tensor.dtype, dtype)) for name, tensor in tensors.items()}
    header, places = _layout(tensors, types, about)
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
                    if _copy(reader, name, chunk, out, place, types[name], advance) != chunk.digest:
                        raise CheckpointCorrupt(
                            path, f"{name}: bytes {chunk.begin} to {chunk.end} do not match their digest"
                        )
        out.flush()
        os.fsync(out.fileno())


def new_size(tensor: TensorEntry, dtype: str | None = None) -> int:
    """Bytes of a tensor in the new file."""
    return math.prod(tensor.shape) * item_size(cast_type(tensor.dtype, dtype))


def _layout(
    tensors: Mapping[str, TensorEntry], types: Mapping[str, tuple[str, str]], about: Mapping[str, str]
) -> tuple[bytes, dict[str, Chunk]]:
    """The safetensors header, and for each tensor its place in the new file; wide types first, so all are aligned."""
    entries: dict[str, object] = {"__metadata__": dict(about)}
    ends = [0]
    names = sorted(tensors, key=lambda name: -item_size(types[name][1]))
    for name in names:
        ends.append(ends[-1] + new_size(tensors[name], types[name][1]))
        entries[name] = {"dtype": types[name][1], "shape": list(tensors[name].shape), "data_offsets": ends[-2:]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    shift = len(header)
    places = {}
    for name, begin, end in zip(names, ends, ends[1:], strict=False):
        shape = tensors[name].shape
        places[name] = Chunk("", shift + begin, shift + end, (0,) * len(shape), shape, "")
    return header, places


def _copy(
    reader: FileReader, name: str, chunk: Chunk, out: BinaryIO, place: Chunk, types: tuple[str, str],
    advance: Callable[[int], None],
) -> str:  # fmt: skip
    """Copy the bytes of a chunk to where they belong in the whole tensor; the digest of what was read."""
    seen = Digest()
    if math.prod(chunk.sizes) == 0:
        return seen.hex()
    item, new_item = (item_size(dtype) for dtype in types)
    whole = place._replace(begin=0)  # positions in the tensor, in bytes of its saved type
    buffer = memoryview(bytearray(min(_SLICE, chunk.end - chunk.begin)))
    for (source, position), length in runs(Overlap(chunk.offsets, chunk.sizes), (chunk, whole), item):
        out.seek(place.begin + position // item * new_item)
        for start in range(0, length, _SLICE):  # runs follow the order of the chunk's own bytes
            view = buffer[: min(_SLICE, length - start)]
            reader.read_into(source + start, view)
            seen.update(view)
            out.write(view if types[0] == types[1] else _cast(name, view, types))
            advance(len(view))
    return seen.hex()


def _cast(name: str, view: memoryview, types: tuple[str, str]) -> bytes:
    try:
        return cast(view, *types)
    except DoesNotFit as error:
        raise UsageError(f"{name}: {error}; bf16 has the range of fp32") from None


def _open(storage: Storage, path: str, size: int) -> FileReader:
    try:
        reader = storage.open(path)
    except FileNotFoundError:
        raise CheckpointCorrupt(path, "is missing") from None
    if reader.size != size:
        reader.__exit__(None, None, None)
        raise CheckpointCorrupt(path, f"has {reader.size} bytes, should have {size}")
    return reader
