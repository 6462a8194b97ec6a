"""The process groups that are measured. Runs in the ranks."""

from __future__ import annotations

import torch.distributed as dist
from bench_parts.group import PATIENCE

from .calls import Members


def make_groups(backend: str, scopes: tuple[str, ...], nproc: int) -> dict[str, Members]:
    """This rank's group for each scope. Collective over all ranks.

    torchrun numbers the ranks of a node in a row, `nproc` of them.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    found = {}
    for scope in scopes:
        width = nproc if scope == "within" else size
        for first in range(0, size, width):  # every rank has to make every group
            group = dist.new_group(list(range(first, first + width)), timeout=PATIENCE, backend=backend)
            if first <= rank < first + width:
                assert isinstance(group, dist.ProcessGroup)
                found[scope] = Members(group, first, rank - first, width)
    return found
