"""Every byte of a checkpoint against its digest, a slice at a time: no tensor is made and none is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dist_toolkit.checkpoint.manifest import Chunk, Digest, FileEntry, Manifest
from dist_toolkit.checkpoint.tool.units import count_text
from dist_toolkit.storage import FileReader, Storage

_SLICE = 1 << 20


@dataclass(frozen=True)
class Damage:
    """Bytes that are not what the record says; `tensor` is empty if they are of no tensor."""

    file: str
    tensor: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.tensor}: {self.reason}" if self.tensor else f"{self.file}: {self.reason}"


def damages(
    storage: Storage, folder: str, manifest: Manifest, advance: Callable[[int], None] = lambda count: None
) -> list[Damage]:
    """All damage in the data files. `advance` is told the number of bytes as they are read."""
    by_file: dict[str, list[tuple[str, Chunk]]] = defaultdict(list)
    for name, tensor in manifest.tensors.items():
        for chunk in tensor.chunks:
            by_file[chunk.file].append((name, chunk))
    buffer = memoryview(bytearray(_SLICE))
    found: list[Damage] = []
    for file, entry in manifest.files.items():
        chunks = sorted(by_file[file], key=lambda row: (row[1].begin, row[1].end))
        try:
            with storage.open(f"{folder}/{file}") as reader:
                found += [Damage(file, *row) for row in _of_file(reader, entry, chunks, buffer, advance)]
        except FileNotFoundError:
            found.append(Damage(file, "", f"is missing, and with it {_names(chunks)}"))
        except OSError as error:  # a bad sector, say
            found.append(Damage(file, "", f"cannot be read: {error.strerror or error}"))
    return found


def _of_file(
    reader: FileReader,
    entry: FileEntry,
    chunks: list[tuple[str, Chunk]],
    buffer: memoryview,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, str]]:
    """(tensor, reason) of each damage."""
    if reader.size != entry.size:
        yield "", f"has {reader.size} bytes, should have {entry.size}"
    if _digest(reader, 0, entry.header, buffer, advance) != entry.digest:
        yield "", f"the header (bytes 0 to {entry.header}) does not match its digest"
    covered = entry.header
    for name, chunk in chunks:
        if chunk.begin > covered:
            yield "", f"bytes {covered} to {chunk.begin} are of no tensor, and under no digest"
        covered = max(covered, chunk.end)
        if chunk.end > reader.size:
            yield name, f"bytes {chunk.begin} to {chunk.end} are not all there: the file ends at {reader.size}"
        elif _digest(reader, chunk.begin, chunk.end, buffer, advance) != chunk.digest:
            yield name, f"bytes {chunk.begin} to {chunk.end} do not match their digest"
    if covered < entry.size:
        yield "", f"bytes {covered} to {entry.size} are of no tensor, and under no digest"


def _names(chunks: list[tuple[str, Chunk]]) -> str:
    """The tensors in a file, by the first of them."""
    names = list(dict.fromkeys(name for name, _ in chunks))
    if not names:
        return "no tensor"
    return names[0] if len(names) == 1 else f"{names[0]} and {count_text(len(names) - 1, 'more tensor')}"


def _digest(reader: FileReader, begin: int, end: int, buffer: memoryview, advance: Callable[[int], None]) -> str:
    """Of these bytes; empty if the file ends before."""
    if end > reader.size:
        return ""
    seen = Digest()
    for start in range(begin, end, _SLICE):
        view = buffer[: min(_SLICE, end - start)]
        reader.read_into(start, view)
        seen.update(view)
        advance(len(view))
    return seen.hex()
