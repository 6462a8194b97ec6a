"""What a node of several says while no rank of it has started: which nodes it waits for, and where."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from dtk_launch import nodes
from dtk_launch.plan import LaunchPlan

_FIRST = 10.0  # seconds after the start
_AGAIN = 180.0  # seconds
_BEFORE = 5.0  # seconds between the two looks by which a node is known to live: its entry comes every two


class Gathering:
    """The wait for the other nodes of a launch. Looks into the run directory twice for each time that it says so."""

    def __init__(self, plan: LaunchPlan, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self._due = clock() + _FIRST
        self._stamps: dict[str, int] | None = None

    def look(self) -> None:
        """Say on stderr what this node waits for, if it is time to. To be called while no rank of it has started."""
        now = self._clock()
        if self._stamps is None and now >= self._due - _BEFORE:
            self._stamps = self._others()
        elif self._stamps is not None and now >= self._due:
            there = self._others().items() - self._stamps.items()
            with contextlib.suppress(OSError):
                print(f"dtk: {words(self._plan, len(there))}", file=sys.stderr, flush=True)
            self._due, self._stamps = now + _AGAIN, None

    def _others(self) -> dict[str, int]:
        """When each of the other nodes last wrote its entry, by its own clock."""
        found = nodes.entries(self._plan.run_dir, nodes.launch_id(self._plan))
        own = self._plan.topology.node
        return {
            node: entry.get("time_ns", 0)
            for node, entry in found.items()
            if node != own and entry.get("state") == "running"
        }


def words(plan: LaunchPlan, others: int) -> str:
    """What this node waits for when `others` more are known to be there."""
    topology = plan.topology
    assert topology.rendezvous is not None
    where = f"{topology.rendezvous.host}:{topology.rendezvous.port}"
    missing = topology.min_nodes - 1 - others
    if missing > 0:
        by_hand = any(row.key == "rendezvous" and row.source != "observed" for row in plan.decisions)
        how = "are started with the same --nodes, --rdzv and --name" if by_hand else "are started by srun"
        return f"node {topology.node} waits for {missing} of {topology.min_nodes} nodes at {where}; the others {how}"
    if topology.elastic and 1 + others < topology.nodes:
        return f"node {topology.node} waits at {where} for more nodes, up to {topology.nodes}"
    there = f"{1 + others} of {topology.nodes} nodes are there"
    return f"node {topology.node} waits at {where} for its ranks to start; {there}"
