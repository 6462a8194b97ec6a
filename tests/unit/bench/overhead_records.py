"""Records of a run of `dtk bench overhead`, made up."""

from __future__ import annotations

from typing import Any

from tests.unit.bench.machine_record import MACHINE

OVERHEAD = {
    **MACHINE,
    "libraries": {"accelerate": "1.15.0"},
    "options": {"rounds": 12, "batch": 32, "steps": 50, "seed": 0, "quick": False},
}

SETUP = {
    "kind": "setup",
    "ranks": 2,
    "threads": 1,
    "device": "cpu",
    "backend": "gloo",
    "parameters": 662026,
    "warmup_steps": 10,
}


def block(feed: str, loop: str, number: int, step_ms: float, others: float = 0.0) -> dict[str, Any]:
    """A block of 50 steps."""
    seconds = step_ms * 50 / 1000
    return {
        "kind": "block",
        "feed": feed,
        "loop": loop,
        "round": number,
        "warmup": number == 0,
        "position": 0,
        "steps": 50,
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "others_cpu_seconds": others * seconds,
    }


def run(status: str | None = "complete", others: float = 0.0, **loops: list[float]) -> list[dict[str, Any]]:
    """Loop (with _ for -) -> ms a step by round, the first of which is the warm-up; all on the feed `memory`."""
    records: list[dict[str, Any]] = [OVERHEAD, SETUP]
    names = {name: name.replace("_", "-") for name in loops}
    for number in range(max(map(len, loops.values()), default=0)):
        for name, times in loops.items():
            if number < len(times):
                records.append(block("memory", names[name], number, times[number], others))
    if status == "complete":
        same = {"kind": "weights", "feed": "memory", "identical": True, "difference": 0.0, "collectives": 2.0}
        records += [{**same, "loop": name} for name in names.values()]
    return [*records, {"kind": "end", "status": status}] if status else records
