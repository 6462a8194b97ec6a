"""Who failed first, and with which code a run ends: from the evidence alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.diagnose.culprit import judge
from dtk_launch.diagnose.evidence import Observed, end_of, exit_codes, fault_frames, told_to_end
from dtk_launch.diagnose.unrecorded import unrecorded_ends
from dtk_launch.diagnose.words import how_it_ended, spans_words, verdict_json, verdict_lines
from dtk_launch.faults import Fault
from dtk_launch.nodes import ends_of_others, ends_to_json, publish
from dtk_launch.outcome import decide
from dtk_launch.rank_files import RankExit, RankRecord

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


def end(rank, code, time_ns=0, *, died=None, failing=None, **how):
    """A rank's end as the record (`code`; None: none was written), its death and torchrun tell it."""
    of_others = {name: how.pop(name) for name in ("reported", "seen", "told", "words", "fault") if name in how}
    said = None if code is None else RankExit(code, how.pop("kind", None), how.pop("message", ""), "", time_ns, **how)
    record = RankRecord(rank, rank, 1000 + rank, "n1", 0, "n1:1", 0, None, said)
    return end_of(record, "0", 10**15, Observed(died_ns=died, failing_ns=failing, **of_others))


def outcome(ends, torchrun=1, signalled=None):
    known = [found for found in ends if found is not None]
    return decide(torchrun, signalled, known, len(ends))


def test_the_codes_in_torchruns_words_earlier_attempts_included():
    assert exit_codes(REPORT) == {900: 5, 1001: -9}


