"""One save, from capture to commit: it is there as a whole, or not at all, and every rank knows which."""

from __future__ import annotations

import datetime
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dist_toolkit.checkpoint.attempt import Attempt, attempt
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.plan import SavePlans
from dist_toolkit.checkpoint.writer import OutChunk, Written, write_shard
from dist_toolkit.errors import CheckpointError, MismatchedCallError, NotSerializable, PeerError, StorageNotShared
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage
from dist_toolkit.tensors import DTYPE_NAMES
from dist_toolkit.version import __version__


@dataclass(frozen=True)
class Snapshot:
    """What one rank will write of a checkpoint; nothing of it is on the disk yet."""

    step: int
    chunks: Sequence[OutChunk]
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
    _same_step(group, step)
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    error: Exception | None = None
    try:
        tensors, values = _capture(parts, step)
    except Exception as caught:  # a user's state_dict may raise anything, on one rank only
        error = caught
    _agree_or_raise(group, f"capturing step {step}", error)
    return Snapshot(step, plans.plan(tensors, group), values, metrics or {})


def write_snapshot(storage: Storage, group: Group, snapshot: Snapshot) -> None:
    """Write and commit it. Collective.

    Raises:
        PeerError, StorageNotShared: as `save_checkpoint`.
    """
    opened = _open_attempt(storage, group, snapshot.step)
    written = _write_all(storage, group, snapshot, opened)
    _commit(group, snapshot, opened, written)


def _same_step(group: Group, step: int) -> None:
    steps = group.all_gather_json(step)
    if len(set(steps)) > 1:
        listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(steps))
        raise MismatchedCallError(f"ranks save different steps ({listed}); every rank must save the same step")


def _capture(parts: Iterable[Part], step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for part in parts:
        found, values[part.name] = part.capture(step)
        tensors.update(found)
    for key, tensor in tensors.items():
        if not _storable(tensor):
            raise NotSerializable(key, tensor)
    return tensors, values


def _storable(tensor: torch.Tensor) -> bool:
    """Of a type that safetensors has, dense, and not an expanded view, which could not be read back into."""
    if tensor.dtype not in DTYPE_NAMES or tensor.layout is not torch.strided:
        return False
    return all(stride > 0 or size < 2 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


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
        except (OSError, CheckpointError) as caught:
            error = f"{type(caught).__name__}: {caught}"
    token, failure = group.broadcast_json([token, error])
    if failure is not None:
        raise PeerError(f"opening checkpoint {step}", {0: failure})
    opened = attempt(storage, step, token)
    answers = group.all_gather_json([opened.blindness(), socket.gethostname()])
    blind = {r: f"{host} ({why})" if why else host for r, (why, host) in enumerate(answers) if why is not None}
    if blind:
        raise StorageNotShared(storage.root, blind)
    return opened


def _write_all(storage: Storage, group: Group, snapshot: Snapshot, opened: Attempt) -> list[Written]:
    file = opened.file(group.world.rank)
    written: Any = None
    error: Exception | None = None
    try:
        written = write_shard(storage, opened.path(file), file, snapshot.chunks).to_json()
    except Exception as caught:
        error = caught
    _agree_or_raise(group, f"writing checkpoint {snapshot.step}", error)
    return [Written.from_json(value) for value in group.all_gather_json(written)]


def _commit(group: Group, snapshot: Snapshot, opened: Attempt, written: list[Written]) -> None:
    """Rank 0 writes the commit record and makes it count; every rank learns the outcome."""
    error = None
    if group.world.is_main:
        try:
            opened.publish(_manifest(group, snapshot, opened, written).encode())
        except (OSError, CheckpointError) as caught:
            error = f"{type(caught).__name__}: {caught}"
    failure = group.broadcast_json(error)
    if failure is not None:
        raise PeerError(f"committing checkpoint {snapshot.step}", {0: failure})


def _manifest(group: Group, snapshot: Snapshot, opened: Attempt, written: list[Written]) -> Manifest:
    files: dict[str, FileEntry] = {}
    places: dict[str, tuple[str, tuple[int, ...], list[Chunk]]] = {}
    for rank, shard in enumerate(written):
        files[opened.file(rank)] = shard.file
        for name, dtype, shape, chunk in shard.rows:
            places.setdefault(name, (dtype, shape, []))[2].append(chunk)
    return Manifest(
        step=snapshot.step,
        world_size=group.world.world_size,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        token=opened.token,
        files=files,
        tensors={name: TensorEntry(dtype, shape, tuple(chunks)) for name, (dtype, shape, chunks) in places.items()},
        values=snapshot.values,
        metrics=snapshot.metrics,
        producer={"dist-toolkit": __version__, "torch": torch.__version__},
    )
