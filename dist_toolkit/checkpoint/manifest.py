"""The commit record of a checkpoint: what is in it, where, and the digest of every byte. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from dist_toolkit.checkpoint.layout import FORMAT, is_rank_file
from dist_toolkit.errors import CheckpointCorrupt

DIGEST = "xxh3_128"


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor, and the bytes of a file that hold it."""

    file: str
    begin: int
    end: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class TensorEntry:
    """A saved tensor: its type by the safetensors name, its global shape, and the chunks that make it up."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class FileEntry:
    """A data file: its size, and the digest of what precedes the data (the safetensors header)."""

    size: int
    header: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """Everything about one checkpoint but the tensors' bytes."""

    step: int
    world_size: int
    created: str
    token: str
    files: Mapping[str, FileEntry]
    tensors: Mapping[str, TensorEntry]
    values: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    producer: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of manifest.json: the body, and the digest of the body's own bytes."""
        body = {
            "step": self.step,
            "world_size": self.world_size,
            "created": self.created,
            "token": self.token,
            "producer": dict(self.producer),
            "metrics": dict(self.metrics),
            "values": dict(self.values),
            "files": {name: [f.size, f.header, f.digest] for name, f in self.files.items()},
            "tensors": {
                name: {"dtype": t.dtype, "shape": list(t.shape), "chunks": [_chunk_row(c) for c in t.chunks]}
                for name, t in self.tensors.items()
            },
        }
        return _render(body)


def digest(data: bytes | memoryview) -> str:
    """The digest used everywhere in a checkpoint: XXH3 with 128 bits, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


def decode(data: bytes, path: str) -> Manifest:
    """Read and check manifest.json.

    Raises:
        CheckpointCorrupt: not the bytes that `encode` wrote (a flipped bit, an edit, a truncation), another format
            version, or an entry that points outside the checkpoint.
    """
    try:
        outer = json.loads(data)
        version, body = outer["format"], outer["body"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointCorrupt(path, f"not a manifest ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise CheckpointCorrupt(
            path, f"checkpoint format {version!r}; this version of dist-toolkit reads format {FORMAT}"
        )
    if _render(body) != data:
        raise CheckpointCorrupt(path, "the manifest does not match its own digest")
    try:
        manifest = _from_body(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointCorrupt(path, f"malformed manifest ({type(error).__name__}: {error})") from None
    _check(manifest, path)
    return manifest


def _render(body: Any) -> bytes:
    text = json.dumps(body, sort_keys=True, indent=0, ensure_ascii=True)
    return f'{{"format": {FORMAT}, "digest": "{DIGEST}:{digest(text.encode())}", "body": {text}}}\n'.encode()


def _chunk_row(chunk: Chunk) -> list[Any]:
    return [chunk.file, chunk.begin, chunk.end, list(chunk.offsets), list(chunk.sizes), chunk.digest]


def _from_body(body: Mapping[str, Any]) -> Manifest:
    tensors = {}
    for name, entry in body["tensors"].items():
        chunks = tuple(Chunk(f, b, e, tuple(o), tuple(s), d) for f, b, e, o, s, d in entry["chunks"])
        tensors[name] = TensorEntry(entry["dtype"], tuple(entry["shape"]), chunks)
    files = {name: FileEntry(*row) for name, row in body["files"].items()}
    rest = {key: body[key] for key in ("step", "world_size", "created", "token", "values", "metrics", "producer")}
    return Manifest(files=files, tensors=tensors, **rest)


def _check(manifest: Manifest, path: str) -> None:
    for name, file in manifest.files.items():
        if not is_rank_file(name) or not file.digest:
            raise CheckpointCorrupt(
                path, f"names the file {name!r}, which is not a data file of a checkpoint, or has no digest for it"
            )
    for name, tensor in manifest.tensors.items():
        covered = 0
        for chunk in tensor.chunks:
            holder = manifest.files.get(chunk.file)
            if holder is None or not holder.header <= chunk.begin <= chunk.end <= holder.size or not chunk.digest:
                raise CheckpointCorrupt(path, f"{name}: a chunk lies outside its file, or has no digest")
            if not _inside(chunk, tensor.shape):
                raise CheckpointCorrupt(path, f"{name}: a chunk lies outside the tensor's shape {list(tensor.shape)}")
            covered += math.prod(chunk.sizes)
        if covered != math.prod(tensor.shape):
            raise CheckpointCorrupt(path, f"{name}: the chunks hold {covered} of {math.prod(tensor.shape)} elements")


def _inside(chunk: Chunk, shape: tuple[int, ...]) -> bool:
    if not len(chunk.offsets) == len(chunk.sizes) == len(shape):
        return False
    return all(o >= 0 and s >= 0 and o + s <= n for o, s, n in zip(chunk.offsets, chunk.sizes, shape, strict=True))
