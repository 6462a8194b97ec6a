"""Waking a thread that waits in gloo: its connections are shut down, and the wait ends with an error.

gloo's own abort does nothing to an operation under way, and destroying its group waits for that operation. A
connection is known by its two ends, so a descriptor that was closed and used again is left alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
from pathlib import Path

Connection = tuple[object, object]
"""The own and the other end of a TCP connection."""


def connections() -> set[Connection]:
    """The TCP connections that this process has now. Empty without /dev/fd, or with a default timeout."""
    return {ends for _, ends in _open_connections()}


def without_port(found: Collection[Connection], port: int | None) -> set[Connection]:
    """Those of which neither end is at `port`."""
    return {ends for ends in found if port is None or port not in (_port(ends[0]), _port(ends[1]))}


def shut_down(wanted: Collection[Connection]) -> int:
    """Shut down those of `wanted` that are still open; how many."""
    done = 0
    for descriptor, ends in _open_connections():
        if ends in wanted:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
                done += 1
    return done


def _open_connections() -> list[tuple[int, Connection]]:
    found: list[tuple[int, Connection]] = []
    if socket.getdefaulttimeout() is not None:
        return found  # a Python object for a socket would make it non-blocking, for its owner as well
    with contextlib.suppress(OSError):
        for path in [*Path("/dev/fd").iterdir()]:
            with contextlib.suppress(OSError), _duplicate(int(path.name)) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    found.append((int(path.name), (connection.getsockname(), connection.getpeername())))
    return found


def _duplicate(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _port(end: object) -> int | None:
    return end[1] if isinstance(end, tuple) else None
