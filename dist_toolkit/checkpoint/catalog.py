"""The committed checkpoints of a directory, by their commit records; and what may be deleted. One rank calls this."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dist_toolkit.checkpoint.aside import NOTE, Note, read_note, remove, set_aside
from dist_toolkit.checkpoint.heads import decode_head, decode_whole, glance
from dist_toolkit.checkpoint.layout import MANIFEST, MANIFEST_BYTES, deleted_dir, parse_dir, step_dir, token_of
from dist_toolkit.checkpoint.manifest import Manifest, decode, digest
from dist_toolkit.checkpoint.unreadable import is_damage
from dist_toolkit.errors import CheckpointCorrupt, OtherFormat
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
    is_foreign: bool = False
    """It is whole, and of another format version."""


def committed_checkpoints(
    storage: Storage, after: int = -1, look: Callable[[bytes, str], Manifest] = decode_whole
) -> list[Committed]:
    """All directories that hold a commit record, newest step first, by the step in the record.

    Args:
        after: of later steps alone, by the names: for where reading a record costs a request.
        look: at a record. With `decode_head` and `glance` the manifests may lack files, tensors and values; with
            `glance` these may also turn out to be malformed later, unless two records are of one step.
    """
    found: dict[int, Committed] = {}
    names = storage.list()
    left = left_behind(storage, names)
    for folder in names:
        parsed = parse_dir(folder)
        if parsed is None or parsed[1] not in ("", ".old") or parsed[0] <= after:
            continue
        entry = _examine(storage, folder, parsed[0], look)
        if entry is None or (folder in left and _is_it(entry, left[folder])):
            continue
        if entry.step in found:
            rivals = [found[entry.step], entry]
            if look is glance:
                rivals = [_examine(storage, rival.folder, rival.step) or rival for rival in rivals]
            entry = max(rivals, key=_standing)
        found[entry.step] = entry
    return sorted(found.values(), key=lambda entry: -entry.step)


def refuse_foreign(entries: Iterable[Committed], root: str) -> None:
    """Raise OtherFormat if one is of another format version: it is neither passed over nor replaced."""
    for entry in entries:
        if entry.is_foreign:
            raise OtherFormat(
                f"{root}/{entry.folder}",
                f"{entry.damage.partition(': ')[2]}; update dist-toolkit, or move it away to do without it",
            )


def _standing(entry: Committed) -> tuple[bool, bool, bool]:
    """Which of several directories with records of one step counts: one that is whole, under its own name."""
    return entry.manifest is not None, entry.folder == step_dir(entry.step), not entry.folder.endswith(".old")


def _examine(
    storage: Storage, folder: str, step: int, understand: Callable[[bytes, str], Manifest] = decode_head
) -> Committed | None:
    """What the record says; None if there is none."""
    path, data = f"{folder}/{MANIFEST}", b""
    try:
        data = storage.read_bytes(path, MANIFEST_BYTES)
        manifest = understand(data, f"{storage.root}/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CheckpointCorrupt as error:
        return Committed(folder, step, data, None, str(error), isinstance(error, OtherFormat))
    except OSError as error:
        if not is_damage(error):
            raise
        return Committed(folder, step, data, None, f"{path}: {type(error).__name__}: {error}")
    return Committed(folder, manifest.step, data, manifest)


def clean_up(storage: Storage, saved: int) -> None:
    """Remove what killed saves and deletions left; put back a replaced checkpoint that has no successor.

    Args:
        saved: the step that is to be saved: what is left of that one would be in the way.
    """
    names = storage.list()
    if NOTE in names:
        set_later_aside(storage, left_behind(storage, names))
        names = storage.list()
    for folder in names:
        parsed = parse_dir(folder)
        if parsed is None or parsed[1] in ("", ".aside"):
            continue
        step, suffix = parsed
        if suffix == ".old" and step_dir(step) not in names:
            storage.rename(folder, step_dir(step))
        elif suffix == ".old" and folder in {
            entry.folder for entry in committed_checkpoints(storage, look=decode_head)
        }:
            set_aside(storage, step_dir(step), step)  # has no whole record, or one of another step: no successor
            storage.rename(folder, step_dir(step))
        elif step == saved:
            storage.remove_tree(folder)
        else:
            with tolerated(storage, f"{folder} stays behind"):
                storage.remove_tree(folder)


@contextmanager
def tolerated(storage: Storage, what: str) -> Iterator[None]:
    """A failure to clear away is a warning: it loses nothing, and the next save tries again."""
    try:
        yield
    except OSError as error:
        _LOG.warning(
            "%s: %s, until a later save clears it away: %s: %s", storage.root, what, type(error).__name__, error
        )


def left_behind(storage: Storage, names: Collection[str]) -> Mapping[str, str]:
    """What counts as set aside already: folder -> digest of the record. The run went back, and has committed since.

    Args:
        names: the folders and files that are there.
    """
    note = read_note(storage) if NOTE in names else None
    if note is None or step_dir(note.step) not in names:
        return {}
    entry = _examine(storage, step_dir(note.step), note.step)
    committed = entry is not None and entry.manifest is not None and entry.manifest.token == note.token
    return note.left if committed else {}


def _is_it(entry: Committed, seen: str) -> bool:
    """Whether this is what the note means. A record that could not be read, then or now, is not taken for another."""
    return not entry.data or seen in ("", digest(entry.data))


def note_later(storage: Storage, step: int, token: str) -> Note | None:
    """Before a commit of `step`: note the checkpoints of later steps; the note, if there are any.

    The run went back behind them, for damage or by choice.
    """
    after = -1 if storage.renames else step
    later = [entry for entry in committed_checkpoints(storage, after, decode_head) if entry.step > step]
    if not later:
        return None
    note = Note(step, token, {entry.folder: digest(entry.data) if entry.data else "" for entry in later})
    storage.write_file(NOTE, [note.encode()])
    storage.sync_dir("")
    return note


def set_later_aside(storage: Storage, left: Mapping[str, str]) -> None:
    """Rename what a note names whose checkpoint was committed, folder -> digest of the record; then the note goes.

    They are neither counted nor chosen any more; a person may look at them, rename them back or delete them.
    """
    for folder, seen in left.items():
        entry = _examine(storage, folder, (parse_dir(folder) or (0, ""))[0])
        if entry is not None and _is_it(entry, seen):
            name = set_aside(storage, folder, entry.step, seen)
            _LOG.warning("%s/%s is of a later step than was saved now: set aside", storage.root, name)
    storage.remove_file(NOTE)


def delete(storage: Storage, entry: Committed) -> None:
    """Delete one checkpoint: first it stops being one, by a rename or with its record, then the files go."""
    if storage.renames:
        storage.remove_tree(deleted_dir(entry.step))  # what a deletion that was killed left would be in the way
        storage.rename(entry.folder, deleted_dir(entry.step))
        storage.remove_tree(deleted_dir(entry.step))
    else:
        remove(storage, entry.folder)


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
        with tolerated(storage, f"some of {folder} stays behind"):
            if suffix in (".tmp", ".del"):
                remove(storage, folder)
            elif MANIFEST not in names or len({token_of(name) for name in names if name != MANIFEST}) > 1:
                sweep(storage, folder, names)


def sweep(storage: Storage, folder: str, names: Collection[str]) -> None:
    """Of an object store: delete those of the files `names` of a folder that its commit record does not name.

    A record that cannot be understood keeps all.
    """
    try:
        data = storage.read_bytes(f"{folder}/{MANIFEST}", MANIFEST_BYTES)
        kept = {MANIFEST, *decode(data, f"{storage.root}/{folder}/{MANIFEST}").files}
    except FileNotFoundError:
        kept = set()
    except CheckpointCorrupt:
        return
    for name in names:
        if name not in kept:
            storage.remove_file(f"{folder}/{name}")
