"""The operations as calls, and whether a result is right. Runs in the ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

Call = Callable[[], Any]

# Named *_single from torch 2.14 on, where the older names warn.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

_EXACT_UP_TO = 256  # whole numbers that every dtype here holds


@dataclass(frozen=True)
class Members:
    """A process group that is measured. `first`: the global rank of its first member."""

    group: dist.ProcessGroup
    first: int
    rank: int
    """This rank's, in the group."""
    size: int


class Buffers:
    """Two buffers on a device, large enough for every case."""

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self.source = torch.zeros(elements, dtype=dtype, device=device)
        self.target = torch.zeros(elements, dtype=dtype, device=device)


def make_call(operation: str, buffers: Buffers, elements: int, members: Members) -> Call:
    """The operation, on the first `elements` of the buffers. Collective in the group each time it is called."""
    part = elements // members.size
    whole, group = buffers.source[:elements], members.group
    if operation == "all-reduce":
        return lambda: dist.all_reduce(whole, group=group)
    if operation == "broadcast":
        return lambda: dist.broadcast(whole, src=members.first, group=group)
    if operation == "all-gather":
        mine, gathered = buffers.source[:part], buffers.target[:elements]
        return lambda: _all_gather(gathered, mine, group=group)
    scattered = buffers.target[:part]
    return lambda: _reduce_scatter(scattered, whole, group=group)


def is_right(operation: str, buffers: Buffers, elements: int, members: Members) -> bool:
    """Do it once with numbers that differ from rank to rank, and compare with what must come out. Collective.

    The buffers hold zeros afterwards: sums of them stay what they are, however often they are taken.
    """
    part, ranks = elements // members.size, range(members.size)
    source, target = buffers.source[:elements], buffers.target[:elements]
    target.fill_(-1)
    if operation == "broadcast" and members.rank != 0:
        source.fill_(-1)
    else:
        source.copy_(_cycle([(i + members.rank) % 3 for i in range(3)], elements, source))
    make_call(operation, buffers, elements, members)()
    total = [sum((i + rank) % 3 for rank in ranks) for i in range(3)]
    if operation == "all-reduce":
        seen, expected = source, _cycle(total, elements, source)
    elif operation == "broadcast":
        seen, expected = source, _cycle([0, 1, 2], elements, source)
    elif operation == "all-gather":
        seen = target
        expected = torch.cat([_cycle([(i + rank) % 3 for i in range(3)], part, source) for rank in ranks])
    else:
        start = members.rank * part
        seen, expected = target[:part], _cycle([total[(start + i) % 3] for i in range(3)], part, source)
    exact = 2 * members.size <= _EXACT_UP_TO
    right = torch.equal(seen, expected) if exact else torch.allclose(seen, expected, rtol=0.02)
    source.zero_()
    target.zero_()
    return right


def _cycle(three: list[int], count: int, like: torch.Tensor) -> torch.Tensor:
    """`three` over and over, `count` numbers."""
    return torch.tensor(three, dtype=like.dtype, device=like.device).repeat(count // 3 + 1)[:count]
