"""One restore: rank 0 chooses by commit record, every rank reads what it needs, damage falls back to an older one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import torch

from dist_toolkit.checkpoint.catalog import Committed, committed_checkpoints, left_behind, refuse_foreign
from dist_toolkit.checkpoint.heads import decode_whole, glance
from dist_toolkit.checkpoint.layout import MANIFEST, parse_dir
from dist_toolkit.checkpoint.manifest import Manifest, digest
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.reader import open_file, read_tensors, saved_tensors, verify_chunks
from dist_toolkit.checkpoint.shared import read_shared
from dist_toolkit.checkpoint.unreadable import is_damage
from dist_toolkit.errors import (
    AllCheckpointsCorrupt,
    CheckpointCorrupt,
    CheckpointError,
    CheckpointNotFound,
    DistToolkitError,
    PeerError,
    StateMismatch,
)
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage

_LOG = logging.getLogger("dist_toolkit")


def restore_checkpoint(
    storage: Storage, group: Group, parts: Sequence[Part], step: int | None = None, waive: Collection[str] = ()
) -> Manifest | None:
    """Read the newest whole checkpoint (or that of `step`) into all parts. Collective.

    Its manifest, or None if there is none.

    Args:
        waive: names of parts that may be left as they are when the checkpoint lacks them or does not fit them.

    Raises:
        CheckpointNotFound: `step` was given and is not committed.
        AllCheckpointsCorrupt: there are checkpoints and none is whole, or not that of `step`; nothing was changed.
        StateMismatch: the checkpoint is of another program; nothing was changed.
        StorageNotShared: a rank does not see the checkpoint that rank 0 chose.
        CheckpointError, PeerError: a rank may not read it, or not now; nothing was changed, and no older one was taken.
    """
    candidates, there = _candidates(storage, group, step)
    reasons: list[str] = []
    for folder, seen, damage in candidates:
        found = damage or _try_one(storage, group, parts, folder, seen, waive)
        if isinstance(found, Manifest):
            return found
        reasons.append(found)
        if group.world.is_main:
            _LOG.warning("checkpoint %s is damaged and is passed over: %s", folder, found)
    if reasons:
        raise AllCheckpointsCorrupt(storage.root, reasons, step, there)
    if step is not None:
        raise CheckpointNotFound(storage.root, step, there)
    return None


def _candidates(storage: Storage, group: Group, step: int | None) -> tuple[list[tuple[str, str, str]], list[int]]:
    """Rank 0's list of what to try, newest first, on every rank: folder, digest of its commit record, damage of that.

    Also the other steps there are, if one was asked for. Changes nothing: another program may be saving.
    """
    found: list[Committed] = []
    there: list[int] = []
    error = None
    if group.world.is_main:
        try:
            known = committed_checkpoints(storage, look=glance)
            found = [c for c in known if step in (None, c.step)]
            there = [c.step for c in known if step is not None and c not in found and (c.manifest or not found)]
            refuse_foreign(found, storage.root)
            _warn_of_uncommitted(storage, {c.folder for c in known})
        except Exception as caught:  # no memory for a record, too
            error = f"{type(caught).__name__}: {caught}"
    told = [[[c.folder, digest(c.data), c.damage] for c in found], there, error]
    rows, there, failure = group.broadcast_json(told)
    if failure is not None:
        raise PeerError(f"looking for checkpoints in {storage.root}", {0: failure})
    return [(folder, seen, damage) for folder, seen, damage in rows], there


def _warn_of_uncommitted(storage: Storage, known: Collection[str]) -> None:
    names = storage.list()
    left = left_behind(storage, names)
    for folder in names:
        parsed = parse_dir(folder)
        if parsed is not None and not parsed[1] and folder not in known and folder not in left:
            _LOG.warning("%s/%s has no commit record of its own and is not used", storage.root, folder)


def _try_one(
    storage: Storage, group: Group, parts: Sequence[Part], folder: str, seen: str, waive: Collection[str]
) -> Manifest | str:
    """The manifest if this checkpoint was restored, or what is wrong with it; the same on every rank.

    Args:
        seen: the digest of its commit record, as rank 0 read it.
    """
    data = read_shared(storage, group, f"{folder}/{MANIFEST}", seen, f"restoring from {storage.root}")
    manifest, error = _open(storage, group, folder, data)
    damage = _collect(group, storage, error)  # before anything is allocated for what the manifest promises
    if damage or manifest is None:
        return damage
    plan, error = _plan(manifest, folder, parts, waive)
    damage = _collect(group, storage, error)
    if damage:
        return damage
    chosen, templates = plan
    error = _read(storage, group, folder, manifest, templates)
    damage = _collect(group, storage, error)
    if damage:
        return damage
    _collect(group, storage, _install(chosen, templates, manifest))
    return manifest


def _open(storage: Storage, group: Group, folder: str, data: bytes) -> tuple[Manifest | None, Exception | None]:
    """The manifest; and whether the files are there and as long as they should be, each rank looking at its share."""
    try:
        manifest = decode_whole(data, f"{folder}/{MANIFEST}")
        for file in sorted(manifest.files)[group.world.rank :: group.world.world_size]:
            open_file(storage, folder, file, manifest.files[file]).__exit__(None, None, None)
    except (OSError, EOFError) as error:
        return None, _unread(storage, folder, error)
    except Exception as error:  # damage; or no memory, on one rank only
        return None, error
    return manifest, None


def _unread(storage: Storage, folder: str, error: OSError | EOFError) -> CheckpointError:
    words = f"{type(error).__name__}: {error}"
    if is_damage(error):
        return CheckpointCorrupt(folder, words)
    return CheckpointError(
        f"{storage.root}/{folder} cannot be read ({words}); it may well be whole, so no older one was taken: "
        "make it readable and start again, or move it away"
    )


def _install(
    parts: Sequence[Part], templates: Sequence[dict[str, torch.Tensor]], manifest: Manifest
) -> Exception | None:
    try:
        for part, template in zip(parts, templates, strict=True):
            part.install(template, manifest.values[part.name])
    except Exception as error:  # a user's load_state_dict may raise anything, on one rank only
        return error
    return None


def _plan(
    manifest: Manifest, folder: str, parts: Sequence[Part], waive: Collection[str]
) -> tuple[tuple[list[Part], list[dict[str, torch.Tensor]]], Exception | None]:
    """The parts to restore, and the tensors to read for each; or the first error."""
    chosen: list[Part] = []
    templates: list[dict[str, torch.Tensor]] = []
    try:
        saved = saved_tensors(manifest)
        for part in parts:
            try:
                if part.name not in manifest.values:
                    raise StateMismatch(
                        part.name, f"the checkpoint {folder} holds no state of {part.name!r}; waive it to start it anew"
                    )
                template = part.template(saved, manifest.values[part.name])
            except StateMismatch:
                if part.name not in waive:
                    raise
                continue
            chosen.append(part)
            templates.append(template)
    except Exception as error:  # a user's check_state_dict may raise anything
        return (chosen, templates), error
    return (chosen, templates), None


def _read(
    storage: Storage, group: Group, folder: str, manifest: Manifest, templates: Sequence[dict[str, torch.Tensor]]
) -> Exception | None:
    """Fill the templates; what no rank needs is verified all the same, each rank taking its share."""
    merged = {key: tensor for template in templates for key, tensor in template.items()}
    rank, ranks = group.world.rank, group.world.world_size
    unread = [name for name in sorted(manifest.tensors) if name not in merged]
    try:
        read_tensors(storage, folder, manifest, merged)
        verify_chunks(storage, folder, manifest, unread[rank::ranks], sorted(manifest.files)[rank::ranks])
    except (OSError, EOFError) as error:
        return _unread(storage, folder, error)
    except Exception as error:  # damage; or no memory, on one rank only
        return error
    return None


def _collect(group: Group, storage: Storage, error: Exception | None) -> str:
    """What damage any rank found ('' for none). Raises on every rank where the checkpoint does not fit the program."""
    kind = "damage" if isinstance(error, CheckpointCorrupt) else "mismatch"
    words = str(error) if isinstance(error, DistToolkitError) else f"{type(error).__name__}: {error}"
    answers = group.all_gather_json(None if error is None else [kind, words])
    mismatches = {rank: answer[1] for rank, answer in enumerate(answers) if answer and answer[0] == "mismatch"}
    if mismatches:
        if error is not None and kind == "mismatch":
            raise error
        raise PeerError(f"restoring from {storage.root}", mismatches)
    return next((answer[1] for answer in answers if answer), "")
