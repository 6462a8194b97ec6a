"""Ports of this host at which a run would listen, and that another program has."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from dtk_launch.doctor.findings import Finding
from dtk_launch.given import whole
from dtk_launch.meeting import DEFAULT_PORT

CHECK = "ports"


def taken_ports(master: str) -> tuple[int, ...]:
    """Those of the port of --rdzv and of MASTER_PORT that cannot be had."""
    ports = {DEFAULT_PORT, *((int(master),) if is_port(master) else ())}
    return tuple(sorted(port for port in ports if _taken(port)))


def is_port(text: str) -> bool:
    """Whether a port can be called so."""
    return whole(text) and 0 < int(text) < 65536


def _taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
        return False


def judge(master: str, taken: Sequence[int]) -> Iterator[Finding]:
    """`master`: MASTER_PORT, '' where rank 0 would listen on another host; `taken`: what taken_ports found."""
    for port in taken:
        if str(port) == master:
            yield Finding(
                CHECK, "warning", f"another program has MASTER_PORT={master}",
                "a rank that is started without dtk or torchrun fails: address already in use",
                "unset MASTER_PORT: dtk launch chooses a free port",
            )  # fmt: skip
        else:
            yield Finding(
                CHECK, "note", f"another program has port {port}",
                "it is where the nodes of a --rdzv HOST without a port meet", "pass --rdzv HOST:PORT",
            )  # fmt: skip
    if not taken:
        also = f", and so is MASTER_PORT={master}" if is_port(master) else ""
        yield Finding(CHECK, "ok", f"port {DEFAULT_PORT} is free{also}")
