"""Does an error say that somebody else went away? Asked by the rank itself at its end, and by the verdict.

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import re

# Words of an exception, or of a C++ abort on stderr.
_WORDS = re.compile(
    r"Connection (?:was )?(?:likely )?(?:closed|reset|refused)|Broken pipe|recvValue failed|failed to recv, got 0 bytes"
    r"|remote process exited|[Cc]ommunicator was aborted|ncclRemoteError|Did the remote server shutdown or crash"
    r"|Timed out waiting \d+ms for (?:recv|send) operation|client socket has timed out"
)
_TYPES = {
    "ConnectionResetError", "ConnectionAbortedError", "ConnectionRefusedError", "BrokenPipeError",
    "DistNetworkError", "DistStoreError", "PeerError",
}  # fmt: skip

LINGER = 1.5
"""Seconds for which a rank that has only lost a connection puts off its end. torchrun ends all others as soon as one
has ended, and the one at fault may still be on its way out of its `finally` blocks, with its error unsaid."""


def lost_connection(kind: str | None, message: str) -> bool:
    """Whether an exception of this type and message, or (type None) words on stderr, tell of a lost connection."""
    return kind in _TYPES or bool(_WORDS.search(message))
