"""When a silent run is stuck, and when it only looks so: looks made up, as real ranks give them."""

from dataclasses import replace

import pytest
from dtk_launch.diagnose.hang import Look, Process, RankLook, Suspicion, is_held_up, is_stuck, looks_apart
from dtk_launch.diagnose.pace import Pace
from dtk_launch.diagnose.stacks import Frame
from dtk_launch.diagnose.waits import Kind, Place
from dtk_launch.hanging import FIRST, FLOOR
from dtk_launch.silence import read, to_json

T, PATIENCE = 60.0, 600.0


def at(kind, line=1, function="f", call="call"):
    return Place(kind, call, Frame("/p/t.py", line, function), ("/p/t.py", function), "")


REDUCE, ITEM = at(Kind.COLLECTIVE, 41, "step", "all_reduce"), at(Kind.CODE, 53, "step")
STUCK = at(Kind.CODE, 88, "__getitem__")


def still(place, cpu=0.0):
    """A rank in one place that uses `cpu` cores."""
    return lambda n, seconds: RankLook(Process(place, cpu * seconds))


def evaluating(n, seconds):
    return RankLook(Process(at(Kind.CODE, 1, ("linear", "relu", "norm")[n % 3]), seconds))


def saving(n, seconds):
    return RankLook(Process(at(Kind.FILES), 0.0), bytes_before=n << 20, bytes_after=n << 20)


def compiling(n, seconds):
    return RankLook(Process(at(Kind.PROGRAM), 0.0), programs={7: seconds})


def starting_programs(n, seconds):
    return RankLook(Process(at(Kind.PROGRAM), 0.0), programs={n: 0.0})


def on_disk(n, seconds):
    return RankLook(Process(STUCK, 0.0, on_disk=True))


def in_one_call(place):
    """One call of C at work, without an accelerator."""
    return lambda n, seconds: RankLook(Process(place, seconds, native=True))


def in_one_function(n, seconds):
    """Nearly all its time in `f`, and now and then not; looks far apart see `f` only, but not the samples after."""
    process = still(STUCK, cpu=1.0)(n, seconds).main
    elsewhere = Process(at(Kind.CODE, 1, "g"), seconds)
    return RankLook(replace(process, again=(process,) * 9 + (elsewhere if n % 4 == 0 else process,)))


def called_from_many_lines(n, seconds):
    outer = (Frame("/p/t.py", 88, "__getitem__"), Frame("/p/t.py", 100 + n % 2, "forward"))
    return RankLook(Process(STUCK, seconds, stack=outer))


def looping(n, seconds):
    """An endless loop over functions."""
    frames = [Frame("/p/t.py", 70 + n % 3, ("f", "g", "h")[n % 3]), Frame("/p/t.py", 50 + n % 3, "loop")]
    outer = (Frame("/p/t.py", 9, "main"), Frame("/p/t.py", 99, "<module>"))
    return RankLook(Process(evaluating(n, seconds).main.place, seconds, stack=(*frames, *outer)))


def with_worker(worker):
    return lambda n, seconds: RankLook(Process(at(Kind.DATA), 0.0), {5: worker(n, seconds).main})


def fires_after(*ranks, timeout=T, patience=PATIENCE, until=4000.0):
    """Seconds without a step after which it fires; None if never. Looks are as far apart as in a real run."""
    suspicion, silent, n = Suspicion(), timeout, 0
    while silent < until:
        suspicion.add(Look(silent, {rank: make(n, silent) for rank, make in enumerate(ranks)}))
        state = suspicion.state()
        if state is not None and is_stuck([state], silent, timeout, patience):
            return silent
        silent, n = silent + looks_apart(timeout, silent), n + 1
    return None


@pytest.mark.parametrize(
    "ranks",
    [
        (still(REDUCE), still(STUCK)),
        (still(REDUCE), still(at(Kind.COLLECTIVE, 60, "save", "barrier"))),
        (still(REDUCE), still(REDUCE)),
        (still(REDUCE), still(at(Kind.SLEEP))),
        (still(REDUCE), with_worker(still(at(Kind.SLEEP)))),
        (still(at(Kind.LOCK)),),
    ],
)
def test_ranks_that_stand_still_are_found_soon(ranks):
    assert T <= fires_after(*ranks) <= 2 * T
    assert fires_after(*ranks, timeout=2, patience=30) <= 6


@pytest.mark.parametrize(
    "ranks",
    [
        (still(REDUCE), still(STUCK, cpu=1.0)),  # an endless loop
        (still(ITEM, cpu=1.0), still(STUCK)),  # CUDA spins while it waits
        (still(REDUCE), still(at(Kind.FILES))),
        (still(REDUCE), still(at(Kind.NETWORK))),
        (still(REDUCE), on_disk),
        (still(REDUCE), with_worker(still(STUCK, cpu=1.0))),
        (still(REDUCE), lambda n, seconds: RankLook(Process(STUCK, 0.1 * seconds, native=True))),  # others' CPU
        (in_one_call(REDUCE), still(STUCK)),  # a transport that spins
    ],
)
def test_ranks_that_get_nowhere_are_found_late(ranks):
    assert PATIENCE <= fires_after(*ranks) <= PATIENCE + 60


@pytest.mark.parametrize(
    "ranks",
    [
        (evaluating, evaluating),
        (evaluating, still(REDUCE)),
        (saving, still(REDUCE)),
        (compiling, still(REDUCE)),
        (starting_programs, still(REDUCE)),
        (with_worker(evaluating), still(REDUCE)),
        (in_one_function, still(REDUCE)),
        (called_from_many_lines, still(REDUCE)),
        (in_one_call(STUCK), still(REDUCE)),
        (in_one_call(at(Kind.BACKWARD)), still(REDUCE), still(STUCK)),
        (still(ITEM, cpu=1.0), still(ITEM, cpu=1.0)),  # an evaluation that waits for the GPU all the time
    ],
)
def test_ranks_at_work_are_never_taken_for_stuck(ranks):
    assert fires_after(*ranks) is None
    assert fires_after(*ranks, timeout=2, patience=30) is None


