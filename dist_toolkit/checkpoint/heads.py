"""Heads of commit records: what a choice among them goes by. The same bytes are decoded once, however often read.

With thousands of tensors to decode and check, a record takes a tenth of a second, and a save looks at all of a
directory. Heads are kept by the digest of the record's bytes, so one that has changed in any way is decoded anew; a
damaged one is decoded each time.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Lock

from dist_toolkit.checkpoint.manifest import Manifest, body_of, decode, digest, head_of

_MOST = 4096  # heads that are kept, a kilobyte each

_known: dict[tuple[int, str], Manifest] = {}
_lock = Lock()


def decode_head(data: bytes, path: str) -> Manifest:
    """The manifest without files, tensors and values, all of which were checked.

    Raises:
        CheckpointCorrupt: as `manifest.decode`.
    """
    with _lock:
        head = _known.get(_key(data))
    return remember(data, decode(data, path)) if head is None else head


def glance(data: bytes, path: str) -> Manifest:
    """The head alone, from the bytes before files, tensors and values, which were not looked at.

    That the record holds what was written is certain, by its digest; whether that makes sense, `decode` tells.

    Raises:
        CheckpointCorrupt: see `manifest.body_of`.
    """
    with _lock:
        known = _known.get(_key(data))
    return known or head_of(body_of(data, path)) or decode(data, path)


def decode_whole(data: bytes, path: str) -> Manifest:
    """`manifest.decode`, of which the head is kept: what a restore looks at, a save need not decode."""
    manifest = decode(data, path)
    remember(data, manifest)
    return manifest


def remember(data: bytes, manifest: Manifest) -> Manifest:
    """The head of `manifest`, kept for a record of these bytes, which would be found whole."""
    head = replace(manifest, files={}, tensors={}, values={})
    with _lock:
        _known[_key(data)] = head
        if len(_known) > _MOST:
            del _known[next(iter(_known))]
    return head


def _key(data: bytes) -> tuple[int, str]:
    return len(data), digest(data)
