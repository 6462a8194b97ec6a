"""The parts of the desync guard without ranks: records, reports, judgement, its thread over a store in memory."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from dist_toolkit.errors import DesyncError
from dist_toolkit.guard import monitor
from dist_toolkit.guard.monitor import Guard
from dist_toolkit.guard.recorder import MARK_EVERY, RING, Recorder
from dist_toolkit.guard.report import ENDED_BADLY, ENDED_WELL, Report, take_report
from dist_toolkit.guard.sockets import connections, shut_down, without_port
from dist_toolkit.guard.store import Board
from dist_toolkit.guard.verdict import Verdict, judge, suspicion

NAMES = ("a", "b", "c")


def recorded(names: Sequence[str], inside: bool = False) -> Recorder:
    recorder = Recorder()
    for name in names:
        with recorder.watched(name):
            pass
    if inside:
        recorder.inside_since = time.monotonic() - 60.0
    return recorder


def reports(*ranks: Sequence[str], waiting: Sequence[int] = (), ended: Sequence[int] = ()) -> dict[int, Report]:
    return {
        rank: take_report(recorded(names, rank in waiting), rank, 1, ENDED_WELL if rank in ended else "")
        for rank, names in enumerate(ranks)
    }


# --- records --------------------------------------------------------------------------------------------------------


def test_only_the_outermost_counts_and_a_pause_suspends() -> None:
    recorder = Recorder()
    with recorder.watched("outer"):
        since = recorder.inside_since
        assert since > 0
        with recorder.watched("inner"), recorder.watched("outer"):
            pass
        assert recorder.inside_since == since
        with recorder.unwatched():
            assert recorder.inside_since == 0.0
            with recorder.watched("in a pause"):
                assert recorder.inside_since == 0.0
            with recorder.unwatched():
                pass
        assert recorder.inside_since >= since
    assert recorder.inside_since == 0.0
    with recorder.unwatched(), recorder.watched("in a pause"):
        pass
    with pytest.raises(KeyError), recorder.watched("fails"):
        raise KeyError
    assert [record.operation for record in recorder.records()] == ["outer", "fails"]
    assert (recorder.depth, recorder.inside_since) == (0, 0.0)


def test_a_record_says_where_the_script_was() -> None:
    recorder = Recorder()
    recorder.step = 12
    with recorder.watched("here"):
        line = sys._getframe().f_lineno - 1
    (record,) = recorder.records()
    assert (record.file, record.line, record.step, record.number) == (__file__, line, 12, 1)


def test_another_thread_is_not_recorded() -> None:
    recorder = Recorder()

    def elsewhere() -> None:
        with recorder.watched("other"), recorder.unwatched():
            assert recorder.signature() == 0

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert recorder.records() == []
    assert recorder.depth == 0


@given(st.integers(0, 3 * RING))
def test_the_ring_keeps_the_last_ones(count: int) -> None:
    recorder = recorded(["x"] * count)
    kept = recorder.records()
    assert [record.number for record in kept] == [*range(max(0, count - RING) + 1, count + 1)]


def test_equal_calls_have_equal_chains_and_marks_outlive_the_ring() -> None:
    first, second, third = (recorded([start] + ["x"] * 3 * MARK_EVERY) for start in "aab")
    assert first.chain == second.chain != third.chain
    assert sorted(first.marks) == [MARK_EVERY, 2 * MARK_EVERY, 3 * MARK_EVERY]
    assert first.marks == second.marks
    behind = recorded(["b"] + ["x"] * (2 * MARK_EVERY + 5))
    found = judge({0: take_report(first, 0, 1), 1: take_report(behind, 1, 1), 2: take_report(second, 2, 1)})
    assert found is not None
    assert found.ranks == (1,)
    assert "some call before the 1024th" in found.reason


# --- judgement ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(NAMES), max_size=40), st.lists(st.integers(0, 40), min_size=2, max_size=5))
def test_ranks_on_one_path_are_never_accused(calls: list[str], lengths: list[int]) -> None:
    """However far each is, and whoever waits, or ended because an error ended it."""
    paths = [calls[:length] for length in lengths]
    for waiting in ((), range(len(paths))):
        found = reports(*paths, waiting=waiting)
        assert judge(found) is None
        failed = {**found, 0: take_report(recorded(paths[0]), 0, 1, ENDED_BADLY)}
        assert judge(failed) is None


@given(
    st.lists(st.sampled_from(NAMES), max_size=30), st.integers(0, 3), st.lists(st.sampled_from(NAMES), max_size=5),
    st.lists(st.sampled_from(NAMES), max_size=5),
)  # fmt: skip
def test_the_first_different_call_is_found(common: list[str], odd: int, one: list[str], other: list[str]) -> None:
    paths = [[*common, "usual", *one] for _ in range(4)]
    paths[odd] = [*common, "stray", *other]
    found = judge(reports(*paths))
    assert found is not None
    assert found.ranks == (odd,)
    assert [row[1] for row in found.rows] == ["stray" if rank == odd else "usual" for rank in range(4)]
    assert found.reason.startswith(f"call {len(common) + 1} is ")


def test_a_rank_that_left_is_accused_only_if_another_waits_for_it() -> None:
    paths = (["a"], ["a", "b"])
    assert judge(reports(*paths, ended=[0])) is None
    assert judge(reports(*paths, waiting=[1])) is None
    assert judge(reports(["a", "b"], ["a", "b"], waiting=[1], ended=[0])) is None, "it did enter the call"
    found = judge(reports(*paths, waiting=[1], ended=[0]))
    assert found is not None
    assert found.ranks == (0,)
    assert "rank 0 left the run before call 2, b" in found.reason
    assert [row[1] for row in found.rows] == [None, "b"]


def test_the_error_has_fields_and_a_table() -> None:
    found = judge(reports(["a"], ["b"], ["b"]))
    assert found is not None
    error = found.error()
    assert isinstance(error, DesyncError)
    assert error.operations == {0: "a", 1: "b", 2: "b"}
    assert error.ranks == (0,)
    assert set(error.sites.values()) == {row[2] for row in found.rows}
    assert str(error).splitlines()[1].split() == ["rank", "|", "operation", "|", "called", "from", "|", "step"]
    assert len(str(error).splitlines()) == 6


def test_many_ranks_make_a_short_table() -> None:
    found = judge(reports(*[["a"]] * 40, *[["b"]] * 30))
    assert found is not None
    assert len(found.rows) == 16
    assert found.ranks == tuple(range(40, 70))


def test_a_suspicion_names_who_is_awaited_and_where() -> None:
    found = reports(["a", "b"], ["a"], ["a", "b"], waiting=[0, 2])
    words = suspicion(found, 4)
    assert words is not None
    assert "has waited 60 s in b (" in words
    assert f"rank 1 (at {__file__}:" in words
    assert "rank 3 (which does not answer)" in words
    assert suspicion(reports(["a"], ["a"]), 2) is None
    assert suspicion(reports(["a"], ["a"], waiting=[0]), 2) is None, "both have come"


@given(st.lists(st.sampled_from(NAMES), max_size=20), st.booleans())
def test_reports_and_verdicts_survive_the_store(calls: list[str], waiting: bool) -> None:
    report = take_report(recorded(calls, waiting), 3, 7)
    assert Report.from_json(report.to_json()) == report
    found = judge(reports(["a"], ["b"]))
    assert found is not None
    assert Verdict.from_json(found.to_json()) == found


# --- waking ---------------------------------------------------------------------------------------------------------


def test_shutting_down_wakes_a_reader_and_leaves_other_connections_alone() -> None:
    before = connections()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ends = [socket.create_connection(("127.0.0.1", port)), server.accept()[0]]
        ours = connections() - before
        assert len(ours) == 2
        assert without_port(ours, port) == set()
        others = [socket.create_connection(("127.0.0.1", port)), server.accept()[0]]
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.append(ends[0].recv(1)))
        reader.start()
        assert shut_down(ours) == 2
        reader.join()
        assert heard == [b""]
        others[0].send(b"x")
        assert others[1].recv(1) == b"x"
        for connection in (*ends, *others):
            connection.close()
        assert shut_down(ours) == 0


def test_sockets_keep_their_mode() -> None:
    """An object for a descriptor takes over Python's default timeout, and that would reach the owner's socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = [socket.create_connection(server.getsockname()), server.accept()[0]]
        socket.setdefaulttimeout(5.0)
        try:
            assert connections() == set()
        finally:
            socket.setdefaulttimeout(None)
        assert connections()
        assert all(os.get_blocking(end.fileno()) for end in ends)
        for end in ends:
            end.close()


