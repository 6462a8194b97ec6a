import json
from statistics import median

import pytest
from bench_parts.statistics import Spread, interval_of_median
from hypothesis import given
from hypothesis import strategies as st
from overhead_parts.summary import as_json, summarise

from tests.unit.bench.overhead_records import run

TIMES = st.lists(st.floats(0.5, 2.0), min_size=1, max_size=30)


def loops_of(records):
    (feed,) = summarise(records).feeds
    return {loop.loop: loop for loop in feed.loops}


def test_a_ratio_and_a_difference_are_taken_within_each_round():
    """A machine that becomes four times slower half-way changes the medians and not one ratio."""
    found = loops_of(run(hand=[9.0, 2.0, 2.0, 8.0, 8.0], dtk=[1.0, 3.0, 3.0, 12.0, 12.0]))
    assert found["dtk"].ratio.spread == Spread(1.5, 1.5, 1.5, 4)
    assert (found["dtk"].ratio.low, found["dtk"].ratio.high) == (None, None), "of 4 rounds"
    assert found["dtk"].extra_us.spread.median == pytest.approx(2500)
    assert found["dtk"].step_ms.median == pytest.approx(7.5)
    assert found["dtk"].cpu.spread.median == pytest.approx(1.5)
    assert found["hand"].ratio is None


def test_the_wrapper_is_what_remains_with_the_same_options():
    found = loops_of(run(hand=[1.0, 10.0], hand_options=[1.0, 8.0], dtk=[1.0, 9.0]))
    assert found["dtk"].ratio.spread.median == pytest.approx(0.9)
    assert found["dtk"].wrapper.spread.median == pytest.approx(9 / 8)
    assert found["hand-options"].ratio.spread.median == pytest.approx(0.8)
    assert found["hand-options"].wrapper is None


def test_the_guard_is_the_difference_of_two_loops_of_a_round():
    summary = summarise(run(hand=[1.0, 5.0], dtk=[1.0, 5.03], dtk_noguard=[1.0, 5.01]))
    assert summary.guard_us.spread.median == pytest.approx(20)
    assert summary.guard_alone_us is None
    assert summarise(run(hand=[1.0, 5.0], dtk=[1.0, 5.03])).guard_us is None
    alone = summarise([*run(hand=[1.0, 5.0]), {"kind": "guard", "rank": 0, "seconds": 7e-6}])
    assert alone.guard_alone_us == pytest.approx(7)


def test_a_round_that_was_cut_short_counts_for_no_ratio():
    records = run(status="interrupted", hand=[1.0, 5.0, 5.0], dtk=[1.0, 6.0])
    assert summarise(records).status == "interrupted"
    found = loops_of(records)
    assert found["hand"].step_ms.count == 2
    assert found["dtk"].ratio.spread.count == 1
    assert found["dtk"].identical is None


def test_nothing_measured_is_a_summary_too():
    assert summarise(run(status=None)).feeds == ()
    assert summarise(run(status=None)).status == "unfinished"


def test_the_summary_is_json():
    records = run(hand=[1.0, 5.0], dtk=[1.0, 5.0])
    assert json.loads(json.dumps(as_json(records)))["feeds"][0]["loops"][1]["loop"] == "dtk"


@given(TIMES)
def test_the_interval_holds_the_median_and_lies_among_the_values(values):
    low, high = interval_of_median(values)
    assert min(values) <= low <= median(values) <= high <= max(values)


@given(TIMES, st.floats(0.5, 4.0))
def test_the_interval_scales_with_the_values(values, factor):
    low, high = interval_of_median(values)
    assert interval_of_median([factor * value for value in values]) == pytest.approx((factor * low, factor * high))


def test_the_interval_narrows_with_the_number_of_rounds():
    few, many = (interval_of_median([1 + (7 * i % 11) / 100 for i in range(count)]) for count in (11, 121))
    assert many[1] - many[0] < few[1] - few[0]
