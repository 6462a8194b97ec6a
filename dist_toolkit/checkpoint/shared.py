"""Whether all ranks see one directory: rank 0 has written a file, or read one, and the others look for its bytes."""

from __future__ import annotations

import socket

from dist_toolkit.errors import PeerError, StorageNotShared
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage


def sees(storage: Storage, name: str, expected: bytes) -> bool:
    """Whether the file is there and holds these bytes. OSError where it is there and cannot be read."""
    try:
        return storage.read_bytes(name) == expected
    except (FileNotFoundError, NotADirectoryError):
        return False


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
    except OSError as error:
        words = f"{type(error).__name__}: {error}"
    answers = group.all_gather_json([same, words, socket.gethostname()])
    failures = {rank: said for rank, (_, said, _) in enumerate(answers) if said is not None}
    if failures:
        raise PeerError(what, failures)
    blind = {rank: host for rank, (same, _, host) in enumerate(answers) if not same}
    if blind:
        raise StorageNotShared(storage.root, blind)
