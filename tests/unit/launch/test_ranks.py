"""Following the ranks' records."""

import json
import os
import select
import subprocess
import sys
import time

import pytest
from dtk_launch import hostos
from dtk_launch.ranks import RankWatch


def write(path, **fields):
    """As the bootstrap does: a new file in the place of the old one."""
    entry = {
        "rank": 0, "local_rank": 0, "pid": os.getpid(), "host": "h", "restart": 0, "supervisor": "h:1",
        "started_ns": time.time_ns(),
    }  # fmt: skip
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(entry | fields))
    temporary.replace(path)


def test_a_rank_that_starts_and_ends_within_one_tick_of_the_clock_is_read_twice(tmp_path):
    watch = RankWatch(tmp_path, "h:1", 1, one_node=True)
    path = tmp_path / "0.json"
    write(path)
    os.utime(path, (1, 1))
    watch.poll()
    assert watch.records[0].exit is None
    assert watch.all_run
    write(path, exit={"code": 7, "type": "SystemExit", "message": "7", "traceback": "", "time_ns": time.time_ns()})
    os.utime(path, (1, 1))
    watch.close()
    assert watch.records[0].exit.code == 7
    assert not watch.all_run


def test_records_of_another_launch_are_not_read(tmp_path):
    watch = RankWatch(tmp_path, "h:1", 2, one_node=True)
    write(tmp_path / "0.json", supervisor="h:2")
    write(tmp_path / "1.json", rank=1, started_ns=1)
    watch.close()
    assert watch.records == {}


def test_the_exit_code_of_a_process_is_seen_before_its_parent_takes_it_away():
    child = subprocess.Popen([sys.executable, "-S", "-c", "import os; os._exit(0)"])
    descriptor = hostos.open_pidfd(child.pid)
    if descriptor is None:
        pytest.skip("no pidfd here")
    assert select.select([descriptor], [], [], 60)[0]
    os.close(descriptor)
    assert hostos.exit_code_of(child.pid) == 0
    assert child.wait() == 0
    assert hostos.exit_code_of(child.pid) is None
    assert hostos.exit_code_of(os.getpid()) is None, "it runs"
