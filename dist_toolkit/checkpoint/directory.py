"""The directory of a run: who may save in it, and what is deleted from it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from dist_toolkit.checkpoint.catalog import Committed, committed_checkpoints, delete
from dist_toolkit.checkpoint.heads import decode_head
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.errors import DirectoryInUse, PeerError
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage

_PATIENCE = 10.0  # seconds to wait for the program before this one to end


def claim(storage: Storage, group: Group) -> None:
    """Refuse a directory that some rank cannot write to, or that another program saves in. Collective.

    Raises:
        DirectoryInUse, PeerError: on every rank.
    """
    owner, error = None, None
    try:
        storage.check_writable()
        if group.world.is_main:
            owner = storage.claim(_me(), _PATIENCE)
    except Exception as caught:
        error = caught
    group.agree(f"preparing to save in {storage.root}", error)
    owner = group.broadcast_json(owner)
    if owner is not None:
        raise DirectoryInUse(storage.root, owner)


def prune(storage: Storage, group: Group, retention: Retention, warn: Callable[[str, str], None]) -> None:
    """Delete what retention gives up, after a commit. A failure loses nothing, but every rank hears of it. Collective.

    Args:
        warn: is called with a kind of warning and its words.

    Raises:
        PeerError: rank 0 could not delete.
    """
    error = None
    if group.world.is_main and retention.keep_last is not None:
        try:
            committed = committed_checkpoints(storage, look=decode_head)
            surplus = retention.surplus(committed)
            if surplus:
                _warn_of_no_metric(storage, retention, committed, warn)
            for entry in surplus:
                delete(storage, entry)
        except Exception as caught:  # no memory for a record, too
            error = f"{type(caught).__name__}: {caught}"
    failure = group.broadcast_json(error)
    if failure is not None:
        raise PeerError("deleting old checkpoints", {0: failure})


def _warn_of_no_metric(
    storage: Storage, retention: Retention, committed: Sequence[Committed], warn: Callable[[str, str], None]
) -> None:
    """A typing error in `keep_best` would let the best one go."""
    missing = retention.never_reported(committed)
    if missing is not None:
        warn("keep_best", f"{storage.root}: no checkpoint has the metric of keep_best: {missing}")


def _me() -> str:
    """This program, for others to read."""
    job = os.environ.get("SLURM_JOB_ID")
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {os.getpid()} on {socket.gethostname()}{f' (job {job})' if job else ''}, since {since}"
