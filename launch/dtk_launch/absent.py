"""Finds nodes of a launch that are gone without a word: a power cut, a cable, a kernel that stands still.

Nothing tells the others: their ranks wait in a collective until its timeout. What tells is that the node's entry, which
its dtk writes every two seconds, stays as it is while no rank of this node makes a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dtk_launch import nodes
from dtk_launch.plan import LaunchPlan

PATIENCE = 60.0
"""Seconds without a word. Network file systems may show an entry of a minute ago."""
_VARIABLE = "DTK_NODE_TIMEOUT"
_PAUSE = 0.5
_LOOKS = 6  # into the entries in that time: they may be a thousand files


class Absent:
    """The nodes that this launch has lost, as this node sees it. By its own clock alone."""

    def __init__(
        self,
        plan: LaunchPlan,
        environ: Mapping[str, str],
        counted: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`counted` gives the steps of this node's ranks so far (None: not known)."""
        self.lost: dict[str, str] = {}
        """Node -> its host."""
        self.seconds = seconds_in(environ)
        self._plan, self._counted, self._clock = plan, counted, clock
        self._launch = nodes.launch_id(plan)
        self._steps: int | None = None
        self._next_look = clock()
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def is_over(self) -> bool:
        """Whether the launch cannot go on without those that are lost: too many, or the one where the nodes meet."""
        topology = self._plan.topology
        return "0" in self.lost or (bool(self.lost) and topology.nodes - len(self.lost) < topology.min_nodes)

    @property
    def leads(self) -> bool:
        """Whether this node is the first of those that are left, and was not the first of all."""
        nodes_left = [number for number in range(self._plan.topology.nodes) if str(number) not in self.lost]
        return "0" in self.lost and self._plan.topology.node == str(nodes_left[0])

    def look_for_the_first(self) -> None:
        """After a failure: find out whether the first node is gone, which may be why. Waits until that is known."""
        deadline, stamp, topology = self._clock() + self.seconds, None, self._plan.topology
        while self.seconds and topology.node != "0" and topology.on_its_own and "0" not in self.lost:
            entry = nodes.entries(self._plan.run_dir, self._launch).get("0", {})
            if entry.get("state") != "running" or (stamp is not None and entry.get("time_ns") != stamp):
                return
            stamp = entry.get("time_ns")
            if self._clock() > deadline:
                self.lost["0"] = str(entry.get("host"))
            time.sleep(_PAUSE)

    def poll(self) -> list[str]:
        """The hosts of the nodes that have just turned out to be lost. Looks only while no step is made."""
        now = self._clock()
        if not self._plan.topology.on_its_own or self.seconds == 0 or now < self._next_look:
            return []
        self._next_look = now + self.seconds / _LOOKS
        steps = self._counted()
        if steps != self._steps:
            self._steps = steps
            self._seen.clear()
            return []
        found = []
        for node, entry in nodes.entries(self._plan.run_dir, self._launch).items():
            if node == self._plan.topology.node or node in self.lost or entry.get("state") != "running":
                continue
            stamp, since = self._seen.get(node, (None, now))
            if stamp != entry.get("time_ns"):
                self._seen[node] = (entry.get("time_ns", 0), now)
            elif now - since >= self.seconds:
                self.lost[node] = str(entry.get("host", node))
                found.append(self.lost[node])
        return found


def seconds_in(environ: Mapping[str, str]) -> float:
    """The patience that is asked for, 0 for no end of it; what is no number does not count."""
    try:
        asked = float(environ.get(_VARIABLE, ""))
    except ValueError:
        return PATIENCE
    return asked if 0 <= asked < float("inf") else PATIENCE