# --- the thread -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Recorder, Guard, Recorder, Guard]]]:
    """Two ranks of one process over a store in memory, with a guard that is in a hurry."""
    for name, seconds in (("_TICK", 0.02), ("_STALL", 0.1), ("_FIRST_WARNING", 0.2), ("_PATIENCE", 0.3)):
        monkeypatch.setattr(monitor, name, seconds)
    opened: list[Guard] = []

    def make(patrol: float = 60.0) -> tuple[Recorder, Guard, Recorder, Guard]:
        monkeypatch.setattr(monitor, "_PATROL", patrol)
        store = HashStore()
        recorders = [Recorder(), Recorder()]
        guards = [
            Guard(recorder, Board(store, "x"), rank, 2, (), on_gpu=False) for rank, recorder in enumerate(recorders)
        ]
        opened.extend(guards)
        return recorders[0], guards[0], recorders[1], guards[1]

    yield make
    for guard in opened:
        guard.close(failed=True)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_long_wait_warns_at_growing_intervals_and_accuses_nobody(
    two: Callable[..., tuple[Recorder, Guard, Recorder, Guard]],
) -> None:
    here, own, _, other = two()
    log, heard = logging.getLogger("dist_toolkit"), []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        with here.watched("long wait"):
            until(lambda: len(heard) >= 2)
    finally:
        log.removeHandler(handler)
    assert own.verdict is None
    assert other.verdict is None
    assert all("rank 0 has waited" in words and "for rank 1 (at " in words for words in heard)


