"""The state of all parts at one step, as the ranks will write it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dist_toolkit.checkpoint.agree import agree_or_raise, differing, same_step
from dist_toolkit.checkpoint.manifest import digest
from dist_toolkit.checkpoint.parts import Part, StatePart
from dist_toolkit.checkpoint.plan import SavePlan, SavePlans, Seen
from dist_toolkit.errors import CheckpointError, NotSerializable, PeerError
from dist_toolkit.process_group import Group
from dist_toolkit.tensors import DTYPE_NAMES


@dataclass(frozen=True)
class Snapshot:
    """What one rank will write of a checkpoint; nothing of it is on the disk yet."""

    step: int
    plan: SavePlan
    data: Sequence[torch.Tensor]
    """Of each of the boxes of `plan.mine`."""
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    differing: Sequence[str] = ()
    """Parts whose plain values, which must be the same on every rank, are not; rank 0's are written."""


def take_snapshot(
    group: Group, parts: Collection[Part], plans: SavePlans, step: int, metrics: Mapping[str, float] | None = None
) -> Snapshot:
    """The state of all parts, shared out over the ranks: live tensors, which must not change until written. Collective.

    Raises:
        MismatchedCallError, PeerError: as `save_checkpoint`.
    """
    values: dict[str, Any] = {}
    prints: dict[str, str] = {}
    seen, error = Seen([], [], False), None
    try:
        tensors, values = _capture(parts, step)
        prints = _prints(parts, values)
        seen = plans.look(tensors)
    except Exception as caught:  # a user's state_dict may raise anything, on one rank only
        error = caught
    words = None if error is None else f"{type(error).__name__}: {error}"
    answers = group.all_gather_json([step, words, seen.same, prints])
    same_step([answer[0] for answer in answers])
    failures = {rank: answer[1] for rank, answer in enumerate(answers) if answer[1] is not None}
    if failures:
        if error is not None and not isinstance(error, OSError):
            raise error
        raise PeerError(f"capturing step {step}", failures) from error
    same, made = all(answer[2] for answer in answers), None
    try:
        made = plans.plan(seen, same, group)
    except ValueError as caught:
        error = CheckpointError(f"step {step} cannot be saved: {caught}")
    except Exception as caught:  # no memory, on one rank only
        error = caught
    if not same:
        agree_or_raise(group, f"planning checkpoint {step}", error)
    if made is None:
        raise error or AssertionError
    plan, data = made
    return Snapshot(step, plan, data, values, metrics or {}, differing([answer[3] for answer in answers]))


def _capture(parts: Iterable[Part], step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for part in parts:
        found, values[part.name] = part.capture(step)
        for key in found.keys() & tensors.keys():
            raise NotSerializable(
                key, found[key], f"in {part.name} has the name of a tensor of another part; rename it"
            )
        tensors.update(found)
    for key, tensor in tensors.items():
        if not _storable(tensor):
            raise NotSerializable(key, tensor)
    return tensors, values


def _prints(parts: Iterable[Part], values: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the plain values of each part that is to be the same on every rank."""
    return {
        part.name: digest(json.dumps(values[part.name], sort_keys=True).encode())
        for part in parts
        if isinstance(part, StatePart)
    }


def _storable(tensor: torch.Tensor) -> bool:
    """Of a type that safetensors has, dense, with bytes of its own, and not an expanded view."""
    if tensor.dtype not in DTYPE_NAMES or tensor.layout is not torch.strided:
        return False
    if tensor.is_nested or tensor.is_meta or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.is_contiguous() or all(
        stride > 0 or size < 2 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
