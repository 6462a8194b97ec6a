"""What a node's entry says of its ranks."""

import json
import os
import time

import pytest
from dtk_launch import status
from dtk_launch.nodes import entries
from dtk_launch.ranks import RankWatch
from dtk_launch.runview import read_run
from dtk_launch.status import NodeStatus
from dtk_launch.vitals import PAGE, Page, create_file


@pytest.fixture
def node(plan, facts, tmp_path, monkeypatch):
    """A node of two ranks, both of them this process; its pages; and a function that writes a rank's record."""
    monkeypatch.setattr(status, "_EVERY", 0.0)
    pages = create_file(2)
    if pages is None:
        pytest.skip("needs memfd_create")
    made = plan(facts(cwd=tmp_path), nproc="2")
    folder = made.run_dir / "ranks"
    folder.mkdir(parents=True)
    (made.run_dir / "plan.json").write_text(json.dumps({"topology": {"nodes": 1, "nproc": 2}}))
    watch = RankWatch(folder, "h:1", 2, one_node=True)

    def record(rank, **fields):
        entry = {"rank": rank, "local_rank": rank, "pid": os.getpid(), "host": "h", "restart": 0, "supervisor": "h:1"}
        entry |= {"started_ns": time.time_ns(), "vitals": PAGE * rank}
        (folder / f"{rank}.json").write_text(json.dumps(entry | fields))
        watch.poll()

    yield made, watch, pages, record
    watch.close()
    os.close(pages)


def test_the_entry_is_there_at_once_and_follows_the_ranks(node):
    made, watch, pages, record = node
    looked = NodeStatus(made, watch, pages)
    (entry,) = entries(made.run_dir).values()
    assert (entry["state"], entry["pid"], entry["ranks"]) == ("running", os.getpid(), [])
    assert [rank.state for rank in read_run(made.run_dir).ranks] == ["starting", "starting"]
    record(0)
    page = Page(pages, 0)
    page.beat()
    looked.look()
    page.beat()
    page.beat()
    before = time.time_ns()
    looked.look()
    (row,) = entries(made.run_dir)["0"]["ranks"]
    assert (row["rank"], row["pid"], row["state"], row["steps"]) == (0, os.getpid(), "running", 3)
    assert row["rss"] > 1 << 20
    assert row["rate"] > 0
    assert row["cpu"] >= 0
    assert 0 <= before - row["beat_ns"] < 60e9
    assert "gpu" not in row
    assert [rank.state for rank in read_run(made.run_dir).ranks] == ["running", "starting"]


def test_how_ranks_have_ended_and_their_last_steps(node):
    made, watch, pages, record = node
    looked = NodeStatus(made, watch, pages)
    Page(pages, PAGE).beat()
    record(0, pid=2**22 + 1)  # it has died before it could be watched
    end = {"code": 7, "type": None, "message": "", "traceback": "", "time_ns": 1}
    record(1, exit=end, restart=1)
    record(0, pid=2**22 + 2, restart=1)
    looked.look(final=True)
    facts = looked.facts()
    assert facts["restart"] == 1
    ended, killed = facts["ranks"][1], facts["ranks"][0]
    assert (killed["state"], "code" in killed) == ("killed", False)
    assert (ended["state"], ended["code"], ended["steps"], "rss" in ended) == ("ended", 7, 1, False)
    assert entries(made.run_dir)["0"]["ranks"] == []  # the last entry is written with the verdict


def test_entries_of_eight_ranks_are_small(node):
    made, watch, pages, record = node
    looked = NodeStatus(made, watch, pages)
    record(0)
    Page(pages, 0).beat()
    looked.look()
    assert len(json.dumps(looked.ranks[0])) < 250
