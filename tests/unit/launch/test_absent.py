"""Nodes that are gone without a word, by what their dtk has not written."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dtk_launch import nodes
from dtk_launch.absent import PATIENCE, Absent, seconds_in
from dtk_launch.rendezvous import Rendezvous, Topology


class Launch:
    """Node 1 of four, with a clock of its own; the others beat until they are cut off."""

    def __init__(self, folder: Path, fewest: int = 2, own: int = 1, on_its_own: bool = True) -> None:
        meeting = Rendezvous("n0", 1, "7-0", False, f"n{own}")
        topology = Topology(4, 1, own, meeting, fewest, on_its_own)
        self.folder, self.now, self.steps = folder, 0.0, 0
        self.beating = {"0", "1", "2", "3"}
        plan: Any = SimpleNamespace(topology=topology, run_dir=folder)
        self.absent = Absent(plan, {}, lambda: self.steps, lambda: self.now)

    def run(self, seconds: float, steps: int = 0) -> list[str]:
        """Let time pass; the hosts that turned out to be lost."""
        found = []
        for _ in range(int(seconds)):
            self.now += 1
            self.steps += steps
            for node in self.beating:
                nodes.publish(self.folder, node, "7-0", state="running", host=f"n{node}")
            found += self.absent.poll()
        return found


def test_a_node_that_says_nothing_while_no_step_is_made_is_lost_once(tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    assert launch.run(60, steps=1) == []
    launch.beating -= {"3"}
    assert launch.run(PATIENCE - 1) == []
    assert launch.run(30) == ["n3"]
    assert launch.run(200) == []
    assert not launch.absent.is_over
    launch.beating -= {"2"}
    assert launch.run(PATIENCE + 30) == ["n2"]
    assert not launch.absent.is_over, "two are left, as many as it needs"
    assert not launch.absent.leads


def test_while_steps_are_made_nobody_is_lost(tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    launch.run(5)
    launch.beating -= {"3"}
    assert launch.run(500, steps=1) == [], "its file system may stand still, but its ranks do not"


def test_a_node_that_has_ended_is_not_lost(tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    launch.run(5)
    launch.beating -= {"3"}
    nodes.publish(tmp_path, "3", "7-0", state="ended", host="n3")
    assert launch.run(300) == []


def test_too_few_are_left(tmp_path: Path) -> None:
    launch = Launch(tmp_path, fewest=3)
    launch.run(5)
    launch.beating -= {"2", "3"}
    assert sorted(launch.run(PATIENCE + 30)) == ["n2", "n3"]
    assert launch.absent.is_over


@pytest.mark.parametrize(("own", "dead", "leads"), [(1, "0", True), (2, "0", False), (2, "01", True)])
def test_without_the_first_node_it_is_over_and_the_next_one_leads(
    tmp_path: Path, own: int, dead: str, leads: bool
) -> None:
    launch = Launch(tmp_path, fewest=1, own=own)
    launch.run(5)
    launch.beating -= set(dead)
    assert len(launch.run(PATIENCE + 30)) == len(dead)
    assert launch.absent.is_over
    assert launch.absent.leads == leads


@pytest.mark.parametrize(
    ("timeout", "state", "lost"), [("0", "running", {}), ("0.2", "running", {"0": "n0"}), ("9", "ended", {})]
)
def test_after_a_failure_the_first_node_is_looked_for(tmp_path: Path, timeout: str, state: str, lost: Any) -> None:
    topology = Topology(2, 1, 1, Rendezvous("n0", 1, "7-0", False, "n1"), 1, on_its_own=True)
    nodes.publish(tmp_path, "0", "7-0", state=state, host="n0")
    plan: Any = SimpleNamespace(topology=topology, run_dir=tmp_path)
    absent = Absent(plan, {"DTK_NODE_TIMEOUT": timeout}, lambda: None)
    absent.look_for_the_first()
    assert absent.lost == lost, "0 is for never"


def test_what_a_scheduler_looks_after_is_left_to_it(tmp_path: Path) -> None:
    launch = Launch(tmp_path, fewest=4, on_its_own=False)
    launch.run(5)
    launch.beating.clear()
    assert launch.run(300) == []


@pytest.mark.parametrize(
    ("asked", "seconds"), [("", PATIENCE), ("5", 5), ("0", 0), ("-1", PATIENCE), ("x", PATIENCE), ("inf", PATIENCE)]
)
def test_how_long(asked: str, seconds: float) -> None:
    assert seconds_in({"DTK_NODE_TIMEOUT": asked}) == seconds
