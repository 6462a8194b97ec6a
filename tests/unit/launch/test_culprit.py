"""Who failed first, and with which code a run ends: from the evidence alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.diagnose.culprit import judge
from dtk_launch.diagnose.evidence import end_of, exit_codes, fault_place
from dtk_launch.diagnose.words import how_it_ended, verdict_json, verdict_lines
from dtk_launch.nodes import ends_of_others, ends_to_json, publish
from dtk_launch.outcome import decide
from dtk_launch.ranks import RankExit, RankRecord

SECOND = 10**9
REPORT = """
E1122 15:00:00 elastic/multiprocessing/api.py:988] failed (exitcode: 5) local_rank: 0 (pid: 900) of binary: x
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


def end(rank, code, time_ns=0, *, reported=None, died=None, words="", fault="", failing=None, **how):
    """A rank's end as the record (`code`; None: none was written), its death and torchrun tell it."""
    told = None if code is None else RankExit(code, how.pop("kind", None), how.pop("message", ""), "", time_ns, **how)
    record = RankRecord(rank, rank, 1000 + rank, "n1", 0, "n1:1", 0, None, told)
    return end_of(record, "0", reported, died, 10**15, words, fault, "", failing)


def outcome(ends, torchrun=1, signalled=None):
    known = [found for found in ends if found is not None]
    return decide(torchrun, signalled, known, len(ends))


def test_the_codes_in_torchruns_words_earlier_attempts_included():
    assert exit_codes(REPORT) == {900: 5, 1001: -9}


RESET = {"kind": "RuntimeError", "message": "[pair.cc:553] Connection closed by peer [127.0.0.1]:52321"}


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([end(0, 3, 20), end(1, 7, 10)], 1),
        ([end(0, 3, 10), end(1, 7, 11)], 0),
        ([end(0, 1, 20), end(1, None, died=10, reported=-9)], 1),
        ([end(0, 1, 5), end(1, None, died=10, reported=-9)], 0),
        ([end(0, 1, 5), end(1, None, died=10, reported=-6)], 0),
        # a lost connection is somebody else's doing, however early it was noticed
        ([end(0, 1, 5, **RESET), end(1, None, died=10, reported=-9)], 1),
        ([end(0, 1, 5, **RESET), end(1, 1, 9, kind="ValueError", message="bad"), end(2, 1, 6, **RESET)], 1),
        ([end(0, 1, 7, **RESET), end(1, 1, 5, kind="ConnectionResetError", message="")], 1),
        ([end(0, None, died=5, reported=-6, words="terminate: Connection reset by peer"), end(1, 1, 9)], 1),
        ([end(0, 1, 5, kind="PeerError", message="x", blames=[1]), end(1, 1, 4, kind="OSError", message="disk")], 1),
        # the odd rank of a desync is named by all, itself included
        ([end(r, 1, 5 - r, kind="DesyncError", message="x", blames=[1]) for r in range(3)], 1),
        ([end(0, 1, 5, kind="DesyncError", message="x", blames=[0, 1]), end(1, 1, 4, kind="E", blames=[0, 1])], 1),
        # what torchrun ended is no failure, whether or not its death was seen
        ([end(0, None, died=5, reported=-15), end(1, 7, 4)], 1),
        ([end(0, None, reported=-15), end(1, 7, 4)], 1),
        ([end(0, None, died=9, reported=-15), end(1, 1, 4, **RESET)], 1),
        ([end(0, 143, 9, kind="SystemExit"), end(1, 1, 4, **RESET)], 1),
        ([end(0, 75, 9, kind="SystemExit"), end(1, 1, 4, **RESET)], 1),
        ([end(0, None, died=40 * SECOND, reported=-9), end(1, 1, 4, **RESET)], 1),
        ([end(0, None, died=2 * SECOND, reported=-9), end(1, 1, 4, **RESET)], 0),
        ([end(0, None, died=9), end(1, 1, 4, **RESET)], 1),
        # torchrun was faster than the record of an exception
        ([end(0, None, died=9, reported=-15, failing=3), end(1, None, died=4, reported=-6)], 0),
        # but the first to get SIGTERM was sent it by somebody else
        ([end(0, None, died=2, reported=-15)], 0),
        ([end(0, None, died=2, reported=-15), end(1, 1, 4, **RESET)], 0),
        # a crash after the end of the script
        ([end(0, 0, 5, reported=-11, died=8), end(1, 3, 9)], 0),
        ([end(0, None, died=9, reported=-6), end(1, 0, 5, reported=-15, died=12)], 0),
        ([end(0, 0, 9, reported=-6, died=20), end(1, 0, 5, reported=-15, died=19)], 0),
        ([end(0, 0, 9, reported=-11, died=20), end(1, 0, 5, reported=-9, died=50 * SECOND)], 0),
    ],
)
def test_the_first_to_fail(ends, rank):
    for order in (ends, ends[::-1]):
        assert judge(order).culprit.rank == rank


def test_a_run_without_a_failure_has_no_verdict():
    assert judge([end(0, 0, 5), end(1, 0, 6)]) is None
    assert end(0, None) is None


