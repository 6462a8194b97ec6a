"""From a path or a URL on the command line to the checkpoints meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dist_toolkit.checkpoint.layout import MANIFEST, parse_dir
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.checkpoint.tool.records import Record, read, survey
from dist_toolkit.checkpoint.tool.terminal import note
from dist_toolkit.errors import ConfigError
from dist_toolkit.storage import LocalStorage, Storage, is_url, open_storage

_LOOKED_AT = 20  # places within a place, for a hint


@dataclass(frozen=True)
class Place:
    """A directory of checkpoints; with `folder`, one checkpoint in it."""

    storage: Storage
    folder: str = ""


def find(path: str) -> Place:
    """A directory of checkpoints, or one checkpoint: one with such a name, or that holds a commit record.

    Raises:
        UsageError: there is no such directory, or it is neither; a URL that cannot be used.
    """
    storage = place_of(path)
    if not isinstance(storage, LocalStorage):
        return _find_objects(path.rstrip("/"), storage)
    given = Path(storage.root if is_url(path) else path).absolute()
    if not given.exists():
        raise UsageError(f"{path} does not exist; pass the directory that the run gave to rt.checkpointer(...)")
    if not given.is_dir():
        raise UsageError(f"{path} is a file; pass the directory of checkpoints, or one step-N directory in it")
    if parse_dir(given.name) is not None or (given / MANIFEST).exists():
        return Place(LocalStorage(given.parent), given.name)
    if not _holds_checkpoints(given):
        inside = [child.name for child in sorted(given.iterdir()) if child.is_dir() and _holds_checkpoints(child)]
        hint = f"; did you mean {path.rstrip('/')}/{inside[0]}?" if inside else ""
        raise UsageError(
            f"{path} holds no checkpoints: no step-N directories are in it{hint or '; pass the directory of a run'}"
        )
    return Place(LocalStorage(given))


def place_of(path: str) -> Storage:
    """What is at a path or URL, not looked at.

    Raises:
        UsageError: one that cannot be used.
    """
    try:
        return open_storage(path)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _find_objects(url: str, storage: Storage) -> Place:
    """The same in an object store, where a place without objects does not exist."""
    inside = storage.list()
    parent, _, name = url.rpartition("/")
    if inside and (parse_dir(name) is not None or MANIFEST in inside):
        return Place(open_storage(parent), name)
    if any(parse_dir(child) is not None for child in inside):
        return Place(storage)
    if not inside:
        raise UsageError(f"{url} holds nothing; pass the URL that the run gave to rt.checkpointer(...)")
    children = [c for c in inside[:_LOOKED_AT] if any(parse_dir(one) is not None for one in storage.list(c))]
    hint = f"did you mean {url}/{children[0]}?" if children else "pass the URL of a run"
    raise UsageError(f"{url} holds no checkpoints: no step-N names are in it; {hint}")


def directory(path: str) -> Storage:
    """A directory of checkpoints, and not one of them.

    Raises:
        UsageError: see `find`.
    """
    place = find(path)
    if place.folder:
        raise UsageError(f"{path} is one checkpoint; pass the directory that holds it, {place.storage.root}")
    return place.storage


def choose(path: str, step: int | None = None) -> tuple[Storage, Record]:
    """One checkpoint: the one that `path` is, or that of `step` in the directory, or the newest committed one there.

    A newer one that is passed over, as its record cannot be used, is named on stderr.

    Raises:
        UsageError: there is none; or `step` is another one than `path` is.
    """
    place = find(path)
    if place.folder:
        record = read(place.storage, place.folder)
        if step not in (None, record.step):
            raise UsageError(f"{path} is the checkpoint of step {record.step}, not {step}; leave out --step")
        return place.storage, record
    records = survey(place.storage)
    counting = sorted((r for r in records if r.counts), key=lambda r: (-r.step, r.manifest is None, r.suffix))
    if step is not None:
        return place.storage, _of_step(path, step, records)
    for record in counting:
        if record.manifest is not None:
            return place.storage, record
        note(f"{record.folder} is passed over, {record.state}: {record.damage}")
    raise UsageError(f"{path} holds no committed checkpoint with a whole record; dtk ckpt ls {path} says what it holds")


def _of_step(path: str, step: int, records: list[Record]) -> Record:
    """That of the step: a whole one that counts before others."""
    matching = [record for record in records if record.step == step]
    if not matching:
        there = ", ".join(str(r.step) for r in records if r.counts) or "none"
        raise UsageError(f"{path} holds no checkpoint of step {step}; there are: {there}")
    return min(matching, key=lambda r: (not r.counts, r.manifest is None, r.suffix))


def _holds_checkpoints(folder: Path) -> bool:
    try:
        return any(parse_dir(child.name) is not None for child in folder.iterdir())
    except OSError:
        return False