def test_whom_torchrun_told_to_end():
    assert told_to_end("W1122 api.py:1010] Sending process 1000 closing signal SIGTERM\n" + REPORT) == {1000}


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
        # whom torchrun told to end was not the first, though on a busy machine its death was seen first
        ([end(0, None, died=4, reported=-15, told=True), end(1, None, died=9, reported=-9)], 1),
        ([end(0, 143, 4, kind="SystemExit", told=True), end(1, 1, 9, kind="ValueError")], 1),
        ([end(0, 75, 4, kind="SystemExit", told=True), end(1, 1, 9, **RESET)], 1),
        ([end(0, 3, 4, kind="SystemExit", told=True), end(1, 7, 9)], 0),  # a failure of its own in its last moment
        # a crash after the end of the script
        ([end(0, 0, 5, reported=-11, died=8), end(1, 3, 9)], 0),
        ([end(0, None, died=9, reported=-6), end(1, 0, 5, reported=-15, died=12)], 0),
        ([end(0, 0, 9, reported=-6, died=20), end(1, 0, 5, reported=-15, died=19)], 0),
        ([end(0, 0, 9, reported=-11, died=20), end(1, 0, 5, reported=-9, died=50 * SECOND)], 0),
        # who left with 0 while the others still needed it, if nobody has an error of its own
        ([end(0, 1, 9, **RESET), end(1, 0, 5)], 1),
        ([end(0, 1, 9, **RESET), end(1, None, died=5, seen=0)], 1),
        ([end(0, 1, 5, **RESET), end(1, 0, SECOND // 2)], 1),  # its sockets closed before its interpreter ended
        ([end(0, 1, 9, **RESET), end(1, 0, 7), end(2, 0, 5), end(3, None, died=2 * SECOND, reported=-15)], 2),
        ([end(0, 1, 9, kind="PeerError", message="x", blames=[1]), end(1, 0, 7), end(2, 0, 5)], 1),
        ([end(0, None, died=9, reported=-15, failing=8), end(1, 0, 5)], 1),
        ([end(0, 1, 9, **RESET), end(1, 0, 30 * SECOND)], 0),  # long after
        ([end(0, 1, 9, kind="ValueError"), end(1, 0, 5)], 0),
        ([end(0, 1, 9, **RESET), end(1, 0, 5), end(2, None, died=8, reported=-9)], 2),
        # an error that was not said is no second cause
        ([end(0, 1, 4, **RESET), end(1, None, died=9, reported=-15, failing=6)], 0),
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
        (-9, 15, [end(0, 75, 1), end(1, None, died=2)], 143),  # killed, and torchrun with it: no word of its end
        (1, 15, [end(0, 75, 1), end(1, None, died=2)], 75),  # torchrun says nothing of a rank that was told to end
        (1, 15, [end(0, 75, 1), end(1, None, died=2, seen=-9)], 143),
        (1, 15, [end(0, 75, 1), end(1, None, died=2, seen=-15)], 75),
        (1, 15, [end(0, 75, 1), end(1, None, died=2, seen=75)], 75),
        (1, 15, [end(0, 75, 1), None], 143),
        (1, 15, [end(0, 75, 1), end(1, 1, 2, kind="OSError", message="disk full")], 143),
        (1, 15, [end(0, 75, 1), end(1, 1, 2, **RESET), end(2, None, died=3, reported=-15)], 75),
        (1, None, [end(0, 75, 1), end(1, None, died=40 * SECOND, reported=-9)], 137),
        (1, 15, [end(0, None, died=1), end(1, None, died=1)], 143),
        (1, 2, [end(0, 130, 1)], 130),
        (1, 15, [end(0, 0, 1), end(1, 0, 2)], 0),
        (1, 15, [end(0, 0, 1), None], 143),
        (1, 15, [], 143),
        (1, None, [end(0, 75, 1), end(1, 75, 2)], 75),
        (1, None, [end(0, 9, 1), end(1, 75, 2)], 9),
        (1, None, [end(0, 75, 5), end(1, 1, 4, **RESET)], 1),
        (1, None, [end(0, 1, 9, **RESET), end(1, 0, 5)], 1),
        (1, None, [end(0, None, died=9, reported=-6, words="Connection reset by peer"), end(1, 0, 5)], 134),
    ],
)
def test_exit_codes(torchrun, signalled, ends, code):
    assert outcome(ends, torchrun, signalled).code == code


def test_a_rank_that_was_killed_before_it_had_saved_is_named():
    line = "preempted, but rank 1 was killed before it had saved: the save of rank 0 is not known to be complete"
    assert outcome([end(0, 75, 1), end(1, None, died=2)], -9, 15).line == line
    failed = outcome([end(0, 75, 1), end(1, 1, 2, kind="OSError", message="disk full")], 1, 15).line
    assert "rank 1 ended before it had saved (OSError: disk full (exit code 1))" in failed


WHERE = {"file": "/w/train.py", "line": 41, "function": "loss", "text": "raise ValueError('bad')"}


def test_the_verdict_in_words():
    culprit = end(2, 1, 10 * SECOND, kind="ValueError", message="bad batch\nmore", where=WHERE)
    lost = [end(rank, 1, 10 * SECOND + 31_000_000 * (rank + 1), **RESET) for rank in (0, 1)]
    closed = end(3, None, died=11 * SECOND, reported=-15)
    lines = verdict_lines(judge([*lost, culprit, closed]), Path("/run"), cwd=Path("/w"))
    assert lines == [
        "rank 2 failed first: ValueError: bad batch (exit code 1)",
        "    more",
        "  train.py:41 in loss",
        "      raise ValueError('bad')",
        "  0.031 s later ranks 0 and 1 lost the connection",
        "  1.000 s later rank 3 was ended by torchrun",
        "  its output: /run/ranks/2.err; the verdict: /run/verdict.json",
    ]


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ({}, "rank 2"),
        ({"0": "n1", "1": "n2"}, "rank 2 on n1"),
        ({"0": "n1", "1": "n1"}, "rank 2 on n1 (node 0)"),  # two nodes on one machine
    ],
)
def test_a_rank_of_several_nodes_is_named_with_its_own(hosts, name):
    culprit = end(2, 1, kind="ValueError", message="bad")
    (first, *_) = verdict_lines(judge([culprit]), Path("/run"), hosts)
    assert first == f"{name} failed first: ValueError: bad (exit code 1)"


