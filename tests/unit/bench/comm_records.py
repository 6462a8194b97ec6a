"""Records of a run of `dtk bench comm`, made up."""

from __future__ import annotations

from typing import Any

from tests.unit.bench.machine_record import MACHINE

COMM = {
    **MACHINE,
    "options": {
        "operations": ["all-reduce", "all-gather"], "sizes": [1024, 1048576], "backends": ["gloo"], "nproc": 2,
        "nodes": 1, "dtype": "float32", "rounds": 3, "iterations": 0, "seed": 0,
    },
}  # fmt: skip
SETUP = {
    "kind": "setup", "ranks": 2, "nodes": 1, "one_machine": True, "threads": 1, "device": "cpu", "nccl": None,
    "interfaces": {},
}  # fmt: skip


def case(operation: str, size: int, *times_us: float, right: bool = True, **more: Any) -> list[dict[str, Any]]:
    """A case, and a block for each of these times in µs. `more`: backend, scope, ranks."""
    among = {"backend": "gloo", "scope": "within", "ranks": 2} | more
    ranks = among.pop("ranks")
    key = {**among, "operation": operation, "size": size}
    first = {"kind": "case", **key, "ranks": ranks, "bytes": size, "iterations": 100, "right": right}
    blocks = [
        {
            "kind": "block", "round": number, **key, "iterations": 100, "seconds": time / 1e6,
            "mean_seconds": 0.9 * time / 1e6,
        }
        for number, time in enumerate(times_us, 1)
    ]  # fmt: skip
    return [first, *blocks]


def run(*cases: list[dict[str, Any]], status: str | None = "complete", **setup: Any) -> list[dict[str, Any]]:
    """A whole run of these cases."""
    records = [COMM, {**SETUP, **setup}, *(record for found in cases for record in found)]
    return [*records, {"kind": "end", "status": status}] if status else records


TYPICAL = (
    case("all-reduce", 1024, 100, 110, 120),
    case("all-reduce", 1048576, 1000, 1100, 1200),
    case("all-gather", 1024, 50, 55, 60),
    case("all-gather", 1048576, 900, 910, 920),
)
