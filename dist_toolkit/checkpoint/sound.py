"""Whether a commit record makes sense, whoever signed it: what a reader may rely on. No torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dist_toolkit.checkpoint.layout import is_rank_file
from dist_toolkit.checkpoint.tiling import tile
from dist_toolkit.errors import CheckpointCorrupt

if TYPE_CHECKING:
    from dist_toolkit.checkpoint.manifest import FileEntry, Manifest, TensorEntry

_LARGEST = 2**63 - 1
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip
"""Of one element, by the safetensors name of its type."""


def check(manifest: Manifest, path: str) -> None:
    """Whether every number and name is one that can be: sizes, places, shapes, and chunks that make up the tensors.

    Raises:
        CheckpointCorrupt: says which is not.
    """
    files = manifest.files.values()
    if not (has_types(manifest) and all(_count(file.size) and _count(file.header) for file in files)):
        raise CheckpointCorrupt(path, "malformed manifest: a field is of another type than format 1 has, or no size")
    for name, file in manifest.files.items():
        if not is_rank_file(name) or not _is_digest(file.digest):
            raise CheckpointCorrupt(
                path, f"names the file {name!r}, which is not a data file of a checkpoint, or has no digest for it"
            )
        if not 0 <= file.header <= file.size:
            raise CheckpointCorrupt(path, f"{name}: a header of {file.header} bytes in {file.size}")
    for name, tensor in manifest.tensors.items():
        wrong = _wrong_with(tensor, manifest.files)
        if wrong:
            raise CheckpointCorrupt(path, f"{name}: {wrong}")
    _check_places(manifest, path)


def has_types(m: Manifest) -> bool:
    """Whether the fields but for files and tensors are of the types that format 1 has."""
    typed = {int: (m.step, m.world_size), str: (m.created, m.token), dict: (m.values, m.metrics, m.producer)}
    fits = all(type(value) is kind for kind, values in typed.items() for value in values)
    fits = fits and all(type(value) is float or _count(value, -_LARGEST) for value in m.metrics.values())
    fits = fits and all(type(value) is str for value in m.producer.values())
    return fits and _count(m.step) and _count(m.world_size, 1)


def _wrong_with(tensor: TensorEntry, files: Mapping[str, FileEntry]) -> str:
    """What keeps a tensor from being read; '' for nothing."""
    bits = BITS.get(tensor.dtype)
    if bits is None:
        return f"holds a tensor of the unknown type {tensor.dtype!r}"
    if not _are_counts(tensor) or math.prod(filter(None, tensor.shape)) * bits > 8 * _LARGEST:
        return "a size or a place that is not a count, or too large a shape"
    size = math.prod(tensor.shape)
    rank, covered, row = len(tensor.shape), 0, 0
    for file, begin, end, offsets, sizes, seen in tensor.chunks:
        holder = files.get(file)
        if holder is None or not holder.header <= begin <= end <= holder.size or not _is_digest(seen):
            return "a chunk lies outside its file, or has no digest"
        if not (len(offsets) == len(sizes) == rank and all(map(_fits, offsets, sizes, tensor.shape))):
            return f"a chunk lies outside the tensor's shape {list(tensor.shape)}"
        elements = math.prod(sizes)
        if 8 * (end - begin) != elements * bits:
            return f"{end - begin} bytes for shape {list(sizes)} of {tensor.dtype}"
        covered += elements
        if rank and row == offsets[0] and sizes[1:] == tensor.shape[1:]:
            row += sizes[0]
        else:
            row = -1
    if covered != size:
        return f"the chunks hold {covered} of {size} elements"
    in_rows = rank and row == tensor.shape[0]  # one behind the other, as most are cut
    if len(tensor.chunks) > 1 and not in_rows and not tile([c for c in tensor.chunks if math.prod(c.sizes)]):
        return "two chunks hold the same elements, and others are missing"
    return ""


def _fits(offset: int, size: int, length: int) -> bool:
    """Within a dimension; all are counts."""
    return offset + size <= length


def _check_places(manifest: Manifest, path: str) -> None:
    """No byte of a file is in two chunks: else a small file could stand for any amount of memory."""
    places: dict[str, list[tuple[int, int, str]]] = {}
    for name, tensor in manifest.tensors.items():
        for chunk in tensor.chunks:
            if chunk.begin < chunk.end:
                places.setdefault(chunk.file, []).append((chunk.begin, chunk.end, name))
    for file, spans in places.items():
        spans.sort()
        for (_, end, name), (begin, _, other) in itertools.pairwise(spans):
            if begin < end:
                raise CheckpointCorrupt(path, f"{file}: {name} and {other} lie in the same bytes")


def _count(value: Any, least: int = 0) -> bool:
    """A whole number that the system can handle as a size; JSON's true is none."""
    return type(value) is int and least <= value <= _LARGEST


def _are_counts(tensor: TensorEntry) -> bool:
    """The same of all numbers of a tensor, in a few calls."""
    numbers = [*tensor.shape]
    for chunk in tensor.chunks:
        numbers += (chunk.begin, chunk.end, *chunk.offsets, *chunk.sizes)
    return not numbers or ({*map(type, numbers)} == {int} and min(numbers) >= 0 and max(numbers) <= _LARGEST)


def _is_digest(value: Any) -> bool:
    return type(value) is str and value != ""