def test_a_rank_that_left_too_early_is_named_with_the_place_and_a_hint():
    place = {"file": "/w/train.py", "line": 41, "function": "main", "text": "sys.exit(0)"}
    ends = [end(0, 1, 3 * SECOND, **RESET), end(1, 0, 2 * SECOND, where=place)]
    assert verdict_lines(judge(ends), Path("/run"), cwd=Path("/w")) == [
        "rank 1 ended first, with exit code 0, while the others still needed it",
        "  train.py:41 in main",
        "      sys.exit(0)",
        "  1.000 s later rank 0 lost the connection",
        "  it may have had fewer batches than the others, or a return or an exit that only this rank takes",
        "  its output: /run/ranks/1.err; the verdict: /run/verdict.json",
    ]
    found = verdict_json(judge(ends), 1, ends)
    assert (found["exit_code"], found["culprit"]["rank"], found["culprit"]["code"]) == (1, 1, 0)
    assert found["culprit"]["how"] == "exit code 0, while the others still needed it"
    assert [follower["rank"] for follower in found["followers"]] == [0]


def test_an_error_that_was_cut_short_only_followed():
    ends = [end(0, 1, 4, kind="ValueError"), end(1, None, died=9, reported=-15, failing=6)]
    (follower,) = judge(ends).followers
    assert follower.how == "ended before it could say how"
    (line,) = [line for line in verdict_lines(judge(ends), Path("/run")) if "rank 1" in line]
    assert line == "  at the same time rank 1 was ended before it could say how"


def test_the_verdict_as_json():
    ends = [end(0, 1, 3 * SECOND, **RESET), end(1, 1, 2 * SECOND, kind="OSError", message="no disk", where=WHERE)]
    found = verdict_json(judge(ends), 1, ends, run="demo")
    assert (found["format"], found["run"], found["exit_code"]) == (1, "demo", 1)
    assert (found["culprit"]["rank"], found["culprit"]["where"]["line"]) == (1, 41)
    assert found["culprit"]["how"] == "OSError: no disk (exit code 1)"
    assert found["followers"] == [{"rank": 0, "how": "lost the connection", "seconds_later": 1.0}]
    assert [entry["rank"] for entry in found["ranks"]] == [0, 1]


def said_of(**how):
    return verdict_lines(judge([end(0, 1, 5, **how)]), Path("/run"), cwd=Path("/w"))[:-1]


def test_a_message_of_many_lines_is_shown_up_to_a_bound():
    message = "Error(s) in loading:\n\n\tsize mismatch\n" + "\n".join(f"line {n}" for n in range(20))
    lines = said_of(kind="RuntimeError", message=message)
    assert lines[:3] == [
        "rank 0 failed first: RuntimeError: Error(s) in loading: (exit code 1)",
        "        size mismatch",
        "    line 0",
    ]
    assert lines[-1] == "    ... 13 more lines"
    (line,) = said_of(kind="OSError", message="begins" + "x" * 900 + "ends")
    assert "begins" in line
    assert "ends (exit code 1)" in line
    assert len(line) < 300


def test_nothing_that_a_terminal_would_obey_is_shown():
    how = {"kind": "ValueError", "message": "\x1b[2Jgone\r\x07\nand \x9b31m \u202e back"}
    related = [{"how": "caused by", "type": "KeyError", "message": "\x1b[H", "where": None}]
    lines = said_of(**how, related=related)
    assert all(line.isprintable() for line in lines)
    assert lines[0] == "rank 0 failed first: ValueError: \\x1b[2Jgone\\r\\x07 (exit code 1)"
    assert lines[1:] == ["    and \\x9b31m \\u202e back", "  caused by KeyError: \\x1b[H"]
    assert verdict_json(judge([end(0, 1, 5, **how)]), 1, [])["culprit"]["message"] == how["message"]


CHAIN = """Traceback (most recent call last):
  File "/w/train.py", line 3, in look
    table["x"]
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/w/train.py", line 9, in <module>
    raise ValueError("no x") from error
ValueError: no x
"""