@pytest.mark.parametrize(
    ("torchrun", "signalled", "ends", "code"),
    [
        (0, None, [end(0, 0)], 0),
        (1, None, [end(0, 3, 20), end(1, 7, 10)], 7),
        (1, None, [end(0, 1, 20), end(1, None, died=10, reported=-9)], 137),
        (1, None, [end(0, None, died=1, reported=4)], 4),
        (1, None, [end(0, None, died=1)], 1),
        (-9, None, [end(0, None, died=1), end(1, None, died=1)], 137),
        (3, None, [], 3),
        (1, 15, [end(0, 75, 1), end(1, 75, 2)], 75),
        (1, 15, [end(0, 75, 1), end(1, None, died=2)], 75),
        (1, 15, [end(0, None, died=1), end(1, None, died=1)], 143),
        (1, 2, [end(0, 130, 1)], 130),
        (1, 15, [end(0, 0, 1), end(1, 0, 2)], 0),
        (1, 15, [end(0, 0, 1), None], 143),
        (1, 15, [], 143),
        (1, None, [end(0, 75, 1), end(1, 75, 2)], 75),
        (1, None, [end(0, 9, 1), end(1, 75, 2)], 9),
        (1, None, [end(0, 75, 5), end(1, 1, 4, **RESET)], 1),
    ],
)
def test_exit_codes(torchrun, signalled, ends, code):
    assert outcome(ends, torchrun, signalled).code == code


WHERE = {"file": "/w/train.py", "line": 41, "function": "loss", "text": "raise ValueError('bad')"}


def test_the_verdict_in_words():
    culprit = end(2, 1, 10 * SECOND, kind="ValueError", message="bad batch\nmore", where=WHERE)
    lost = [end(rank, 1, 10 * SECOND + 31_000_000 * (rank + 1), **RESET) for rank in (0, 1)]
    closed = end(3, None, died=11 * SECOND, reported=-15)
    lines = verdict_lines(judge([*lost, culprit, closed]), Path("/run"), 1, Path("/w"))
    assert lines == [
        "rank 2 failed first: ValueError: bad batch (exit code 1)",
        "  train.py:41 in loss",
        "      raise ValueError('bad')",
        "  0.031 s later ranks 0 and 1 lost the connection",
        "  1.000 s later rank 3 was ended by torchrun",
        "  its output: /run/ranks/2.err; the verdict: /run/verdict.json",
    ]
    assert verdict_lines(judge([culprit]), Path("/run"), nodes=2)[0].startswith("rank 2 on n1 failed first: ")


def test_the_verdict_as_json():
    ends = [end(0, 1, 3 * SECOND, **RESET), end(1, 1, 2 * SECOND, kind="OSError", message="no disk", where=WHERE)]
    found = verdict_json(judge(ends), 1, ends, run="demo")
    assert (found["format"], found["run"], found["exit_code"]) == (1, "demo", 1)
    assert (found["culprit"]["rank"], found["culprit"]["where"]["line"]) == (1, 41)
    assert found["culprit"]["how"] == "OSError: no disk (exit code 1)"
    assert found["followers"] == [{"rank": 0, "how": "lost the connection", "seconds_later": 1.0}]
    assert [entry["rank"] for entry in found["ranks"]] == [0, 1]


CAUGHT = (
    "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    '  File "/v/site-packages/torch/utils/data/_utils/worker.py", line 351, in _worker_loop\n'
    "    data = fetcher.fetch(index)\n"
    '  File "/w/data.py", line 12, in __getitem__\n    raise ValueError("bad sample 7")\nValueError: bad sample 7\n'
)


def test_an_error_of_a_dataloader_worker_is_told_as_the_workers():
    found = end(0, 1, 5, kind="ValueError", message=CAUGHT, where={**WHERE, "file": "/w/loop.py"})
    lines = verdict_lines(judge([found]), Path("/run"), cwd=Path("/w"))
    assert lines[0] == "rank 0 failed first: ValueError: bad sample 7 in DataLoader worker process 0 (exit code 1)"
    assert lines[3:5] == ["  data.py:12 in __getitem__", '      raise ValueError("bad sample 7")']


DUMP = """Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "/w/other.py", line 1 in wait

Current thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/w/train.py", line 9 in crash
  File "/w/train.py", line 12 in <module>
  File "/v/lib/python3.11/site-packages/dtk_launch/worker.py", line 3 in run

Extension modules: numpy (total: 1)
"""


def test_the_place_of_a_fatal_signal():
    assert fault_place(DUMP) == {"file": "/w/train.py", "line": 9, "function": "crash", "text": ""}
    assert fault_place("") is None
    found = end(0, None, died=5, reported=-11, fault=DUMP)
    assert verdict_lines(judge([found]), Path("/run"), cwd=Path("/w"))[:2] == [
        "rank 0 failed first: killed by SIGSEGV",
        "  train.py:9 in crash",
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (end(0, 7, kind="SystemExit", message="7"), "exit code 7"),
        (end(0, 1, kind="SystemExit", message="gave up"), "exit code 1: gave up"),
        (end(0, None, died=1, reported=5), "exit code 5"),
        (end(0, None, died=1), "its process vanished without an exit record (killed?)"),
        (end(0, 0, reported=-11, died=4), "killed by SIGSEGV after its script had ended"),
        (replace(end(0, None, died=1, reported=-9), note="by the OOM killer"), "killed by SIGKILL, by the OOM killer"),
        (end(0, 1, kind="KeyError", message=""), "KeyError (exit code 1)"),
        (end(0, None, died=1, reported=-40), "killed by signal 40"),
    ],
)
def test_how_a_rank_ended(found, words):
    assert how_it_ended(found) == words


def test_an_end_travels_between_nodes_unchanged(tmp_path):
    ends = [end(3, 1, 5, kind="ValueError", message="ü", where=WHERE, blames=[4]), end(4, None, died=3, reported=-9)]
    publish(tmp_path, "1", "id", state="ended", ends=ends_to_json(ends))
    assert ends_of_others(tmp_path, "id", "0") == (ends, {"1"})
    assert ends_of_others(tmp_path, "another launch", "0") == ([], set())
    assert ends_of_others(tmp_path, "id", "1") == ([], set())
