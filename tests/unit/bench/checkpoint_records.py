"""Records of a run of `dtk bench checkpoint`, made up."""

from __future__ import annotations

from typing import Any

from tests.unit.bench.machine_record import MACHINE

CHECKPOINT = {
    **MACHINE,
    "filesystem": "ext4",
    "libraries": {"accelerate": "1.15.0"},
    "options": {"rounds": 12, "seed": 0, "settle": 0.5, "quick": False},
}

SETUP = {
    "kind": "setup",
    "ranks": 2,
    "threads": 1,
    "backend": "gloo",
    "states": {"large": {"tensors": 10, "bytes": 838_860_800}, "small": {"tensors": 5000, "bytes": 100_000_000}},
}

Times = list[float]


def block(method: str, phase: str, number: int, ms: float, case: str = "large", **more: Any) -> dict[str, Any]:
    """One phase; of a save in the background, `stall` says the milliseconds of it."""
    if "stall" in more:
        more["stall"] /= 1000
    return {
        "kind": "block",
        "case": case,
        "method": method,
        "round": number,
        "warmup": number == 0,
        "position": 0,
        "phase": phase,
        "seconds": ms / 1000,
        "cpu_seconds": ms / 1000,
        "others_cpu_seconds": 0.0,
        **more,
    }


def phase(method: str, name: str, times: Times, stalls: Times = (), **more: Any) -> list[dict[str, Any]]:
    """One phase over all rounds, the first of which is the warm-up."""
    if name in ("load", "cold"):
        more = {"same": True, **more}
    rounds = enumerate(times)
    return [block(method, name, n, ms, **more, **({"stall": stalls[n]} if stalls else {})) for n, ms in rounds]


def run(*phases: list[dict[str, Any]], status: str | None = "complete") -> list[dict[str, Any]]:
    """A run with these blocks."""
    end = [{"kind": "end", "status": status}] if status else []
    return [CHECKPOINT, SETUP, *(record for records in phases for record in records), *end]
