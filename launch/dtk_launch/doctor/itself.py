"""How a host reaches itself: its loopback, and its own name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtk_launch.doctor.findings import Finding
from dtk_launch.doctor.interfaces import Interface
from dtk_launch.meeting import LOOPBACK
from dtk_launch.reach import FIX_LOOPBACK

CHECK = "network"


def judge_loopback(interfaces: Sequence[Interface]) -> Iterator[Finding]:
    """A loopback that is down: nothing works on such a host."""
    for interface in interfaces:
        if interface.loopback and not interface.up:
            yield Finding(
                CHECK, "problem", f"the loopback interface {interface.name} is down",
                "processes of one host cannot reach each other: torchrun waits, and no rank starts", FIX_LOOPBACK,
            )  # fmt: skip


def judge_name(hostname: str, unnamed: str) -> Iterator[Finding]:
    """A name that does not lead to this host, for a run on this node alone. `unnamed`: as of reach.py."""
    if unnamed:
        yield Finding(
            CHECK, "warning", f"{unnamed}; dtk launch gives torchrun {LOOPBACK}",
            "plain torchrun starts no rank: it waits for its own name to answer",
            f"a line in /etc/hosts: 127.0.1.1 {hostname}; until then dtk launch, or torchrun --local-addr {LOOPBACK}",
        )  # fmt: skip