def held_up_after(*ranks, timeout=T, patience=PATIENCE, until=4000.0):
    """The same for ranks at work for which others wait; and the suspicion as it is then."""
    suspicion, silent, n = Suspicion(), timeout, 0
    while silent < until:
        suspicion.add(Look(silent, {rank: make(n, silent) for rank, make in enumerate(ranks)}))
        state = suspicion.state()
        if state is not None and is_held_up([state], silent, patience):
            return silent, suspicion
        silent, n = silent + looks_apart(timeout, silent), n + 1
    return None, suspicion


def test_work_for_which_the_others_wait_is_worth_a_word_after_a_long_time():
    for ranks in ((looping, still(REDUCE)), (still(ITEM, cpu=1.0), looping), (in_one_call(STUCK), still(REDUCE))):
        assert fires_after(*ranks) is None
        assert 3 * PATIENCE <= held_up_after(*ranks)[0] <= 3 * PATIENCE + 60
    assert held_up_after(looping, still(REDUCE))[1].always_in(0).function == "loop"
    for ranks in ((looping, looping), (still(REDUCE), still(REDUCE)), (looping,)):
        assert held_up_after(*ranks)[0] is None
    woken = lambda n, seconds: still(REDUCE)(n, seconds) if seconds > 1000 else evaluating(n, seconds)  # noqa: E731
    assert held_up_after(looping, woken)[0] > 3 * PATIENCE


def test_ranks_that_all_sleep_wake_by_themselves():
    assert fires_after(still(at(Kind.SLEEP)), still(at(Kind.SLEEP))) > PATIENCE - 1


def test_a_rank_that_stops_working_is_found_from_then_on():
    late = lambda n, seconds: evaluating(n, seconds) if seconds < 300 else still(STUCK)(n, seconds)  # noqa: E731
    assert 300 < fires_after(late, still(REDUCE)) < 300 + 2 * T


def test_a_node_that_moves_explains_those_that_wait():
    here, there = Suspicion(), Suspicion()
    for n in range(20):
        here.add(Look(n * 10, {0: still(REDUCE)(n, n * 10)}))
        there.add(Look(n * 10, {1: evaluating(n, n * 10)}))
    assert is_stuck([here.state()], 200, T, PATIENCE)
    assert not is_stuck([here.state(), there.state()], 200, T, PATIENCE)


def test_what_a_node_says_of_its_ranks_travels_unchanged(tmp_path):
    from dtk_launch.diagnose.hang_words import Standing

    suspicion = Suspicion()
    for n in range(3):
        suspicion.add(Look(n, {0: still(REDUCE)(n, n), 1: on_disk(n, n)}))
    import json

    standings = [Standing(0, REDUCE, (STUCK,), busy=True, on="b (node 1)"), Standing(1, None)]
    standings.append(Standing(2, STUCK, moves=True, always_in=Frame("/p/t.py", 50, "loop")))
    path = tmp_path / "1.silent"
    path.write_text(json.dumps(to_json("launch", suspicion.state(), standings)))
    assert read(path, "launch")[1:] == (suspicion.state(), standings)
    assert read(path, "another") is None
    assert read(tmp_path / "2.silent", "launch") is None


S = 1_000_000_000


def paced(timeout=None, steps=0, seconds=1.0):
    pace = Pace(timeout, 0)
    for n in range(steps + 1):
        pace.observe({9: (n, int(n * seconds * S))}, int(n * seconds * S))
    return pace


def test_auto_learns_from_the_steps():
    assert paced().timeout == FIRST
    assert paced(steps=2).timeout == FIRST
    assert paced(steps=20, seconds=0.01).timeout == FLOOR
    assert paced(steps=20, seconds=10).timeout == 300
    assert (paced(5.0).timeout, paced(5.0, steps=20, seconds=9).timeout) == (5, 5)
    assert paced(steps=20, seconds=10).step == 10


def test_auto_learns_from_steps_that_were_all_made_between_two_looks():
    pace = Pace(None, 0)
    pace.observe({9: (0, 0)}, 100 * S)
    pace.observe({9: (5, 100 * S + S // 2)}, 101 * S)
    assert (pace.step, pace.timeout) == (0.125, FLOOR)
    unseen = Pace(None, 0)  # it was not there at the look before
    unseen.observe({9: (5, 100 * S)}, 101 * S)
    assert (unseen.step, unseen.timeout) == (None, FIRST)


def test_auto_learns_from_a_pause_that_ended():
    pace = paced(steps=10)
    pace.observe({9: (10, 10 * S)}, 400 * S)
    assert pace.silent(400 * S) == 390
    pace.observe({9: (11, 410 * S)}, 411 * S)
    assert (pace.silent(412 * S), pace.timeout) == (2, 1200)


def test_a_rank_that_starts_or_ends_is_a_sign_of_life():
    pace = paced(steps=5)
    pace.observe({8: (0, 0)}, 100 * S)
    assert (pace.silent(101 * S), pace.steps) == (1, 0)


def test_other_ranks_than_before_are_looked_at_anew():
    suspicion = Suspicion()
    for n in range(5):
        suspicion.add(Look(n, {0: still(REDUCE)(n, n)}))
    suspicion.add(Look(5, {0: still(REDUCE)(0, 0), 1: still(REDUCE)(0, 0)}))
    assert suspicion.state() is None
    assert replace(REDUCE, text="x").key == REDUCE.key
