"""Steps per second, and who is slow or late."""

import math

from dtk_launch.pace import LATE_SECONDS, SLOWER, WINDOW_NS, Pace, late, present_rate, slow

SECOND = 1_000_000_000


def test_a_rate_is_of_the_times_of_the_steps_not_of_the_looks():
    pace = Pace()
    assert pace.rate() is None
    pace.note(0, 0)
    pace.note(10, 100 * SECOND)
    assert pace.rate() is None
    pace.note(10, 100 * SECOND)
    pace.note(16, 103 * SECOND)
    assert pace.rate() == 2.0


def test_a_rate_forgets_what_is_older_than_its_window():
    pace = Pace()
    pace.note(1, 0)
    for second in range(1, 101):  # one step a second, then ten
        pace.note(1 + second if second <= 60 else 61 + 10 * (second - 60), second * SECOND)
    assert WINDOW_NS == 30 * SECOND
    assert pace.rate() == 10.0


def test_steps_longer_than_the_window_have_a_rate():
    pace = Pace()
    for number in range(1, 5):
        pace.note(number, number * 100 * SECOND)
    assert pace.rate() == 0.01


def test_a_rank_that_stops_loses_its_rate():
    assert present_rate(None, 3.0) is None
    assert present_rate(4.0, None) == 4.0
    assert present_rate(4.0, 0.2) == 4.0
    assert present_rate(4.0, 10.0) == 0.1


def test_stragglers_are_compared_with_the_median():
    assert slow({0: 6.0}) == {}
    assert slow({0: 6.0, 1: None}) == {}
    assert slow({0: 6.0, 1: 4.0}) == {}
    assert SLOWER == 1.5
    assert slow({0: 6.0, 1: 3.9}) == {1: 6.0 / 3.9}
    assert slow({0: 6.0, 1: 6.1, 2: 2.0, 3: 5.9, 4: 0.0}) == {2: 5.9 / 2.0, 4: math.inf}


def test_late_needs_both_many_steps_and_some_seconds():
    assert not late(None, 1000.0)
    assert not late(1.0, None)
    assert not late(100.0, LATE_SECONDS)
    assert late(100.0, LATE_SECONDS + 1)
    assert not late(0.1, 45.0)
    assert late(0.1, 55.0)
