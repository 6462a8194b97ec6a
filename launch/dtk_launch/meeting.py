"""The host of --rdzv as this node sees it: is it this machine, how is it reached, is its port free?"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 29400
"""Port of the rendezvous where --rdzv names none: torchrun's own, below the usual ephemeral ports."""


@dataclass(frozen=True)
class Meeting:
    """What this node sees of the host of --rdzv. `own_address` is the one from which this node reaches it."""

    addresses: tuple[str, ...]
    is_local: bool
    own_address: str
    problem: str = ""
    """Why it cannot be reached from here; '' if it can."""
    taken: bool = False
    """Whether it is this machine, and another program has the port."""
    ephemeral: tuple[int, int] = (32768, 60999)
    """First and last port that this system gives to whoever asks for any."""


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """`host`, `host:port` or `[v6 address]:port` -> host and port. Raises PlanError."""
    text = endpoint
    if "://" in text:
        raise PlanError(
            f"--rdzv={endpoint!r} is a URL, and the nodes meet at a host and a port; pass HOST or HOST:PORT, for "
            f"example --rdzv node1:{DEFAULT_PORT}"
        )
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise PlanError(f"--rdzv={endpoint!r}: put the IPv6 address in brackets, as in [fe80::1]:{DEFAULT_PORT}")
    if not host or not host.isprintable() or any(c in host for c in " /=,'\"") or not port.isdecimal():
        raise PlanError(f"--rdzv={endpoint!r} is not HOST or HOST:PORT; pass for example --rdzv node1:{DEFAULT_PORT}")
    if not 1024 <= int(port) <= 65535:
        raise PlanError(
            f"--rdzv={endpoint}: port {port} is not between 1024 and 65535; {DEFAULT_PORT} is the usual one"
        )
    return host, int(port)


def look(endpoint: str, root: Path = Path("/")) -> Meeting:
    """Look for the host of `--rdzv`. Raises PlanError for what is no endpoint; other problems are in the answer."""
    host, port = split_endpoint(endpoint)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of no or of too many letters
        reason = getattr(error, "strerror", None) or error
        problem = f"the name {host} is not known on this machine ({reason}); pass its address"
        return Meeting((), False, "", problem)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    family, address = found[0][0], str(found[0][4][0])
    is_local = can_bind(family, address, 0)
    taken = is_local and not can_bind(family, address, port)
    own, problem = _own_address(family, address, port)
    return Meeting(addresses, is_local, own, problem, taken, _ephemeral_ports(root))


def can_bind(family: int, address: str, port: int) -> bool:
    """Whether this machine has the address, and the port is free; 0 for any."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _own_address(family: int, address: str, port: int) -> tuple[str, str]:
    """The address from which this machine would talk to that one, and what stands in the way. Nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))
        except OSError as error:
            return "", f"there is no way from this machine to {address} ({error.strerror or error})"
        return str(probe.getsockname()[0]), ""


def _ephemeral_ports(root: Path) -> tuple[int, int]:
    try:
        low, high = (root / "proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999