def test_of_chained_exceptions_the_last_is_shown_and_its_cause_named():
    told = RankExit(1, "ValueError", "no x", CHAIN, 5, related=[{**BEHIND, "where": {**WHERE, "line": 3}}])
    found = end_of(RankRecord(0, 0, 1000, "n1", 0, "n1:1", 0, None, told), "0", 9, Observed())
    assert verdict_lines(judge([found]), Path("/run"), cwd=Path("/w"))[1:-1] == [
        "  train.py:9 in <module>",
        '      raise ValueError("no x") from error',
        "  caused by KeyError: 'x' (train.py:3)",
    ]


BEHIND = {"how": "caused by", "type": "KeyError", "message": "'x'"}
ABORT = "warning: old\nterminate called after throwing an instance of 'std::runtime_error'\n  what():  boom\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (ABORT, ["    terminate called after throwing an instance of 'std::runtime_error'", "      what():  boom"]),
        ("a\nb\nc\nd\ne\n\nFatal Python error: Aborted\n\nCurrent thread", ["    b", "    c", "    d", "    e"]),
        ("", []),
    ],
)
def test_an_abort_is_told_with_the_last_words_of_stderr(words, shown):
    found = end(0, None, died=5, reported=-6, words=words)
    assert verdict_lines(judge([found]), Path("/run"))[1:-1] == shown


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
    assert fault_frames(DUMP)[0] == {"file": "/w/train.py", "line": 9, "function": "crash", "text": ""}
    assert fault_frames("") == []
    found = end(0, None, died=5, reported=-11, fault=Fault(DUMP, 3))
    assert verdict_lines(judge([found]), Path("/run"), cwd=Path("/w"))[:3] == [
        "rank 0 failed first: killed by SIGSEGV",
        "  train.py:12 in <module>",
        "  train.py:9 in crash",
    ]


def test_the_frames_of_a_fatal_signal_come_with_their_source(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("".join(f"step({number})\n" for number in range(1, 8)))
    frames = "".join(f'  File "{script}", line {number} in f{number}\n' for number in range(1, 7))
    dump = f"Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n{frames}\n"
    found = end(0, None, died=5, reported=-11, fault=Fault(dump, 3))
    lines = verdict_lines(judge([found]), Path("/run"), cwd=tmp_path)[1:9]
    assert lines[::2] == [f"  train.py:{number} in f{number}" for number in (4, 3, 2, 1)]
    assert lines[1::2] == [f"      step({number})" for number in (4, 3, 2, 1)]
    assert found.where["text"] == "step(1)"


def test_a_fatal_signal_counts_from_its_moment_and_not_from_the_end_of_the_core_dump():
    crashed = end(1, None, died=9 * SECOND, reported=-11, fault=Fault(DUMP, 3 * SECOND))
    verdict = judge([end(0, 1, 4 * SECOND, kind="ValueError", message="later"), crashed])
    assert (verdict.culprit.rank, verdict.followers[0].delay_ns) == (1, SECOND)
    killed = end(1, None, died=33 * SECOND, reported=-9, fault=Fault(DUMP, 3 * SECOND))  # while its core was written
    assert (killed.signal, killed.code, killed.time_ns) == ("SIGSEGV", 139, 3 * SECOND)


@pytest.mark.parametrize(("reported", "died"), [(-6, 9), (-15, 9), (-9, 90)])
def test_a_fatal_signal_that_the_rank_outlived_was_a_childs(reported, died):
    found = end(1, None, died=died * SECOND, reported=reported, fault=Fault(DUMP, 3 * SECOND))
    assert (found.code, found.time_ns, found.where) == (128 - reported, died * SECOND, None)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (end(0, 7, kind="SystemExit", message="7"), "exit code 7"),
        (end(0, 1, kind="SystemExit", message="gave up"), "exit code 1: gave up"),
        (end(0, 44, kind="SystemExit", message="300"), "exit code 44 (sys.exit(300), of which 8 bits count)"),
        (end(0, 255, kind="SystemExit", message="-1"), "exit code 255 (sys.exit(-1), of which 8 bits count)"),
        (end(0, 1, kind="SystemExit", message="7"), "exit code 1: 7"),
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


BAD = {"kind": "ValueError", "message": "bad"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        # the process ended otherwise than Python would have: its excepthook, or an exit handler, had the last word
        (end(0, 1, **BAD, reported=4), "ValueError: bad (exit code 4)"),
        (end(0, 1, **BAD, seen=4), "ValueError: bad (exit code 4)"),
        (end(0, 1, **BAD, reported=4, told=True), "ValueError: bad (exit code 4)"),
        (end(0, 1, **BAD, reported=75), "ValueError: bad (exit code 75)"),
        (end(0, 7, kind="SystemExit", message="7", reported=7), "exit code 7"),
        (end(0, 7, kind="SystemExit", message="gave up", reported=4), "exit code 4: gave up"),
        # a crash of its own in the teardown
        (
            end(0, 1, **BAD, reported=-6),
            "ValueError: bad (exit code 1); killed by SIGABRT after its script had ended",
        ),
        (end(0, 3, kind="SystemExit", reported=-11), "exit code 3; killed by SIGSEGV after its script had ended"),
        # others ended it after it had recorded: by a signal, or by one that its handler makes an exit code of
        (end(0, 1, **BAD, reported=-15, told=True), "ValueError: bad (exit code 1)"),
        (end(0, 1, **BAD, reported=-15), "ValueError: bad (exit code 1)"),
        (end(0, 1, **BAD, seen=-9), "ValueError: bad (exit code 1)"),
        (end(0, 1, **BAD, reported=143, told=True), "ValueError: bad (exit code 1)"),
        (end(0, 1, **BAD, seen=143), "ValueError: bad (exit code 1)"),
        (end(0, 1, **BAD, reported=75, told=True), "ValueError: bad (exit code 1)"),
        # an error that the process hides, and a save that is done, whatever comes after
        (end(0, 1, **BAD, seen=0), "ValueError: bad (exit code 1)"),
        (end(0, 75, kind="SystemExit", message="75", reported=-11), "exit code 75"),
    ],
)
def test_the_code_of_the_process_counts_unless_others_ended_it(found, words):
    assert how_it_ended(found) == words
    assert found.signal is None
    assert outcome([found]).code == found.code


