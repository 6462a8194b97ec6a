"""JSON messages between the driver and the rank 0 of what it measures, over a socket in a folder of this user alone."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

ADDRESS, KEY = "BENCHMARK_ADDRESS", "BENCHMARK_KEY"


class Channel:
    """One end of a connection. Nothing that is received is unpickled."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises OSError where the other end is gone."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Blocks, without spinning. Raises EOFError or OSError where the other end is gone."""
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message

    def ready(self, seconds: float) -> bool:
        """Whether a message, or the end of the connection, is there within this time."""
        return self._connection.poll(seconds)

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


class Meeting:
    """The driver's socket, on which every rank 0 reports."""

    def __init__(self, folder: Path) -> None:
        self._key = secrets.token_bytes(32)
        self._address = str(folder / "meet")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._address)
        self._socket.listen()

    @property
    def environment(self) -> dict[str, str]:
        """What a rank 0 needs to find and be let in."""
        return {ADDRESS: self._address, KEY: self._key.hex()}

    def accept(self, seconds: float) -> Channel | None:
        """The next one that reports and knows the key, or None after this time."""
        self._socket.settimeout(seconds)
        try:
            accepted, _ = self._socket.accept()
        except TimeoutError:
            return None
        accepted.setblocking(True)
        connection = Connection(accepted.detach())
        # What multiprocessing.connection.Listener.accept does, which has no time limit.
        deliver_challenge(connection, self._key)
        answer_challenge(connection, self._key)
        return Channel(connection)

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()


def report_to_driver(environ: Mapping[str, str] = os.environ) -> Channel:
    """Rank 0's end of its connection to the driver."""
    connection = Client(environ[ADDRESS], "AF_UNIX", bytes.fromhex(environ[KEY]))
    assert isinstance(connection, Connection)
    return Channel(connection)
