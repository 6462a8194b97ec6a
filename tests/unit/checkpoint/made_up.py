"""Checkpoints written by hand, without torch: bytes in files, and the record that fits them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.layout import MANIFEST, rank_file, step_dir
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, digest

Box = tuple[tuple[int, ...], tuple[int, ...], bytes]
"""Offsets, sizes, bytes."""


def write(
    root: Path, step: int, ranks: Sequence[Mapping[str, tuple[tuple[int, ...], Box]]], folder: str = "", **fields: Any
) -> Manifest:
    """Write a checkpoint of U8 tensors. `ranks` has, for each rank, tensor name -> (whole shape, the box it wrote)."""
    place = root / (folder or step_dir(step))
    place.mkdir(parents=True)
    files, shapes, chunks = {}, {}, {}
    for rank, held in enumerate(ranks):
        text = json.dumps({"made": "up"}).encode()
        data = bytearray(len(text).to_bytes(8, "little") + text)
        header = len(data)
        for name, (shape, (offsets, sizes, content)) in held.items():
            place_in_file = (rank_file(rank), len(data), len(data) + len(content))
            shapes[name] = shape
            chunks.setdefault(name, []).append(Chunk(*place_in_file, offsets, sizes, digest(content)))
            data += content
        files[rank_file(rank)] = FileEntry(len(data), header, digest(bytes(data[:header])))
        (place / rank_file(rank)).write_bytes(data)
    manifest = Manifest(
        step, len(ranks), fields.pop("created", f"2026-01-02T03:04:{step % 60:02}+00:00"), "0123456789abcdef", files,
        {name: TensorEntry("U8", shape, tuple(chunks[name])) for name, shape in shapes.items()},
        producer={"dist-toolkit": "0.1.0", "torch": "2.14.1"}, **fields,
    )  # fmt: skip
    (place / MANIFEST).write_bytes(manifest.encode())
    return manifest


def later_format(root: Path, step: int, version: int = 2) -> None:
    """A whole checkpoint of another format version, of which only the frame of the record is known."""
    write(root, step, [model()])
    record = root / step_dir(step) / MANIFEST
    body = json.dumps({"format": version, "what": "ever"})
    record.write_text(f'{{"format": {version}, "digest": "xxh3_128:{digest(body.encode())}", "body": {body}}}\n')


def whole(*shape: int, fill: int = 1) -> tuple[tuple[int, ...], Box]:
    """A tensor that one rank wrote as a whole."""
    count = 1
    for size in shape:
        count *= size
    return shape, ((0,) * len(shape), shape, bytes([fill]) * count)


def model(layers: int = 3, fill: int = 1) -> dict[str, tuple[tuple[int, ...], Box]]:
    """Names as a transformer has them."""
    names = {
        f"model.layers.{n}.{kind}.weight": whole(4, 8, fill=fill) for n in range(layers) for kind in ("up", "down")
    }
    return {"model.embed.weight": whole(100, 20, fill=fill), **names, "model.norm": whole(fill=fill)}


def cut(shape: tuple[int, ...], cuts: Sequence[Sequence[int]], content: bytes) -> Iterator[Box]:
    """The boxes of a tensor cut at these places of each dimension, with their bytes of `content`."""
    strides = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        strides[i] = strides[i + 1] * shape[i + 1]
    spans = [list(itertools.pairwise([0, *places, size])) for places, size in zip(cuts, shape, strict=True)]
    for box in itertools.product(*spans):
        cells = itertools.product(*(range(*span) for span in box))
        data = bytes(content[sum(i * s for i, s in zip(cell, strides, strict=True))] for cell in cells)
        yield tuple(b for b, _ in box), tuple(e - b for b, e in box), data


VALUES = {
    "engine": {
        "optim_groups": {"groups": [{"lr": 0.1, "betas": {"$tuple": [0.9, 0.999]}, "limit": {"$float": "inf"}}]}
    },
    "strategy": {"name": "fsdp", "precision": "bf16"},
    "loader": {"epoch": 1, "position": 640},
}
