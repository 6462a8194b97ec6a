import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from throughput_parts.steptimes import FEW, KEPT, kept, middle_and_slow, quantile


def test_quantiles_are_by_the_nearest_rank():
    assert [quantile([5.0, 1.0, 3.0], of) for of in (0.5, 0.95)] == [3.0, 5.0]
    assert [quantile([2.0, 1.0], of) for of in (0.5, 0.95)] == [1.0, 2.0]
    assert quantile([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_steps_are_pooled_over_rounds():
    """Each round has one slow step of four: no p95 of a round can tell it from the usual ones; that of all can."""
    rounds = [[10.0, 10.0, 10.0, slow] for slow in (30.0, 11.0, 11.0, 11.0, 11.0, 11.0)]
    assert middle_and_slow(rounds) == (10.0, 11.0)


def test_of_few_steps_there_is_no_slow_one():
    assert middle_and_slow([[1.0] * (FEW - 1)]) == (1.0, None)
    assert middle_and_slow([[1.0] * 10, [1.0] * (FEW - 10)]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5 * KEPT))
def test_a_block_keeps_few_of_its_times_in_order(times):
    found = kept(times)
    assert len(found) == min(KEPT, len(times))
    assert found == sorted(found)
    assert set(found) <= set(times)


@pytest.mark.parametrize("steps", [101, 250, 999, 12_345])
def test_what_is_kept_has_the_quantiles_of_all(steps):
    draw = random.Random(steps)
    times = [draw.lognormvariate(0, 1) for _ in range(steps)]
    ordered = sorted(times)
    for of in (0.5, 0.95):
        place = ordered.index(quantile(kept(times), of))
        assert abs(place / steps - of) <= 2 / KEPT
