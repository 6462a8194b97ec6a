"""One save, from capture to commit: it is there as a whole, or not at all, and every rank knows which."""

from __future__ import annotations

import datetime
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from dist_toolkit.checkpoint.agree import agree_or_raise
from dist_toolkit.checkpoint.attempt import Attempt, attempt
from dist_toolkit.checkpoint.canonical import tensor_keys
from dist_toolkit.checkpoint.heads import remember
from dist_toolkit.checkpoint.layout import MANIFEST, MANIFEST_BYTES
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, decode
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.plan import SavePlans
from dist_toolkit.checkpoint.shared import check_shared
from dist_toolkit.checkpoint.snapshot import Snapshot, take_snapshot
from dist_toolkit.checkpoint.who import who
from dist_toolkit.checkpoint.writer import write_file
from dist_toolkit.errors import CheckpointError, PeerError
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage
from dist_toolkit.version import __version__


def save_checkpoint(
    storage: Storage, group: Group, parts: Collection[Part], step: int, metrics: Mapping[str, float] | None = None
) -> None:
    """Write the state of all parts as checkpoint `step`. Collective.

    An older checkpoint of the same step stays until the new one can take its place.

    Raises:
        MismatchedCallError: ranks called with different steps.
        PeerError: a rank could not write; on every rank, with the words of those that failed. Nothing was committed.
        StorageNotShared: ranks see different directories.
    """
    write_snapshot(storage, group, take_snapshot(group, parts, SavePlans(), step, metrics))


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
    agree_or_raise(group, f"writing checkpoint {snapshot.step}", error)
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
