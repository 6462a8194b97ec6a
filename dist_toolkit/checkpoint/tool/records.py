"""What the directories of a run hold, by their names, their commit records and the sizes of their files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dist_toolkit.checkpoint.catalog import left_behind
from dist_toolkit.checkpoint.layout import MANIFEST, MANIFEST_BYTES, parse_dir
from dist_toolkit.checkpoint.manifest import Manifest, decode
from dist_toolkit.errors import CheckpointCorrupt, OtherFormat
from dist_toolkit.storage import Storage

OTHER = "other format"
"""The state of a checkpoint of another format version."""
_STATES = {".tmp": "uncommitted", ".old": "replaced", ".del": "being deleted", ".aside": "set aside"}


@dataclass(frozen=True)
class Record:
    """A directory of a checkpoint. `manifest` is None if there is no record or it cannot be used; `damage` says why."""

    folder: str
    step: int
    suffix: str
    manifest: Manifest | None
    damage: str
    size: int
    is_foreign: bool = False
    """It is whole, and of a format that this version cannot read."""

    @property
    def state(self) -> str:
        """committed, damaged, other format, uncommitted, replaced, being deleted or set aside."""
        if self.is_foreign and self.counts:
            return OTHER
        return _STATES.get(self.suffix) or ("damaged" if self.damage else "committed")

    @property
    def counts(self) -> bool:
        """Whether a run may restore it, if it is whole."""
        return self.suffix in ("", ".old")

    @property
    def strategy(self) -> str:
        """Strategy and precision; - where the record names none."""
        mark = self.manifest.values.get("strategy") if self.manifest else None
        named = [str(mark[key]) for key in ("name", "precision") if key in mark] if isinstance(mark, dict) else []
        return ", ".join(named) or "-"


def survey(storage: Storage) -> list[Record]:
    """Every directory with the name of a checkpoint, newest step first."""
    found = [read(storage, folder) for folder in storage.list() if parse_dir(folder) is not None]
    present = storage.list()  # a run may have renamed or deleted some meanwhile
    left = left_behind(storage, present)
    found = [replace(r, suffix=".aside") if r.folder in left else r for r in found if r.folder in present]
    return sorted(found, key=lambda r: (-r.step, r.suffix, r.folder))


def read(storage: Storage, folder: str) -> Record:
    """One directory; data files are looked at only for their sizes."""
    step, suffix = parse_dir(folder) or (-1, "")
    path = f"{storage.root}/{folder}/{MANIFEST}"
    try:
        data = storage.read_bytes(f"{folder}/{MANIFEST}", MANIFEST_BYTES)
        manifest = decode(data, path)
    except FileNotFoundError:
        if not storage.renames and suffix == "":  # files of an attempt: there is no other place for them
            suffix = ".tmp"
        damage = "" if suffix in (".tmp", ".del") else f"{MANIFEST} is missing"
        return Record(folder, step, suffix, None, damage, _size(storage, folder))
    except OtherFormat as error:
        why = f"{error.reason}: update dist-toolkit"
        return Record(folder, step, suffix, None, why, _size(storage, folder), is_foreign=True)
    except CheckpointCorrupt as error:
        return Record(folder, step, suffix, None, f"{MANIFEST}: {error.reason}", _size(storage, folder))
    except OSError as error:
        return Record(folder, step, suffix, None, f"{MANIFEST} cannot be read: {error.strerror or error}", 0)
    damage = _misfit(storage, folder, manifest)
    size = len(data) + sum(file.size for file in manifest.files.values())
    return Record(folder, manifest.step, suffix, manifest, damage, size)


def _misfit(storage: Storage, folder: str, manifest: Manifest) -> str:
    """The first file that is not there or has another size; empty if none."""
    for name, entry in manifest.files.items():
        try:
            with storage.open(f"{folder}/{name}") as reader:
                size = reader.size
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
        if size != entry.size:
            return f"{name} has {size} bytes, should have {entry.size}"
    return ""


def _size(storage: Storage, folder: str) -> int:
    """Bytes of the files in a directory without a usable record."""
    total = 0
    for name in storage.list(folder):
        try:
            with storage.open(f"{folder}/{name}") as reader:
                total += reader.size
        except OSError:
            continue
    return total