SIX = """W1122 api.py:1028] Sending process 1003 closing signal SIGTERM
W1122 api.py:1028] Sending process 1004 closing signal SIGTERM
  rank      : 1 (local_rank: 1)
  exitcode  : 3 (pid: 1001)
  rank      : 3 (local_rank: 3)
  exitcode  : -15 (pid: 1003)  (SIGTERM)
  rank      : 4 (local_rank: 4)
  exitcode  : -15 (pid: 1004)  (SIGTERM)
"""


def unrecorded(ends, nproc, words="", one_node=True):
    known = {found.rank: RankRecord(found.rank, found.rank % 8, 1, "n1", 0, "n1:1", 0) for found in ends}
    return unrecorded_ends(known, nproc, words, one_node, ("0", "n1", 99 * SECOND))


def test_ranks_that_were_ended_before_they_started_are_told():
    ends = [end(1, None, died=5, reported=3)]
    ends += unrecorded(ends, 6, SIX)
    verdict = judge(ends)
    assert verdict_lines(verdict, Path("/run"))[:2] == [
        "rank 1 failed first: exit code 3",
        "  ranks 0 and 2 to 5 were ended before they started",
    ]
    found = verdict_json(verdict, 3, ends)
    assert [(e["rank"], e["recorded"], e["code"], e["signal"], e["pid"]) for e in found["ranks"]] == [
        (0, False, None, None, None),  # of which torchrun said nothing
        (1, True, 3, None, 1001),
        (2, False, None, None, None),
        (3, False, 143, "SIGTERM", 1003),
        (4, False, 143, "SIGTERM", 1004),
        (5, False, None, None, None),
    ]
    assert found["followers"][0] == {"rank": 0, "how": "ended before it started", "seconds_later": None}


def test_a_rank_that_failed_before_it_could_record_its_start_may_be_the_first():
    ends = [end(0, 1, 5, **RESET)]
    ends += unrecorded(ends, 2, SIX)
    assert verdict_lines(judge(ends), Path("/run"))[0] == "rank 1 failed first: exit code 3; it left no record"
    ends = [end(0, 1, 5, **BAD)]
    ends += unrecorded(ends, 2, SIX)
    assert verdict_lines(judge(ends), Path("/run"))[:2] == [
        "rank 0 failed first: ValueError: bad (exit code 1)",
        "  rank 1 failed without a record",
    ]