def test_a_mismatch_reaches_both_ranks_at_their_next_call(
    two: Callable[..., tuple[Recorder, Guard, Recorder, Guard]],
) -> None:
    here, own, there, other = two()
    with there.watched("b"):
        pass

    def wait() -> None:
        until(lambda: own.verdict is not None)
        own.check()

    with pytest.raises(DesyncError) as error, here.watched("a"):
        wait()
    assert error.value.operations == {0: "a", 1: "b"}
    until(lambda: there.alarmed)
    assert other.verdict == own.verdict
    with pytest.raises(DesyncError), there.watched("c"):
        pytest.fail("entered")
    assert (there.depth, there.number) == (0, 1)


def test_calls_that_pair_without_waiting_are_found_by_the_patrol(
    two: Callable[..., tuple[Recorder, Guard, Recorder, Guard]],
) -> None:
    here, own, there, other = two(patrol=0.1)
    for name, odd in zip("abcd", "abxd", strict=True):
        with here.watched(name):
            pass
        with there.watched(odd):
            pass
    until(lambda: own.verdict is not None and other.verdict is not None)
    assert own.verdict is not None
    assert [row[1] for row in own.verdict.rows] == ["c", "x"]


def test_an_error_of_the_transport_is_explained_where_the_records_prove_it(
    two: Callable[..., tuple[Recorder, Guard, Recorder, Guard]],
) -> None:
    here, own, there, other = two()
    with there.watched("a"):
        pass
    with pytest.raises(RuntimeError, match="gloo: peer closed"), here.watched("a"):
        raise RuntimeError("gloo: peer closed")
    with pytest.raises(RuntimeError, match="shape"), here.watched("b"):
        raise RuntimeError("a shape of the user's")
    other.close(failed=False)
    with pytest.raises(DesyncError, match="rank 1 left the run before call 3, c") as error, here.watched("c"):
        raise RuntimeError("gloo: peer closed")
    assert isinstance(error.value.__cause__, RuntimeError)
    assert own.verdict is not None
