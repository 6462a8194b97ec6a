import json

import pytest
from bench_parts.statistics import Spread
from comm_parts.cases import all_cases, elements, scopes, turns
from comm_parts.summary import as_json, quantities, summarise, wrong
from comm_parts.tables import OPERATIONS, bandwidths
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bench.comm_records import TYPICAL, case, run

CASES = all_cases(("gloo",), 1, 2, ("all-reduce", "broadcast"), (1024, 4096, 16384))


@pytest.mark.parametrize(
    ("operation", "ranks", "factor"),
    [
        ("all-reduce", 2, 1), ("all-reduce", 4, 1.5), ("all-reduce", 1, 0), ("all-gather", 4, 0.75),
        ("reduce-scatter", 4, 0.75), ("broadcast", 4, 1),
    ],
)  # fmt: skip
def test_bus_bandwidth_is_that_of_nccl_tests(operation, ranks, factor):
    """The factors of its doc/PERFORMANCE.md; 1 GB in half a second is 2 GB/s."""
    assert bandwidths(operation, ranks, 10**9, 0.5) == pytest.approx((2.0, 2.0 * factor))


def test_every_factor_is_at_most_that_of_endless_ranks():
    for operation in OPERATIONS.values():
        assert 0 < operation.factor(2) <= operation.factor(10**6) <= 2


@given(st.integers(1, 10**9), st.sampled_from([2, 4, 8]), st.integers(1, 64))
def test_a_buffer_can_be_dealt_out_to_all_ranks(size, itemsize, ranks):
    count = elements(size, itemsize, ranks)
    assert count % ranks == 0
    assert count * itemsize <= size < (count + ranks) * itemsize


def test_scopes_are_what_the_nodes_and_ranks_allow():
    assert scopes(1, 4) == ("within",)
    assert scopes(2, 1) == ("across",)
    assert scopes(2, 4) == ("within", "across")


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_every_case_has_one_turn_a_round_in_an_order_of_its_own(seed, rounds):
    found = list(turns(CASES, rounds, seed))
    assert found == list(turns(CASES, rounds, seed))
    for number in range(1, rounds + 1):
        mine = [case for turn, case in found if turn == number]
        assert len(mine) == len(CASES)
        assert set(mine) == set(CASES)


def test_what_is_left_of_a_run_follows_what_was_done():
    assert list(turns(CASES, 2, 5)) == list(turns(CASES, 9, 5))[: 2 * len(CASES)]
    orders = {tuple(c for n, c in turns(CASES, 8, 0) if n == number) for number in range(1, 9)}
    assert len(orders) > 1


def test_medians_and_bandwidths():
    (part,) = summarise(run(*TYPICAL)).parts
    assert (part.operations, part.sizes, part.ranks) == (("all-reduce", "all-gather"), (1024, 1048576), 2)
    large = part.best("all-reduce")
    assert large.time_us == Spread(pytest.approx(1100), pytest.approx(1050), pytest.approx(1150), 3)
    assert large.algorithm.median == pytest.approx(1048576 / 1100e-6 / 1e9)
    assert part.best("all-gather").bus.median == pytest.approx(part.best("all-gather").algorithm.median / 2)


def test_an_interrupted_run_has_what_was_measured():
    records = run(case("all-reduce", 1024, 100), case("broadcast", 1024), status="interrupted")
    summary = summarise(records)
    assert summary.status == "interrupted"
    assert [c.operation for c in summary.parts[0].cases] == ["all-reduce"]
    assert summarise(run(status=None)).parts == ()


def test_a_wrong_result_is_named():
    assert wrong(run(case("broadcast", 1024, 5, right=False))) == ["broadcast of 1 KiB by gloo within"]
    assert wrong(run(*TYPICAL)) == []


def test_what_can_be_compared_is_every_time_by_round():
    found = quantities(run(*TYPICAL))
    first = next(q for q in found if q.name == ("gloo", "within", "all-reduce", "1 KiB"))
    assert (first.unit, first.better) == ("µs", "lower")
    assert first.values == pytest.approx((100, 110, 120))
    assert len({q.name for q in found}) == len(found) == 4


def test_the_summary_is_json():
    values = json.loads(json.dumps(as_json(run(*TYPICAL))))
    assert values["parts"][0]["cases"][0]["operation"] == "all-reduce"
