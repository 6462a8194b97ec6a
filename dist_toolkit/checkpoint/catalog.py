"""The committed checkpoints of a directory, by their commit records; and what may be deleted. One rank calls this."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from dist_toolkit.checkpoint.heads import decode_head, decode_whole
from dist_toolkit.checkpoint.layout import MANIFEST, aside_dir, deleted_dir, parse_dir, step_dir, token_of
from dist_toolkit.checkpoint.manifest import Manifest, decode
from dist_toolkit.checkpoint.unreadable import is_damage
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import Storage

_LOG = logging.getLogger("dist_toolkit")


@dataclass(frozen=True)
class Committed:
    """A directory with a commit record; `manifest` is None if the record is damaged, and `damage` says how."""

    folder: str
    step: int
    data: bytes
    manifest: Manifest | None
    damage: str = ""


def committed_checkpoints(storage: Storage, after: int = -1, heads: bool = False) -> list[Committed]:
    """All directories that hold a commit record, newest step first, by the step in the record.

    Args:
        after: of later steps alone, by the names: for where reading a record costs a request.
        heads: the manifests may lack files, tensors and values; records that have not changed are not decoded again.
    """
    found: dict[int, Committed] = {}
    for folder in storage.list():
        parsed = parse_dir(folder)
        if parsed is None or parsed[1] not in ("", ".old") or parsed[0] <= after:
            continue
        entry = _examine(storage, folder, parsed[0], decode_head if heads else decode_whole)
        if entry is not None:
            found[entry.step] = max(found.get(entry.step, entry), entry, key=_standing)
    return sorted(found.values(), key=lambda entry: -entry.step)


def _standing(entry: Committed) -> tuple[bool, bool, bool]:
    """Which of several directories with records of one step counts: one that is whole, under its own name."""
    return entry.manifest is not None, entry.folder == step_dir(entry.step), not entry.folder.endswith(".old")


def _examine(
    storage: Storage, folder: str, step: int, understand: Callable[[bytes, str], Manifest]
) -> Committed | None:
    """What the record says; None if there is none."""
    path, data = f"{folder}/{MANIFEST}", b""
    try:
        data = storage.read_bytes(path)
        manifest = understand(data, f"{storage.root}/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CheckpointCorrupt as error:
        return Committed(folder, step, data, None, str(error))
    except OSError as error:
        if not is_damage(error):
            raise
        return Committed(folder, step, data, None, f"{path}: {type(error).__name__}: {error}")
    return Committed(folder, manifest.step, data, manifest)


def clean_up(storage: Storage) -> None:
    """Remove what killed saves and deletions left; put back a replaced checkpoint that has no successor."""
    names = storage.list()
    for folder in names:
        parsed = parse_dir(folder)
        if parsed is None or parsed[1] in ("", ".aside"):
            continue
        step, suffix = parsed
        if suffix == ".old" and step_dir(step) not in names:
            storage.rename(folder, step_dir(step))
        elif suffix == ".old" and folder in {entry.folder for entry in committed_checkpoints(storage, heads=True)}:
            _set_aside(storage, step_dir(step), step)  # has no whole record, or one of another step: no successor
            storage.rename(folder, step_dir(step))
        else:
            storage.remove_tree(folder)


def set_newer_aside(storage: Storage, step: int) -> None:
    """Keep checkpoints of later steps out of the way: the run went back behind them, for damage or by choice.

    They are neither counted nor chosen any more; a person may look at them, rename them back or delete them.
    """
    for entry in committed_checkpoints(storage, -1 if storage.renames else step, heads=True):
        if entry.step > step:
            _set_aside(storage, entry.folder, entry.step)
            _LOG.warning("%s/%s is of a later step than %d: set aside", storage.root, aside_dir(entry.step), step)


def _set_aside(storage: Storage, folder: str, step: int) -> None:
    _remove(storage, aside_dir(step))
    _move(storage, folder, aside_dir(step))


def delete(storage: Storage, entry: Committed) -> None:
    """Delete one checkpoint: first it stops being one, by a rename or with its record, then the files go."""
    if storage.renames:
        storage.remove_tree(deleted_dir(entry.step))  # what a deletion that was killed left would be in the way
        storage.rename(entry.folder, deleted_dir(entry.step))
        storage.remove_tree(deleted_dir(entry.step))
    else:
        _remove(storage, entry.folder)


def folders(storage: Storage) -> dict[str, list[str]]:
    """Of an object store: the files in each folder of a checkpoint, in few requests."""
    inside: dict[str, list[str]] = defaultdict(list)
    for path in storage.files():
        folder, _, name = path.partition("/")
        if parse_dir(folder) is not None:
            inside[folder].append(name)
    return inside


def clear(storage: Storage, inside: Mapping[str, Collection[str]]) -> None:
    """`clean_up` of an object store, where an attempt lies in the folder of its step, and only the record counts.

    Only files that `inside` names go: those of `folders`, of a moment when nobody else was saving. Folders with a
    record and the files of one save are as a save leaves them, and cost no request of their own.
    """
    for folder, names in inside.items():
        _, suffix = parse_dir(folder) or (0, ".old")
        if suffix == ".old":  # comes from elsewhere, and counts while it has no successor
            continue
        if suffix in (".tmp", ".del"):
            _remove(storage, folder)
        elif MANIFEST not in names or len({token_of(name) for name in names if name != MANIFEST}) > 1:
            sweep(storage, folder, names)


def sweep(storage: Storage, folder: str, names: Collection[str]) -> None:
    """Of an object store: delete those of the files `names` of a folder that its commit record does not name.

    A record that cannot be understood keeps all.
    """
    try:
        data = storage.read_bytes(f"{folder}/{MANIFEST}")
        kept = {MANIFEST, *decode(data, f"{storage.root}/{folder}/{MANIFEST}").files}
    except FileNotFoundError:
        kept = set()
    except CheckpointCorrupt:
        return
    for name in names:
        if name not in kept:
            storage.remove_file(f"{folder}/{name}")


def _move(storage: Storage, old: str, new: str) -> None:
    """Rename; where there is no rename, copy, the record last, and then remove the old one, its record first."""
    if storage.renames:
        storage.rename(old, new)
        return
    for name in sorted(storage.list(old), key=lambda name: name == MANIFEST):
        storage.copy_file(f"{old}/{name}", f"{new}/{name}")
    _remove(storage, old)


def _remove(storage: Storage, folder: str) -> None:
    """Delete a folder; where there is no rename, its record first, so that no part of it is ever a checkpoint."""
    if not storage.renames:
        storage.remove_file(f"{folder}/{MANIFEST}")
    storage.remove_tree(folder)
