"""Whether all ranks see one directory: rank 0 has written a file, or read one, and the others look for its bytes."""

from __future__ import annotations

import socket

from dist_toolkit.checkpoint.layout import MANIFEST_BYTES
from dist_toolkit.checkpoint.manifest import digest
from dist_toolkit.errors import PeerError, StorageNotShared
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage


def sees(storage: Storage, name: str, expected: bytes) -> bool:
    """Whether the file is there and holds these bytes. OSError where it is there and cannot be read."""
    try:
        return storage.read_bytes(name, MANIFEST_BYTES) == expected
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_shared(storage: Storage, group: Group, name: str, seen: str, what: str) -> bytes:
    """The file `name`, which every rank must find as rank 0 did. Collective.

    Args:
        seen: the digest of what rank 0 has read.
        what: is being done, for the error.

    Raises:
        StorageNotShared, PeerError: as `check_shared`.
    """
    data, same, words = b"", False, None
    try:
        data = storage.read_bytes(name, MANIFEST_BYTES)
        same = digest(data) == seen
    except (FileNotFoundError, NotADirectoryError):
        same = False  # _compare names this rank
    except Exception as error:  # no memory, too
        words = f"{type(error).__name__}: {error}"
    _compare(storage, group, same, words, what)
    return data


def check_shared(storage: Storage, group: Group, name: str, expected: bytes, what: str) -> None:
    """Compare what every rank finds in the file `name` with `expected`. Collective.

    Args:
        what: is being done, for the error.

    Raises:
        StorageNotShared: a rank finds no such file, or another one.
        PeerError: a rank may not read it, or its disk fails.
    """
    same, words = False, None
    try:
        same = sees(storage, name, expected)
    except Exception as error:  # no memory, too
        words = f"{type(error).__name__}: {error}"
    _compare(storage, group, same, words, what)


def _compare(storage: Storage, group: Group, same: bool, words: str | None, what: str) -> None:
    answers = group.all_gather_json([same, words, socket.gethostname()])
    failures = {rank: said for rank, (_, said, _) in enumerate(answers) if said is not None}
    if failures:
        raise PeerError(what, failures)
    blind = {rank: host for rank, (same, _, host) in enumerate(answers) if not same}
    if blind:
        raise StorageNotShared(storage.root, blind)
