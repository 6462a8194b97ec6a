"""Checkpoints that a run has left behind, as it went back: kept under other names. And the note that says which.

The note is written before the new checkpoint is committed and removed once they have stepped aside. It holds as soon as
the new one is committed, so a kill in between loses nothing before the commit, and revives nothing after it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from dist_toolkit.checkpoint.layout import MANIFEST, MANIFEST_BYTES, aside_dir, aside_number
from dist_toolkit.checkpoint.manifest import digest
from dist_toolkit.storage import Storage

_LOG = logging.getLogger("dist_toolkit")
NOTE = ".going-back"
KEPT = 2
"""So many of one step stay set aside, the newest."""
_NOTE_BYTES = 64 << 20


@dataclass(frozen=True)
class Note:
    """The save of `step` with this token leaves checkpoints behind: folder -> digest of its commit record."""

    step: int
    token: str
    left: Mapping[str, str]
    """The digest is empty where the record could not be read."""

    def encode(self) -> bytes:
        """The bytes of the note. It needs no digest: it holds for no record but those whose digests it names."""
        return json.dumps({"step": self.step, "token": self.token, "left": dict(self.left)}, indent=1).encode()


def read_note(storage: Storage) -> Note | None:
    """The note; None if there is none, or half of one, whose save was killed before its commit.

    Raises:
        OSError: it cannot be read; then nobody knows which checkpoints count.
    """
    try:
        body = json.loads(storage.read_bytes(NOTE, _NOTE_BYTES))
        note = Note(int(body["step"]), str(body["token"]), {str(k): str(v) for k, v in body["left"].items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return note


def set_aside(storage: Storage, folder: str, step: int, seen: str = "") -> str:
    """Rename a folder to the next free `step-N.aside`, `step-N.aside.2` and so on; the name.

    Of more than `KEPT` of one step the oldest go, with a warning.

    Args:
        seen: the digest of its record, for where a copy may be complete and the original not yet deleted.
    """
    numbers = sorted(n for name in storage.list() if (n := aside_number(name, step)))
    name = aside_dir(step, numbers[-1] + 1 if numbers else 1)
    if numbers and not storage.renames and _record_digest(storage, aside_dir(step, numbers[-1])) == seen:
        name = aside_dir(step, numbers.pop())
        remove(storage, folder)
    else:
        _move(storage, folder, name)
    for number in numbers[: len(numbers) + 1 - KEPT]:
        remove(storage, aside_dir(step, number))
        _LOG.warning(
            "%s/%s was deleted: %d newer ones of step %d are set aside",
            storage.root, aside_dir(step, number), KEPT, step,
        )  # fmt: skip
    return name


def remove(storage: Storage, folder: str) -> None:
    """Delete a folder; where there is no rename, its record first, so that no part of it is ever a checkpoint."""
    if not storage.renames:
        storage.remove_file(f"{folder}/{MANIFEST}")
    storage.remove_tree(folder)


def _move(storage: Storage, old: str, new: str) -> None:
    """Rename; where there is no rename, copy, the record last, and then remove the old one, its record first."""
    if storage.renames:
        storage.rename(old, new)
        return
    for name in sorted(storage.list(old), key=lambda name: name == MANIFEST):
        storage.copy_file(f"{old}/{name}", f"{new}/{name}")
    remove(storage, old)


def _record_digest(storage: Storage, folder: str) -> str | None:
    with suppress(FileNotFoundError):
        return digest(storage.read_bytes(f"{folder}/{MANIFEST}", MANIFEST_BYTES))
    return None
