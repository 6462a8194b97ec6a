"""What one `dtk` does at a size that no test has: python benchmarks/_scale.py --ranks 10000 --per-node 8

It makes the run directory of such a run, with the files that its ranks and nodes write, and lets the parts of one
node's supervisor work on it. For each part it prints the files that were looked at (stat), the folders that were
listed, the files that were opened, and the time, on the file system of --folder. Starts no ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dtk_launch import nodes
from dtk_launch.allocation import Allocation
from dtk_launch.config import resolve
from dtk_launch.facts import HostFacts
from dtk_launch.follow import Follower
from dtk_launch.jobs import build_job
from dtk_launch.options import LaunchOptions, SubmitOptions
from dtk_launch.plan import LaunchPlan, build_plan
from dtk_launch.ranks import RankWatch
from dtk_launch.runview import read_run
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.torchrun import render

_SUPERVISOR = "n0:1"
_COUNTED = {"open": "opened", "os.listdir": "listed", "os.scandir": "listed"}


class Counting:
    """Counts what is done with files while `work` runs, and prints a row of it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        sys.addaudithook(self._hear)
        self._stat = os.stat
        setattr(os, "stat", self._counted)  # noqa: B010

    def _hear(self, event: str, _: Any) -> None:
        if event in _COUNTED:
            self._counts[_COUNTED[event]] += 1

    def _counted(self, *args: Any, **given: Any) -> os.stat_result:
        self._counts["stat"] += 1
        return self._stat(*args, **given)

    def row(self, what: str, work: Callable[[], object]) -> None:
        """Do it once and print how much that was."""
        self._counts.clear()
        began = time.perf_counter()
        work()
        took = 1000 * (time.perf_counter() - began)
        found = " | ".join(str(self._counts[name]) for name in ("stat", "listed", "opened"))
        print(f"| {what} | {found} | {took:.1f} |", flush=True)


def planned(count: int, per_node: int, folder: Path) -> LaunchPlan:
    """The launch of the first node of `count`, as srun starts it there."""
    allocation = Allocation.from_env(
        {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": f"n[0-{count - 1}]",
            "SLURM_NODEID": "0",
            "SLURM_STEP_TASKS_PER_NODE": f"1(x{count})",
        }
    )
    given = {"script": "train.py", "nproc": str(per_node), "device": "cpu", "run_dir": str(folder / "run")}
    facts = replace(HostFacts.probe(), allocation=allocation)
    plan = build_plan(resolve(LaunchOptions, given, {}, folder), facts)
    render(plan)
    return plan


def submitted(count: int, per_node: int) -> str:
    """The batch script."""
    options = SubmitOptions(script="train.py", nodes=str(count), nproc=str(per_node))
    return Slurm().render(build_job(options, HostFacts.probe()))


def fill(run_dir: Path, ranks: int, per_node: int, launch: str, pids: list[int]) -> None:
    """The files of a run that goes: those of each rank, and an entry of each node. `pids`: of this node's ranks."""
    (run_dir / "ranks").mkdir(parents=True)
    for rank in range(ranks):
        node = rank // per_node
        record = {"rank": rank, "local_rank": rank % per_node, "pid": pids[rank % per_node]}
        record |= {"host": f"n{node}", "restart": 0}
        record |= {"supervisor": f"n{node}:1", "started_ns": time.time_ns() + 10**12}
        (run_dir / "ranks" / f"{rank}.json").write_text(json.dumps(record))
        for suffix in ("log", "err", "stacks"):
            (run_dir / "ranks" / f"{rank}.{suffix}").touch()
    for node in range(ranks // per_node):
        first = node * per_node
        rows = [
            {
                "rank": rank,
                "pid": 1,
                "state": "running",
                "steps": 1,
                "beat_ns": time.time_ns(),
                "rate": 1.0,
                "rss": 1,
                "cpu": 1,
            }
            for rank in range(first, first + per_node)
        ]
        nodes.publish(
            run_dir, str(node), launch, host=f"n{node}", pid=1, state="running", started_ns=1, restart=0, ranks=rows
        )


def main() -> None:
    """Parse, make the run directory, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ranks", type=int, default=10_000)
    parser.add_argument("--per-node", type=int, default=8)
    parser.add_argument(
        "--folder", type=Path, help="where the run directory is made, and removed; default: a temporary one"
    )
    given = parser.parse_args()
    count = given.ranks // given.per_node
    children = [subprocess.Popen(("sleep", "600")) for _ in range(given.per_node)]
    try:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measured(count, given.per_node, Path(folder), [child.pid for child in children])
    finally:
        for child in children:
            child.kill()
            child.wait()


def measured(count: int, per_node: int, folder: Path, pids: list[int]) -> None:
    """Print the table for `count` nodes; `pids` stand for the ranks of the first."""
    counting, ranks = Counting(), count * per_node
    print(f"{ranks} ranks on {count} nodes\n\n| one node's dtk | stat | listed | opened | ms |\n|---|---|---|---|---|")
    submitted(1, 1)  # loads jinja2
    counting.row("batch script, planned and rendered", lambda: submitted(count, per_node))
    counting.row("launch on a node, planned and rendered", lambda: planned(count, per_node, folder))
    plan = planned(count, per_node, folder)
    launch = nodes.launch_id(plan)
    watch = RankWatch(plan.run_dir / "ranks", _SUPERVISOR, per_node, one_node=False)
    fill(plan.run_dir, count * per_node, per_node, launch, pids)
    others = nodes.OtherNodes(plan)
    counting.row("start: sizes of the logs that are there", lambda: Follower(plan.run_dir / "ranks", "n0", 1, 2, {}))
    counting.row("start: look for the ranks of this node", watch.poll)
    time.sleep(1.0)  # as long as the folder is listed every half second, it is again
    counting.row("each look while all ranks run", watch.poll)
    counting.row("each second: has a node failed", lambda: others.failed(now=True))
    for node in range(1, count):
        nodes.publish_failure(plan.run_dir, str(node), "earlier")
    counting.row("the same, after a launch that failed on all nodes", lambda: others.failed(now=True))
    counting.row("the same, a second later", lambda: others.failed(now=True))
    counting.row("waiting for nodes, and 10 times a second at the end of a failed run", lambda: ended(plan, launch))
    counting.row("dtk top: one picture", lambda: read_run(plan.run_dir))
    files = sum(len(names) for _, _, names in os.walk(plan.run_dir))
    size = (plan.run_dir / "nodes" / "0.json").stat().st_size
    print(f"\n{files} files in the run directory; an entry of a node has {size} bytes, written every two seconds")
    watch.close()


def ended(plan: LaunchPlan, launch: str) -> None:
    """What the other nodes have said of their ends."""
    nodes.ends_of_others(plan.run_dir, launch, "0")


if __name__ == "__main__":
    main()
