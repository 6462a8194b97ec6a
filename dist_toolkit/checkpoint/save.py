"""One save, from capture to commit: it is there as a whole, or not at all, and every rank knows which."""

from __future__ import annotations

import datetime
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from dist_toolkit.checkpoint.attempt import Attempt, attempt
from dist_toolkit.checkpoint.canonical import tensor_keys
from dist_toolkit.checkpoint.heads import remember
from dist_toolkit.checkpoint.layout import MANIFEST, MANIFEST_BYTES
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, decode
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.plan import SavePlan, SavePlans, Seen
from dist_toolkit.checkpoint.shared import check_shared
from dist_toolkit.checkpoint.who import who
from dist_toolkit.checkpoint.writer import write_file
from dist_toolkit.errors import CheckpointError, MismatchedCallError, NotSerializable, PeerError
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage
from dist_toolkit.tensors import DTYPE_NAMES
from dist_toolkit.version import __version__


@dataclass(frozen=True)
class Snapshot:
    """What one rank will write of a checkpoint; nothing of it is on the disk yet."""

    step: int
    plan: SavePlan
    data: Sequence[torch.Tensor]
    """Of each of the boxes of `plan.mine`."""
    values: Mapping[str, Any]
    metrics: Mapping[str, float]


def save_checkpoint(
    storage: Storage, group: Group, parts: Iterable[Part], step: int, metrics: Mapping[str, float] | None = None
) -> None:
    """Write the state of all parts as checkpoint `step`. Collective.

    An older checkpoint of the same step stays until the new one can take its place.

    Raises:
        MismatchedCallError: ranks called with different steps.
        PeerError: a rank could not write; on every rank, with the words of those that failed. Nothing was committed.
        StorageNotShared: ranks see different directories.
    """
    write_snapshot(storage, group, take_snapshot(group, parts, SavePlans(), step, metrics))


def take_snapshot(
    group: Group, parts: Iterable[Part], plans: SavePlans, step: int, metrics: Mapping[str, float] | None = None
) -> Snapshot:
    """The state of all parts, shared out over the ranks: live tensors, which must not change until written. Collective.

    Raises:
        MismatchedCallError, PeerError: as `save_checkpoint`.
    """
    values: dict[str, Any] = {}
    seen, error = Seen([], [], False), None
    try:
        tensors, values = _capture(parts, step)
        seen = plans.look(tensors)
    except Exception as caught:  # a user's state_dict may raise anything, on one rank only
        error = caught
    words = None if error is None else f"{type(error).__name__}: {error}"
    answers = group.all_gather_json([step, words, seen.same])
    _same_step([answer[0] for answer in answers])
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
        _agree_or_raise(group, f"planning checkpoint {step}", error)
    if made is None:
        raise error or AssertionError
    plan, data = made
    return Snapshot(step, plan, data, values, metrics or {})


def write_snapshot(storage: Storage, group: Group, snapshot: Snapshot) -> None:
    """Write and commit it. Collective.

    Raises:
        PeerError, StorageNotShared: as `save_checkpoint`.
    """
    opened = _open_attempt(storage, group, snapshot.step)
    try:
        digests = _write_all(storage, group, snapshot, opened)
        _commit(group, snapshot, opened, digests)
    except Exception:
        if group.world.is_main:
            with suppress(OSError):
                opened.discard()
        raise


def _same_step(steps: Sequence[int]) -> None:
    if len(set(steps)) > 1:
        listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(steps))
        raise MismatchedCallError(f"ranks save different steps ({listed}); every rank must save the same step")


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


def _storable(tensor: torch.Tensor) -> bool:
    """Of a type that safetensors has, dense, with bytes of its own, and not an expanded view."""
    if tensor.dtype not in DTYPE_NAMES or tensor.layout is not torch.strided:
        return False
    if tensor.is_meta or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.is_contiguous() or all(
        stride > 0 or size < 2 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _agree_or_raise(group: Group, what: str, error: Exception | None) -> None:
    """Raise this rank's own error if it has one (once all know), and PeerError if another rank has one."""
    try:
        group.agree(what, error)
    except PeerError:
        if error is not None and not isinstance(error, OSError):
            raise error from None
        raise


def _open_attempt(storage: Storage, group: Group, step: int) -> Attempt:
    """Rank 0 makes room for the attempt; every rank finds rank 0's token there, or the storage is not shared."""
    token, error = secrets.token_hex(8), None
    if group.world.is_main:
        try:
            attempt(storage, step, token).open()
        except Exception as caught:  # no memory, too: the others wait for the outcome
            error = f"{type(caught).__name__}: {caught}"
    token, failure = group.broadcast_json([token, error])
    if failure is not None:
        raise PeerError(f"opening checkpoint {step}", {0: failure})
    opened = attempt(storage, step, token)
    check_shared(storage, group, opened.mark, opened.token.encode(), f"opening checkpoint {step}")
    return opened


def _write_all(storage: Storage, group: Group, snapshot: Snapshot, opened: Attempt) -> list[list[str]]:
    """Every rank writes its file. The digests of all ranks' chunks. Collective."""
    path = opened.path(opened.file(group.world.rank))
    digests: list[str] = []
    error: Exception | None = None
    try:
        digests = write_file(storage, path, snapshot.plan.mine, snapshot.data)
    except Exception as caught:
        error = caught
    _agree_or_raise(group, f"writing checkpoint {snapshot.step}", error)
    return group.all_gather_json(digests)


def _commit(group: Group, snapshot: Snapshot, opened: Attempt, digests: list[list[str]]) -> None:
    """Rank 0 writes the commit record and makes it count; every rank learns the outcome."""
    error = None
    if group.world.is_main:
        try:
            opened.publish(_record(_manifest(group, snapshot, opened, digests)))
        except Exception as caught:  # a user's values, or no memory: the others wait for the outcome
            error = f"{type(caught).__name__}: {caught}"
    failure = group.broadcast_json(error)
    if failure is not None:
        raise PeerError(f"committing checkpoint {snapshot.step}", {0: failure})


def _record(manifest: Manifest) -> bytes:
    """Its bytes, which a restore will understand.

    The tensors were checked when the save was planned; all the rest, which is a user's in part, is decoded again.

    Raises:
        CheckpointCorrupt, CheckpointError: no restore would take it.
    """
    data = manifest.encode()
    if len(data) > MANIFEST_BYTES:
        raise CheckpointError(f"the manifest has {len(data)} bytes, more than {MANIFEST_BYTES}")
    named = tensor_keys(manifest.values)
    rest = replace(manifest, tensors={name: entry for name, entry in manifest.tensors.items() if name in named})
    remember(data, decode(rest.encode(), MANIFEST))
    return data


def _manifest(group: Group, snapshot: Snapshot, opened: Attempt, digests: Sequence[Sequence[str]]) -> Manifest:
    files: dict[str, FileEntry] = {}
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    for rank, (layout, seen) in enumerate(zip(snapshot.plan.everyone, digests, strict=True)):
        file = opened.file(rank)
        files[file] = layout.entry
        for box, chunk in layout.rows(file, seen):
            kinds[box.name] = box.dtype, box.shape
            chunks[box.name].append(chunk)
    return Manifest(
        step=snapshot.step,
        world_size=group.world.world_size,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        token=opened.token,
        files=files,
        tensors={name: TensorEntry(*kind, tuple(chunks[name])) for name, kind in kinds.items()},
        values=snapshot.values,
        metrics=snapshot.metrics,
        producer={"dist-toolkit": __version__, "torch": torch.__version__, "by": who()},
    )