def test_which_ranks_a_node_has_is_known_from_a_record_or_from_torchrun():
    assert [found.rank for found in unrecorded([end(9, 3)], 3, one_node=False)] == [8, 10]
    assert [found.rank for found in unrecorded([], 3, SIX, one_node=False)] == [0, 1, 2]
    assert unrecorded([], 3, one_node=False) == []


@pytest.mark.parametrize(
    ("torchrun", "signalled", "ends", "code"),
    [
        (1, 15, [end(0, 75, 1)], 75),  # the other had not begun, and has nothing to save
        (1, 15, [end(0, 0, 1)], 143),  # and is not done
        (1, None, [end(0, 3, 1)], 3),
        (1, None, [end(0, 75, 1)], 75),
    ],
)
def test_exit_codes_with_a_rank_that_never_started(torchrun, signalled, ends, code):
    assert decide(torchrun, signalled, [*ends, *unrecorded(ends, 2)], len(ends)).code == code


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([3], "rank 3"),
        ([0, 2], "ranks 0 and 2"),
        ([0, 1], "ranks 0 and 1"),
        ([0, 2, 3], "ranks 0, 2 and 3"),
        ([5, 4, 3, 1], "ranks 1 and 3 to 5"),
        (range(64), "ranks 0 to 63"),
        (range(0, 40, 2), "ranks 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
    ],
)
def test_spans_of_ranks(ranks, words):
    assert spans_words(list(ranks)) == words


def test_an_end_travels_between_nodes_unchanged(tmp_path):
    ends = [
        end(3, 1, 5, kind="ValueError", message="ü", where=WHERE, blames=[4], related=[BEHIND]),
        end(4, None, died=3, reported=-9),
        *unrecorded([], 1),
    ]
    publish(tmp_path, "1", "id", state="ended", ends=ends_to_json(ends))
    assert ends_of_others(tmp_path, "id", "0") == (ends, {"1"})
    assert ends_of_others(tmp_path, "another launch", "0") == ([], set())
    assert ends_of_others(tmp_path, "id", "1") == ([], set())


def told_with(related, kind, message="m"):
    where = {**WHERE, "line": 9, "text": "for x in loader:"}
    told = RankExit(1, kind, message, CHAIN, 5, where=where, related=related)
    return end_of(RankRecord(0, 0, 1000, "n1", 0, "n1:1", 0, None, told), "0", 9, Observed())


def test_an_error_of_a_pools_worker_is_told_with_its_place_there():
    related = [{"how": "raised in a worker process", "type": "ValueError", "message": "", "where": WHERE}]
    lines = verdict_lines(judge([told_with(related, "ValueError")]), Path("/run"), cwd=Path("/w"))
    assert lines[0] == "rank 0 failed first: ValueError: m in a worker process (exit code 1)"
    assert [line.strip().partition(" ")[0] for line in lines[1:-1:2]] == ["train.py:9", f"train.py:{WHERE['line']}"]


def test_a_worker_that_had_ended_is_named_and_its_rank_has_failed_itself():
    message = "a worker process of its DataLoader (pid 9) had ended with exit code 5"
    related = [{"how": "before it", "type": "DataLoaderWorkerExit", "message": message, "where": None}]
    found = told_with(related, "ConnectionResetError", "Connection reset by peer")
    other = end(1, 1, 3, kind="ConnectionResetError", message="Connection reset by peer")
    verdict = judge([other, found])
    assert (verdict.culprit.rank, verdict.followers[0].how) == (0, "lost the connection")
    lines = verdict_lines(verdict, Path("/run"), cwd=Path("/w"))
    said = f"ConnectionResetError: Connection reset by peer (exit code 1); before it {message}"
    assert lines[:3] == [f"rank 0 failed first: {said}", "  train.py:9 in loss", "      for x in loader:"]
