"""The commit record of a checkpoint: what is in it, where, and the digest of every byte. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from dist_toolkit.checkpoint.layout import FORMAT
from dist_toolkit.checkpoint.plain import check_values, unique
from dist_toolkit.checkpoint.sound import check, has_types
from dist_toolkit.errors import CheckpointCorrupt, OtherFormat

DIGEST = "xxh3_128"
_START = re.compile(rb'\{"format": (\d{1,18}), "digest": "xxh3_128:([0-9a-f]{32})", "body": ')
_END = b"}\n"
_HEAD_ENDS = b',\n"values": {'
_NO_STATE: Mapping[str, Any] = {"values": {}, "files": {}, "tensors": {}}
_ENCODE = json.JSONEncoder().encode
_TEXT = json.encoder.encode_basestring_ascii


class Chunk(NamedTuple):
    """A box of a tensor, and the bytes of a file that hold it."""

    file: str
    begin: int
    end: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    digest: str


class TensorEntry(NamedTuple):
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
        """The bytes of manifest.json: the body, a line for each tensor, and the digest of the body's own bytes."""
        plain = {
            "step": self.step,
            "world_size": self.world_size,
            "created": self.created,
            "token": self.token,
            "producer": dict(self.producer),
            "metrics": dict(self.metrics),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in plain.items()]
        files = {name: _ENCODE([f.size, f.header, f.digest]) for name, f in self.files.items()}
        lines.append(_block("values", {name: _ENCODE(value) for name, value in self.values.items()}))
        lines.append(_block("files", files))
        lines.append(_block("tensors", {name: _tensor_row(tensor) for name, tensor in self.tensors.items()}))
        body = ("{\n" + ",\n".join(lines) + "\n}").encode()
        return f'{{"format": {FORMAT}, "digest": "{DIGEST}:{digest(body)}", "body": '.encode() + body + _END


def digest(data: bytes | memoryview) -> str:
    """The digest used everywhere in a checkpoint: XXH3 with 128 bits, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


class Digest:
    """The same, of bytes that come in pieces."""

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """Go on with these bytes."""
        self._state.update(data)

    def hex(self) -> str:
        """Of all bytes until here."""
        return str(self._state.hexdigest())


def decode(data: bytes, path: str) -> Manifest:
    """Read and check manifest.json.

    Raises:
        CheckpointCorrupt: not the bytes that `encode` wrote (a flipped bit, an edit, a truncation), another format
            version, or an entry that points outside the checkpoint.
        OtherFormat: a whole one of another version.
    """
    text = body_of(data, path)
    try:
        content = json.loads(text, object_pairs_hook=unique)
        if content.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its body says format {content['format']!r}")
        manifest = _from_body(content)
        check(manifest, path)
        check_values(dict(manifest.values), manifest.tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointCorrupt(path, f"malformed manifest ({type(error).__name__}: {error})") from None
    return manifest


def head_of(text: bytes) -> Manifest | None:
    """Of a body, what stands before values, files and tensors; None where it is not laid out as `encode` does it."""
    end = text.find(_HEAD_ENDS)
    if end < 0:
        return None
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        head = _from_body({**_NO_STATE, **json.loads(text[:end] + b"}", object_pairs_hook=unique)})
        if has_types(head) and not (head.files or head.tensors or head.values):
            return head
    return None


def body_of(data: bytes, path: str) -> bytes:
    """The body of a record, whose digest holds.

    Raises:
        CheckpointCorrupt, OtherFormat: as `decode`.
    """
    start = _START.match(data)
    if start is None:
        raise CheckpointCorrupt(path, _not_ours(data))
    text = data[start.end() : -len(_END)]
    if int(start[1]) != FORMAT:
        kind = OtherFormat if digest(text) == start[2].decode() and _says(text, int(start[1])) else CheckpointCorrupt
        raise kind(path, _other_format(int(start[1])))
    if not data.endswith(_END) or digest(text) != start[2].decode():
        raise CheckpointCorrupt(path, "the manifest does not match its own digest")
    return text


def _says(body: bytes, version: int) -> bool:
    """Whether the body repeats the format's number, as other formats than 1 do: else the number itself is damaged."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return bool(json.loads(body)["format"] == version)
    return False


def _not_ours(data: bytes) -> str:
    """What is wrong with bytes that do not begin as a manifest does."""
    try:
        version = json.loads(data)["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"not a manifest ({type(error).__name__}: {error})"
    return "the manifest has no digest" if type(version) is int and version == FORMAT else _other_format(version)


def _other_format(version: Any) -> str:
    return f"checkpoint format {version!r}; this version of dist-toolkit reads format {FORMAT}"


def _block(key: str, rows: Mapping[str, str]) -> str:
    """`"key": {...}` with a line for each row, which is JSON already."""
    if not rows:
        return f"{json.dumps(key)}: {{}}"
    lines = ",\n".join(f"{_TEXT(name)}: {row}" for name, row in rows.items())
    return f"{json.dumps(key)}: {{\n{lines}\n}}"


def _tensor_row(tensor: TensorEntry) -> str:
    """As JSON. With thousands of tensors a call of the encoder for each would cost more than all the rest."""
    chunks = ", ".join(
        f"[{_TEXT(file)}, {begin}, {end}, {[*offsets]}, {[*sizes]}, {_TEXT(seen)}]"
        for file, begin, end, offsets, sizes, seen in tensor.chunks
    )
    return f'{{"dtype": {_TEXT(tensor.dtype)}, "shape": {[*tensor.shape]}, "chunks": [{chunks}]}}'


def _from_body(body: Mapping[str, Any]) -> Manifest:
    tensors = {}
    for name, entry in body["tensors"].items():
        chunks = tuple(Chunk(f, b, e, tuple(o), tuple(s), d) for f, b, e, o, s, d in entry["chunks"])
        tensors[name] = TensorEntry(entry["dtype"], tuple(entry["shape"]), chunks)
    files = {name: FileEntry(*row) for name, row in body["files"].items()}
    rest = {key: body[key] for key in ("step", "world_size", "created", "token", "values", "metrics", "producer")}
    return Manifest(files=files, tensors=tensors, **rest)
