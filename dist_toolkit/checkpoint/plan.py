"""Who writes and who reads what. The planning is torch.distributed.checkpoint's; here it is fed and read."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem, SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor

from dist_toolkit.checkpoint.manifest import Chunk, Manifest, TensorEntry
from dist_toolkit.checkpoint.writer import OutChunk
from dist_toolkit.process_group import Group
from dist_toolkit.tensors import DTYPE_NAMES, DTYPES


class SavePlans:
    """Plans of saves. State that is laid out as the last time is not planned again."""

    def __init__(self) -> None:
        self._layout: bytes | None = None
        self._items: list[WriteItem] = []

    def plan(self, tensors: Mapping[str, torch.Tensor], group: Group) -> list[OutChunk]:
        """The chunks that this rank writes: what ranks hold in common is written once, by the rank with least to do.

        Collective: one small exchange; where a rank has another layout than the last time, another of names, shapes
        and places.
        """
        planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(dict(tensors), is_coordinator=group.world.is_main)
        layout = _layout(tensors)
        if not all(group.all_gather_json(layout == self._layout)):
            self._items = _share_out(planner, group)
            self._layout = layout
        return [_out_chunk(item, planner.resolve_data(item)) for item in self._items]


def _share_out(planner: DefaultSavePlanner, group: Group) -> list[WriteItem]:
    """What this rank is to write. Collective."""
    local = planner.create_local_plan()
    everyone = group.all_gather_json([_to_row(item) for item in local.items])
    plans = [SavePlan([_from_row(row) for row in rows]) for rows in everyone]
    plans[group.world.rank] = local
    final, _ = planner.create_global_plan(plans)
    mine: list[WriteItem] = planner.finish_plan(final[group.world.rank]).items
    return mine


def _layout(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A digest of names, types, shapes and, of sharded tensors, this rank's place."""
    seen = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if isinstance(tensor, DTensor):
            mesh = tensor.device_mesh
            local = tuple(tensor.to_local().shape)
            seen.update(f" {tensor.placements} {mesh.shape} {mesh.get_coordinate()} {local}".encode())
        seen.update(b"\n")
    return seen.digest()


class LoadPlan:
    """The reads of this rank: each saved chunk that it needs, with the places in its own tensors to copy it to."""

    def __init__(self, manifest: Manifest, template: Mapping[str, torch.Tensor]) -> None:
        self._planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        saved = {name: manifest.tensors[name] for name in template}
        self._planner.set_up_planner(dict(template), _metadata(saved), is_coordinator=True)
        self._reads: dict[tuple[str, tuple[int, ...]], list[ReadItem]] = defaultdict(list)
        for item in self._planner.create_local_plan().items:
            offset = item.storage_index.offset
            self._reads[item.storage_index.fqn, tuple(offset) if offset is not None else ()].append(item)
        self.chunks = [
            (name, chunk)
            for name, entry in saved.items()
            for chunk in entry.chunks
            if (name, chunk.offsets) in self._reads
        ]

    def whole_target(self, name: str, chunk: Chunk) -> torch.Tensor | None:
        """The tensor that is exactly this chunk and can be read into as it lies in memory, or None."""
        items = self._reads[name, chunk.offsets]
        if len(items) != 1 or tuple(items[0].lengths) != chunk.sizes:
            return None
        target = self._planner.resolve_tensor(items[0])
        fits = target.device.type == "cpu" and target.is_contiguous() and tuple(target.shape) == chunk.sizes
        return target if fits else None

    def scatter(self, name: str, chunk: Chunk, data: torch.Tensor) -> None:
        """Copy a chunk that was read to where this rank needs it."""
        for item in self._reads[name, chunk.offsets]:
            piece = data
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                piece = piece.narrow(dim, start, length)
            target = self._planner.resolve_tensor(item)
            target.copy_(piece)
            self._planner.commit_tensor(item, target)


def _metadata(saved: Mapping[str, TensorEntry]) -> Metadata:
    return Metadata(
        {
            name: TensorStorageMetadata(
                TensorProperties(dtype=DTYPES[entry.dtype]),
                torch.Size(entry.shape),
                [ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes)) for chunk in entry.chunks],
            )
            for name, entry in saved.items()
        }
    )


def _to_row(item: WriteItem) -> list[Any]:
    data = item.tensor_data
    if data is None:
        raise AssertionError(f"{item.index.fqn} is planned without tensor data")
    return [
        item.index.fqn,
        item.type.name,
        list(data.chunk.offsets),
        list(data.chunk.sizes),
        list(data.size),
        DTYPE_NAMES[data.properties.dtype],
    ]


def _from_row(row: list[Any]) -> WriteItem:
    name, kind, offsets, sizes, shape, dtype = row
    chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
    data = TensorWriteData(chunk, TensorProperties(dtype=DTYPES[dtype]), torch.Size(shape))
    return WriteItem(MetadataIndex(name, torch.Size(offsets)), WriteItemType[kind], tensor_data=data)


def _out_chunk(item: WriteItem, data: Any) -> OutChunk:
    place = item.tensor_data
    if place is None:
        raise AssertionError(f"{item.index.fqn} is planned without tensor data")
    return OutChunk(item.index.fqn, tuple(place.size), tuple(place.chunk.offsets), data.detach())
