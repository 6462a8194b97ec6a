"""Read the chunks that a rank needs, and believe none before its digest was compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch

from dist_toolkit.checkpoint.manifest import Chunk, Digest, FileEntry, Manifest, digest
from dist_toolkit.checkpoint.plan import LoadPlan
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import FileReader, Storage
from dist_toolkit.tensors import DTYPES, TensorMeta, byte_view

_SLICE = 1 << 19  # bytes that are read and digested at a time


def saved_tensors(manifest: Manifest) -> dict[str, TensorMeta]:
    """Shape and type of every tensor in the checkpoint."""
    return {name: TensorMeta(t.shape, DTYPES[t.dtype]) for name, t in manifest.tensors.items()}


def read_tensors(storage: Storage, folder: str, manifest: Manifest, template: Mapping[str, torch.Tensor]) -> None:
    """Fill the template's tensors.

    Raises:
        CheckpointCorrupt: a file is missing, or does not hold the bytes that the manifest says.
    """
    plan = LoadPlan(manifest, template)
    by_file: dict[str, list[tuple[str, Chunk]]] = defaultdict(list)
    for name, chunk in plan.chunks:
        by_file[chunk.file].append((name, chunk))
    for file, chunks in by_file.items():
        with open_file(storage, folder, file, manifest.files[file]) as reader:
            for name, chunk in chunks:
                _read_chunk(reader, f"{folder}/{file}", manifest, plan, name, chunk)


def verify_chunks(
    storage: Storage, folder: str, manifest: Manifest, names: Iterable[str], files: Iterable[str]
) -> None:
    """Read these tensors and the headers of these files, and compare digests; keep nothing.

    Raises:
        CheckpointCorrupt: see `read_tensors`.
    """
    chunks = [(name, chunk) for name in names for chunk in manifest.tensors[name].chunks]
    for file in sorted({chunk.file for _, chunk in chunks} | set(files)):
        with open_file(storage, folder, file, manifest.files[file]) as reader:
            for name, chunk in chunks:
                if chunk.file == file:
                    _read_checked(
                        reader, f"{folder}/{file}", name, chunk, memoryview(bytearray(chunk.end - chunk.begin))
                    )


def open_file(storage: Storage, folder: str, file: str, entry: FileEntry) -> FileReader:
    """The file, if it is as long as it should be and its header is whole.

    Raises:
        CheckpointCorrupt: it is not, or is missing.
    """
    path = f"{folder}/{file}"
    try:
        reader = storage.open(path)
    except FileNotFoundError:
        raise CheckpointCorrupt(path, "is missing") from None
    if reader.size != entry.size:
        reader.__exit__(None, None, None)
        raise CheckpointCorrupt(path, f"has {reader.size} bytes, should have {entry.size}")
    header = memoryview(bytearray(entry.header))
    reader.read_into(0, header)
    if digest(header) != entry.digest:
        reader.__exit__(None, None, None)
        raise CheckpointCorrupt(path, "the header does not match its digest")
    return reader


def _read_chunk(reader: FileReader, path: str, manifest: Manifest, plan: LoadPlan, name: str, chunk: Chunk) -> None:
    dtype = DTYPES[manifest.tensors[name].dtype]
    target = plan.whole_target(name, chunk)
    data = torch.empty(chunk.sizes, dtype=dtype) if target is None else target
    _read_checked(reader, path, name, chunk, byte_view(data))
    if target is None:
        plan.scatter(name, chunk, data)


def _read_checked(reader: FileReader, path: str, name: str, chunk: Chunk, view: memoryview) -> None:
    seen = Digest()
    for start in range(0, len(view), _SLICE):
        piece = view[start : start + _SLICE]
        reader.read_into(chunk.begin + start, piece)
        seen.update(piece)  # while it is in the processor's cache
    if seen.hex() != chunk.digest:
        raise CheckpointCorrupt(path, f"{name}: bytes {chunk.begin} to {chunk.end} do not match their digest")
