"""What a rank reads of which file, and where it puts it: the saved chunks that meet what the rank holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch

from dist_toolkit.checkpoint.manifest import Chunk, Manifest
from dist_toolkit.checkpoint.share import Share, Shares
from dist_toolkit.checkpoint.tiling import overlap


class Read(NamedTuple):
    """A chunk that a rank needs."""

    name: str
    chunk: Chunk
    dtype: torch.dtype
    target: torch.Tensor
    """The part of the rank's tensor that the chunk fills or, where that is not the whole chunk, a part of."""
    source: tuple[slice, ...] | None
    """The part of the chunk that is wanted; None: all of it."""
    more: tuple[Read, ...] = ()
    """Other parts of the chunk, for other boxes of the rank's tensor."""

    @property
    def is_direct(self) -> bool:
        """Whether the bytes can be read into the target's memory as they come."""
        whole = self.source is None and not self.more
        return whole and self.target.device.type == "cpu" and self.target.is_contiguous()


def plan_reads(manifest: Manifest, template: Mapping[str, torch.Tensor]) -> dict[str, list[Read]]:
    """The reads of each file, in the order of the file. Not collective.

    Args:
        template: tensors to fill, of the shapes and types that the manifest has for them.
    """
    shares = Shares()
    found: dict[str, list[Read]] = defaultdict(list)
    for name, tensor in template.items():
        mine = [share for share in shares.all_of(tensor) if share.data.numel()]
        chunks = manifest.tensors[name].chunks if mine else ()
        if len(mine) == 1:  # saved as it is held: the others are for other ranks, as no two chunks overlap
            box = mine[0].offsets, mine[0].sizes
            chunks = next(((chunk,) for chunk in chunks if (chunk.offsets, chunk.sizes) == box), chunks)
        for chunk in chunks:
            reads = [read for share in mine if (read := meet(name, chunk, share)) is not None]
            if reads:
                found[chunk.file].append(reads[0]._replace(more=tuple(reads[1:])))
    return {file: sorted(reads, key=lambda read: read.chunk.begin) for file, reads in found.items()}


def meet(name: str, chunk: Chunk, share: Share) -> Read | None:
    """What a rank needs of a chunk; None if nothing."""
    data = share.data
    if chunk.offsets == share.offsets and chunk.sizes == share.sizes:
        return Read(name, chunk, data.dtype, data, None)
    common = overlap(chunk, share)
    if common is None:
        return None
    target = data[_within(common.offsets, common.sizes, share.offsets)]
    whole = common.sizes == chunk.sizes
    return Read(
        name, chunk, data.dtype, target, None if whole else _within(common.offsets, common.sizes, chunk.offsets)
    )


def _within(offsets: tuple[int, ...], sizes: tuple[int, ...], origin: tuple[int, ...]) -> tuple[slice, ...]:
    """A box as slices of another one that begins at `origin`."""
    return tuple(slice(o - start, o - start + size) for o, size, start in zip(offsets, sizes, origin, strict=True))
