"""The ways in which a run is made to fail: pure data, in a fixed order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DELAYS = (1, 2, 5, 20, 100, 500)
"""Milliseconds between the faults of a cascade."""
KINDS = ("exception", "exit", "os._exit", "import", "SIGSEGV", "SIGABRT", "SIGKILL", "SIGTERM", "ulimit")
"""Ways to fail that need nothing."""
EARLY = ("early end", "os._exit(0)")
"""Ways to leave with exit code 0 while the others still need the rank: those fail of it."""
WORDS = {
    "exception": "raises an exception",
    "exit": "calls sys.exit(3)",
    "os._exit": "calls os._exit(4)",
    "import": "imports a module that is not there",
    "SIGSEGV": "crashes (SIGSEGV)",
    "SIGABRT": "aborts (SIGABRT)",
    "SIGKILL": "is killed (SIGKILL)",
    "SIGTERM": "is ended by SIGTERM",
    "ulimit": "asks for more memory than its ulimit",
    "early end": "calls sys.exit(0) too early",
    "os._exit(0)": "calls os._exit(0) too early",
    "slow teardown": "raises an exception, and ends 0.2 s after its connections",
    "loader error": "has an exception in a worker of its DataLoader",
    "loader killed": "has a worker of its DataLoader killed (SIGKILL)",
    "out of memory": "is killed by the kernel's out-of-memory killer",
    "core dump": "crashes, and is still writing its core dump when the other rank raises an exception",
}
"""What a rank does, for people."""
PEERS = {
    "sleep": "one rank fails, the others sleep",
    "sockets": "one rank fails, the others wait for it on sockets",
    "gloo": "one rank fails, the others wait for it in an all-reduce (gloo)",
}
"""What the ranks without a fault do, for people."""


@dataclass(frozen=True)
class Scenario:
    """One run that fails. `faults` rank -> (kind, milliseconds after the first fault)."""

    group: str
    """Of scenarios that are counted together, in words."""
    name: str
    """Within its group, in words."""
    nproc: int
    faults: tuple[tuple[int, tuple[str, float]], ...]
    peers: str = "sleep"
    """What the ranks without a fault do: sleep, wait on sockets (which close), or all-reduce over gloo."""
    nodes: int = 1

    @property
    def first(self) -> int:
        """The rank that is to fail first. What counts is when it did, by its own clock."""
        return min(self.faults, key=lambda fault: fault[1][1])[0]

    def to_json(self) -> dict[str, Any]:
        """As the ranks read it."""
        return {"faults": {str(rank): fault for rank, fault in self.faults}, "peers": self.peers}


def one(kind: str, nproc: int, rank: int, peers: str = "sleep", nodes: int = 1) -> Scenario:
    """A single fault."""
    name = f"rank {rank} of {nproc * nodes} {WORDS[kind]}{_on(nodes)}"
    return Scenario(PEERS[peers], name, nproc, ((rank, (kind, 0.0)),), peers, nodes)


def cascade(kinds: tuple[str, ...], nproc: int, delay: float, seed: int, nodes: int = 1) -> Scenario:
    """Every rank fails, each `delay` ms after the one before, in a drawn order of ranks and of kinds."""
    draw = random.Random(f"{kinds} {nproc} {delay} {seed}")
    order = draw.sample(range(nproc * nodes), nproc * nodes)
    faults = tuple((rank, (draw.choice(kinds), place * delay)) for place, rank in enumerate(order))
    rank, (kind, _) = faults[0]
    name = f"{nproc * nodes} ranks{_on(nodes)}, draw {seed + 1}: rank {rank} is to be the first: it {WORDS[kind]}"
    return Scenario(f"cascade: every rank fails, {delay:g} ms apart", name, nproc, faults, nodes=nodes)


def core_dump() -> Scenario:
    """A rank that is still writing its core, for a second and more, when another one fails and is gone at once."""
    faults = ((1, ("core dump", 0.0)), (0, ("exception", 100.0)))
    return Scenario("a crash whose core dump takes long", f"rank 1 of 2 {WORDS['core dump']}", 2, faults)


def _on(nodes: int) -> str:
    return f" on {nodes} nodes" if nodes > 1 else ""


def scenarios(seeds: int = 2) -> Iterator[Scenario]:
    """All of them; `seeds` draws of each cascade."""
    for number, kind in enumerate(KINDS):
        yield one(kind, 2, number % 2)
        yield one(kind, 4, (number + 1) % 4, "sockets")
    yield one("slow teardown", 4, 2, "sockets")
    for kind in EARLY:
        yield one(kind, 4, 1, "sockets")
        yield one(kind, 3, 1, "gloo")
    for kind in ("exception", "os._exit", "SIGKILL", "SIGSEGV"):
        yield one(kind, 3, 1, "gloo")
    for kind in ("loader error", "loader killed"):
        yield one(kind, 2, 1)
    yield one("out of memory", 2, 1)
    yield core_dump()
    for nproc, delay, seed in itertools.product((2, 4, 8), DELAYS, range(seeds)):
        yield cascade(KINDS, nproc, delay, seed)
    for kind in ("exception", "SIGKILL", "os._exit", *EARLY):
        yield one(kind, 2, 3, "sockets", nodes=2)
    for delay in (5, 100):
        yield cascade(KINDS, 2, delay, 0, nodes=2)
