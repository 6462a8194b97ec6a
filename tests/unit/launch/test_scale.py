"""What grows with the number of ranks, and what must not: counted, never timed (benchmarks/_scale.py measures)."""

import json
import os
import sys
import time
from types import SimpleNamespace

import pytest
from dtk_launch import hostos, nodes
from dtk_launch.allocation import Allocation
from dtk_launch.jobs import build_job
from dtk_launch.options import SubmitOptions
from dtk_launch.ranks import RankWatch
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.torchrun import render

NODES = 4096


def calls_of(work):
    """How many functions Python enters: the amount of work, whatever the machine."""
    count = 0

    def hear(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(hear)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_a_job_of_4096_nodes_is_planned_and_rendered_with_the_work_of_one(facts):
    def text(count):
        return Slurm().render(build_job(SubmitOptions(script="train.py", nodes=str(count), nproc="8"), facts()))

    text(2)  # what is loaded and kept once
    assert text(NODES).replace(str(NODES), "2") == text(2)
    assert calls_of(lambda: text(NODES)) <= calls_of(lambda: text(2)) + 50


def test_a_node_of_4096_plans_its_launch_with_little_work_for_each(facts, plan):
    def command(count):
        step = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": f"n[0000-{count - 1:04}]", "SLURM_NODEID": str(count - 1)}
        allocation = Allocation.from_env(step | {"SLURM_STEP_TASKS_PER_NODE": f"1(x{count})"})
        return render(plan(facts(allocation=allocation), nproc="8"))

    words = " ".join(command(NODES).argv)
    assert f"--nnodes {NODES}" in words.replace("=", " ")
    assert "n0000" in words
    assert calls_of(lambda: command(NODES)) <= calls_of(lambda: command(2)) + 4 * NODES


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the files that were looked at since it was cleared."""
    found, real = [], os.stat

    def stat(path, *args, **given):
        found.append(os.path.basename(path) if not isinstance(path, int) else path)
        return real(path, *args, **given)

    monkeypatch.setattr(os, "stat", stat)
    return found


@pytest.mark.skipif(not hostos.LINUX, reason="needs pidfds")
def test_a_node_whose_ranks_all_run_looks_at_no_other_rank(tmp_path, looked_at):
    watch = RankWatch(tmp_path, "mine:1", 2, one_node=False)
    for rank in range(40):
        record = {"rank": rank, "local_rank": 0, "pid": os.getpid(), "host": "h", "restart": 0}
        record |= {"supervisor": "mine:1" if rank in (7, 8) else "other:1", "started_ns": time.time_ns()}
        record |= {"pid": os.getpid() if rank == 7 else os.getppid()}
        (tmp_path / f"{rank}.json").write_text(json.dumps(record))
    watch.poll()
    assert sorted(watch.records) == [7, 8]
    looked_at.clear()
    watch._next_scan = 1e-9  # the next listing is due
    watch.poll()
    assert sorted(looked_at) == ["7.json", "8.json"]
    looked_at.clear()
    watch.look_again()
    assert len(looked_at) == 40, "at the end, and before a signal, it looks for ranks that have just begun"
    watch.close()


def test_failures_of_an_earlier_launch_are_read_once(tmp_path, monkeypatch):
    for node in range(20):
        nodes.publish_failure(tmp_path, str(node), "earlier")
    topology = SimpleNamespace(node="0", elastic=False, rendezvous=SimpleNamespace(id="id"))
    others = nodes.OtherNodes(SimpleNamespace(run_dir=tmp_path, topology=topology))
    read, real = [], nodes._read
    monkeypatch.setattr(nodes, "_read", lambda path, launch: read.append(path.stem) or real(path, launch))
    assert not others.failed(now=True)
    assert sorted(map(int, read)) == list(range(1, 20))
    read.clear()
    assert not others.failed(now=True)
    assert read == []
    nodes.publish_failure(tmp_path, "5", "id")
    assert others.failed(now=True)
    assert read == ["5"]
