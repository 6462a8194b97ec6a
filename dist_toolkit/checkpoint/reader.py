"""Read the chunks that a rank needs, and believe none before its digest was compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from dist_toolkit.checkpoint.manifest import Chunk, Digest, FileEntry, Manifest, digest
from dist_toolkit.checkpoint.reads import Read, plan_reads
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import FileReader, Storage
from dist_toolkit.tensors import DTYPES, TensorMeta, byte_view

_SLICE = 1 << 23  # bytes that are read and digested at a time: fewer from a disk would keep it waiting, more the cache
_RUN = 1 << 19  # bytes of small chunks that are read together
_SMALL = 1 << 16  # chunks below this are read together


def saved_tensors(manifest: Manifest) -> dict[str, TensorMeta]:
    """Shape and type of every tensor in the checkpoint."""
    return {name: TensorMeta(t.shape, DTYPES[t.dtype]) for name, t in manifest.tensors.items()}


def read_tensors(storage: Storage, folder: str, manifest: Manifest, template: Mapping[str, torch.Tensor]) -> None:
    """Fill the template's tensors.

    Raises:
        CheckpointCorrupt: a file is missing, or does not hold the bytes that the manifest says.
    """
    with torch.no_grad():
        for file, reads in plan_reads(manifest, template).items():
            with open_file(storage, folder, file, manifest.files[file]) as reader:
                for run in _runs(reads):
                    _read_run(reader, f"{folder}/{file}", run)


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


def _runs(reads: Sequence[Read]) -> Iterator[list[Read]]:
    """Small chunks that follow one another in the file, together; every other read on its own."""
    run: list[Read] = []
    size = 0
    for read in reads:
        length = read.chunk.end - read.chunk.begin
        if run and (length >= _SMALL or size + length > _RUN or read.chunk.begin != run[-1].chunk.end):
            yield run
            run, size = [], 0
        run.append(read)
        size += length
        if length >= _SMALL:
            yield run
            run, size = [], 0
    if run:
        yield run


def _read_run(reader: FileReader, path: str, run: Sequence[Read]) -> None:
    if len(run) == 1:
        _read_one(reader, path, run[0])
        return
    start = run[0].chunk.begin
    memory = torch.empty(run[-1].chunk.end - start, dtype=torch.uint8)
    view = byte_view(memory)
    reader.read_into(start, view)
    for read in run:
        piece = view[read.chunk.begin - start : read.chunk.end - start]
        if digest(piece) != read.chunk.digest:
            raise _damaged(path, read.name, read.chunk)
        if read.is_direct:
            byte_view(read.target)[:] = piece
        else:
            _put(read, memory[read.chunk.begin - start : read.chunk.end - start])


def _read_one(reader: FileReader, path: str, read: Read) -> None:
    if read.is_direct:
        _read_checked(reader, path, read.name, read.chunk, byte_view(read.target))
        return
    memory = torch.empty(read.chunk.end - read.chunk.begin, dtype=torch.uint8)
    _read_checked(reader, path, read.name, read.chunk, byte_view(memory))
    _put(read, memory)


def _put(read: Read, data: torch.Tensor) -> None:
    """Copy what is wanted of a chunk's bytes."""
    if data.storage_offset() % read.dtype.itemsize:
        data = data.clone()  # a chunk that another program has laid out
    chunk = data.view(read.dtype).view(read.chunk.sizes)
    for part in (read, *read.more):
        part.target.copy_(chunk if part.source is None else chunk[part.source])


def _read_checked(reader: FileReader, path: str, name: str, chunk: Chunk, view: memoryview) -> None:
    if len(view) <= _SLICE:
        reader.read_into(chunk.begin, view)
        seen = digest(view)
    else:
        state = Digest()
        for start in range(0, len(view), _SLICE):
            piece = view[start : start + _SLICE]
            reader.read_into(chunk.begin + start, piece)
            state.update(piece)  # while it is in the processor's cache
        seen = state.hex()
    if seen != chunk.digest:
        raise _damaged(path, name, chunk)


def _damaged(path: str, name: str, chunk: Chunk) -> CheckpointCorrupt:
    return CheckpointCorrupt(path, f"{name}: bytes {chunk.begin} to {chunk.end} do not match their digest")
