"""Write a checkpoint of format 1 that was made of another program's: as a whole or not at all, tensor by tensor."""

from __future__ import annotations

import datetime
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping

import torch

from dist_toolkit.checkpoint.layout import MANIFEST, parse_dir, rank_file, step_dir, temporary_dir
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry
from dist_toolkit.checkpoint.tool.foreign.source import Converted, LazyTensor, Piece
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.checkpoint.writer import OutChunk, write_shard
from dist_toolkit.errors import DirectoryInUse
from dist_toolkit.storage import Storage
from dist_toolkit.tensors import DTYPE_NAMES
from dist_toolkit.version import __version__

_BATCH = 1 << 30  # bytes that are held at a time, and the size of a file


def write(
    storage: Storage, made: Converted, begin: Callable[[str], None], advance: Callable[[int], None],
    batch: int = _BATCH,
) -> str:  # fmt: skip
    """Write it; the name of its folder.

    Args:
        begin, advance: are told what is read, and how many bytes of it were written.
        batch: bytes of tensors that are held at a time.

    Raises:
        UsageError: there is a checkpoint of this step, a run saves there, or a tensor cannot be read.
        OSError: the storage refuses.
    """
    owner = storage.claim(f"dtk ckpt convert (process {os.getpid()})", 0.0)
    if owner is not None:
        raise UsageError(str(DirectoryInUse(storage.root, owner)))
    try:
        _refuse_taken(storage, made.step)
        return _write(storage, made, begin, advance, batch)
    finally:
        storage.release()


def _refuse_taken(storage: Storage, step: int) -> None:
    for folder in storage.list():
        parsed = parse_dir(folder)
        if parsed is not None and parsed[0] == step and parsed[1] in ("", ".old"):
            raise UsageError(f"{storage.root}/{folder} exists; pass another directory, or another --step")


def _write(
    storage: Storage, made: Converted, begin: Callable[[str], None], advance: Callable[[int], None], batch: int
) -> str:
    temporary, final = temporary_dir(made.step), step_dir(made.step)
    storage.remove_tree(temporary)  # what a conversion that was killed left
    storage.make_dir(temporary)
    try:
        files: dict[str, FileEntry] = {}
        places: dict[str, list[Chunk]] = {name: [] for name in made.tensors}
        for number, chunks in enumerate(_batches(made.tensors, begin, batch)):
            file = rank_file(number)
            written = write_shard(storage, f"{temporary}/{file}", file, chunks)
            files[file] = written.file
            for box, chunk in written.rows:
                places[box.name].append(chunk)
                advance(chunk.end - chunk.begin)
        tensors = {
            name: TensorEntry(DTYPE_NAMES[tensor.dtype], tensor.shape, tuple(places[name]))
            for name, tensor in made.tensors.items()
        }
        storage.write_file(f"{temporary}/{MANIFEST}", [_manifest(made, files, tensors).encode()])
        storage.sync_dir(temporary)
        storage.rename(temporary, final)
    except BaseException:
        storage.remove_tree(temporary)
        raise
    return final


def _batches(tensors: Mapping[str, LazyTensor], begin: Callable[[str], None], batch: int) -> Iterator[list[OutChunk]]:
    """Chunks of at most `batch` bytes together, or a single larger one; read as they are asked for."""
    held: list[OutChunk] = []
    size = 0
    for name, tensor in tensors.items():
        for piece in tensor.pieces:
            more = math.prod(piece.sizes) * tensor.dtype.itemsize
            if held and size + more > batch:
                yield held
                held, size = [], 0
            begin(name)
            held.append(OutChunk(name, tensor.shape, piece.offsets, _read(name, tensor, piece)))
            size += more
    yield held


def _read(name: str, tensor: LazyTensor, piece: Piece) -> torch.Tensor:
    data = piece.load()
    if (data.dtype, tuple(data.shape)) != (tensor.dtype, piece.sizes):
        raise UsageError(f"{name}: {data.dtype} of shape {list(data.shape)} where {list(piece.sizes)} was expected")
    return data.contiguous()


def _manifest(made: Converted, files: Mapping[str, FileEntry], tensors: Mapping[str, TensorEntry]) -> Manifest:
    return Manifest(
        step=made.step,
        world_size=1,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        token=secrets.token_hex(8),
        files=files,
        tensors=tensors,
        values=made.values,
        producer={"dist-toolkit": __version__, "torch": torch.__version__},
    )
