from pathlib import Path

import pytest
from dtk_launch.outcome import decide, torchrun_report
from dtk_launch.ranks import RankExit, RankRecord

REPORT = """
============================================================
worker.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : n1
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 1001)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 1001
"""


def record(rank, code=None, time_ns=0, kind=None, message=""):
    end = None if code is None else RankExit(code, kind, message, "", time_ns)
    return RankRecord(rank, rank, 1000 + rank, "n1", 0, "n1:1", 0, end)


def outcome(torchrun=1, signalled=None, ranks=(), vanished=None, reported=None):
    return decide(torchrun, signalled, {r.rank: r for r in ranks}, vanished or {}, reported or {}, Path("/run"))


def test_torchrun_report():
    assert torchrun_report(REPORT) == {1001: -9}


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ({"torchrun": 0, "ranks": [record(0, 0)]}, 0),
        ({"ranks": [record(0, 3, 20), record(1, 7, 10)]}, 7),
        ({"ranks": [record(0, 1, 20), record(1)], "vanished": {1: 10}, "reported": {1001: -9}}, 137),
        ({"ranks": [record(0, 1, 5), record(1)], "vanished": {1: 10}, "reported": {1001: -9}}, 137),
        ({"ranks": [record(0, 1, 5), record(1)], "vanished": {1: 10**11}, "reported": {1001: -9}}, 1),
        ({"ranks": [record(0, 1, 5), record(1)], "vanished": {1: 10}, "reported": {1001: -6}}, 1),
        ({"ranks": [record(0, 5, 5), record(1)], "vanished": {1: 10}}, 5),
        ({"ranks": [record(0)], "vanished": {0: 1}, "reported": {1000: 4}}, 4),
        ({"ranks": [record(0, 0, 5)], "reported": {1000: -11}}, 139),
        ({"ranks": [record(0), record(1, 0, 5)], "vanished": {0: 9}, "reported": {1000: -6, 1001: -15}}, 134),
        ({"ranks": [record(0, 0, 9), record(1, 0, 5)], "reported": {1000: -6, 1001: -15}}, 134),
        ({"ranks": [record(0, 0, 9), record(1, 0, 5)], "reported": {1000: -11, 1001: -9}}, 139),
        ({"ranks": [record(0, 3, 9), record(1, 0, 5)], "reported": {1001: -15}}, 3),
        ({"ranks": [record(0, 0, 9), record(1, 0, 5)], "reported": {1001: -9}}, 137),
        ({"ranks": [record(0)], "vanished": {0: 1}}, 1),
        ({"torchrun": -9, "ranks": [record(0), record(1)], "vanished": {0: 1, 1: 1}}, 137),
        ({"torchrun": 3}, 3),
        ({"signalled": 15, "ranks": [record(0, 75, 1), record(1, 75, 2)]}, 75),
        ({"signalled": 15, "ranks": [record(0, 75, 1), record(1)], "vanished": {1: 2}}, 75),
        ({"signalled": 15, "ranks": [record(0), record(1)], "vanished": {0: 1, 1: 1}}, 143),
        ({"signalled": 2, "ranks": [record(0, 130, 1)]}, 130),
        ({"signalled": 15, "ranks": [record(0, 0, 1), record(1, 0, 2)]}, 0),
        ({"signalled": 15, "ranks": []}, 143),
        ({"ranks": [record(0, 75, 1), record(1, 75, 2)]}, 75),
        ({"ranks": [record(0, 9, 1), record(1, 75, 2)]}, 9),
    ],
)
def test_exit_codes(case, code):
    assert outcome(**case).code == code


def test_the_line_names_rank_reason_and_log():
    (line,) = outcome(ranks=[record(0, 1, 9), record(1, 1, 3, "ValueError", "bad batch\nmore")]).lines
    assert line == "rank 1 failed first: ValueError: bad batch (exit code 1); its log: /run/ranks/1.err"
    (line,) = outcome(ranks=[record(1)], vanished={1: 3}, reported={1001: -9}).lines
    assert line.startswith("rank 1 failed first: killed by SIGKILL;")
    (line,) = outcome(torchrun=-9, ranks=[record(0)], vanished={0: 3}).lines
    assert line == "torchrun was killed by SIGKILL, and its ranks with it"


def test_a_rank_that_torchrun_ended_after_its_own_end_is_not_blamed():
    ranks = [record(0), record(1, 0, 5)]
    found = outcome(ranks=ranks, vanished={0: 10**10}, reported={1000: -6, 1001: -15})
    assert found.failure.rank == 0
    assert found.lines[0].startswith("rank 0 failed first: killed by SIGABRT;")
