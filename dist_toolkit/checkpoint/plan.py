"""Who writes what, worked out once for state that stays laid out as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dist_toolkit.checkpoint.file_layout import FileLayout, in_file_order
from dist_toolkit.checkpoint.share import Share, Shares
from dist_toolkit.checkpoint.sharing import Held, share_out
from dist_toolkit.process_group import Group
from dist_toolkit.tensors import DTYPE_NAMES


@dataclass(frozen=True)
class SavePlan:
    """What a rank writes: the layout of its file and, on rank 0, those of all ranks' files."""

    mine: FileLayout
    everyone: tuple[FileLayout, ...]


class Seen(NamedTuple):
    """A rank's state: its shares, where they lie, and whether they lie there as the last time."""

    shares: list[Share]
    held: list[Held]
    same: bool


class SavePlans:
    """Plans of saves. State that is laid out as the last time is not planned again."""

    def __init__(self) -> None:
        self._shares = Shares()
        self._held: list[Held] = []
        self._plan: SavePlan | None = None
        self._order: list[int] = []

    def look(self, tensors: Mapping[str, torch.Tensor]) -> Seen:
        """What this rank holds. Not collective.

        Raises:
            ValueError: a DTensor that cannot be saved.
        """
        shares: list[Share] = []
        held: list[Held] = []
        for name, tensor in tensors.items():
            for share in self._shares.all_of(tensor):
                data, shape, offsets = share
                shares.append(share)
                held.append(Held(name, DTYPE_NAMES[data.dtype], shape, offsets, tuple(data.shape)))
        return Seen(shares, held, self._plan is not None and held == self._held)

    def plan(self, seen: Seen, same: bool, group: Group) -> tuple[SavePlan, list[torch.Tensor]]:
        """The plan, and the tensors that this rank writes, in the order of its file.

        What ranks hold in common is written once. Collective, unless `same`.

        Args:
            same: whether every rank's state is laid out as the last time.

        Raises:
            ValueError: ranks hold different tensors under one name, or not all of one; on every rank.
        """
        plan = self._plan
        if plan is None or not same:
            self._plan = None
            plan, self._order = _make(seen.held, group)
            self._plan, self._held = plan, seen.held
        return plan, [seen.shares[position].data for position in self._order]


def _make(held: Sequence[Held], group: Group) -> tuple[SavePlan, list[int]]:
    """The plan, and the positions in `held` of this rank's part of it. Collective."""
    everyone = [[_from_row(row) for row in rows] for rows in group.all_gather_json(held)]
    orders = []
    for boxes, positions in zip(everyone, share_out(everyone), strict=True):
        orders.append([positions[number] for number in in_file_order([boxes[position] for position in positions])])
    rank = group.world.rank
    wanted = range(len(everyone)) if group.world.is_main else [rank]
    layouts = {r: FileLayout(tuple(everyone[r][position] for position in orders[r])) for r in wanted}
    return SavePlan(layouts[rank], tuple(layouts.values()) if group.world.is_main else ()), orders[rank]


def _from_row(row: Any) -> Held:
    name, dtype, shape, offsets, sizes = row
    return Held(name, dtype, tuple(shape), tuple(offsets), tuple(sizes))
