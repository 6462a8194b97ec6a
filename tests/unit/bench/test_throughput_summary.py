import json
from statistics import median

import pytest
from bench_parts.statistics import Spread
from throughput_parts.outcome import as_json, failures, quantities
from throughput_parts.summary import compared_with, scaled_from, summarise

from tests.unit.bench.conftest import mode_key


def test_a_spread_of_one_value_has_no_quartiles():
    assert Spread.of([3.0]) == Spread(3.0, None, None, 1)


def test_a_spread_is_the_median_and_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_the_warm_up_is_left_out(run_of):
    (model,) = summarise(run_of(dp=[1.0, 100.0, 100.0], ddp=[900.0, 150.0, 150.0]))
    dp, ddp = model.modes
    assert dp.samples_per_s == Spread(100.0, 100.0, 100.0, 2)
    assert ddp.ratio == Spread(1.5, 1.5, 1.5, 2)
    assert dp.ratio is None


def test_a_ratio_is_taken_within_each_round(run_of):
    """A machine that becomes four times slower half-way changes the medians and not one ratio."""
    (model,) = summarise(run_of(dp=[1.0, 100.0, 100.0, 25.0, 25.0], ddp=[1.0, 120.0, 120.0, 30.0, 30.0]))
    assert model.modes[1].ratio == Spread(1.2, 1.2, 1.2, 4)


def test_a_round_that_was_cut_short_counts_for_its_strategy_and_for_no_ratio(run_of):
    (model,) = summarise(run_of(dp=[1.0, 100.0, 100.0], ddp=[1.0, 150.0], status="interrupted"))
    dp, ddp = model.modes
    assert dp.samples_per_s.count == 2
    assert ddp.ratio is not None
    assert ddp.ratio.count == 1


def test_dp_is_the_baseline_wherever_it_is_named(run_of):
    (work,) = summarise(run_of(ddp=[1.0, 150.0], fsdp=[1.0, 50.0], dp=[1.0, 100.0]))
    assert [mode.compared_with for mode in work.modes] == ["dp x2", "dp x2", ""]
    assert [mode.ratio.median if mode.ratio else None for mode in work.modes] == [1.5, 0.5, None]


@pytest.mark.parametrize(
    ("key", "keys", "base"),
    [
        (("ddp", 2), [("dp", 1), ("dp", 2), ("ddp", 2)], ("dp", 2)),
        (("dp", 2), [("dp", 1), ("dp", 2), ("ddp", 2)], None),
        (("ddp", 1), [("single", 1), ("ddp", 1), ("ddp", 2)], ("single", 1)),
        (("ddp", 2), [("single", 1), ("ddp", 2), ("fsdp", 2)], None),
        (("fsdp", 2), [("single", 1), ("ddp", 2), ("fsdp", 2)], ("ddp", 2)),
        (("single", 1), [("single", 1), ("dp", 2)], None),
    ],
)
def test_only_strategies_with_the_same_shares_are_compared(key, keys, base):
    assert compared_with(key, keys) == base


@pytest.mark.parametrize(
    ("key", "keys", "start"),
    [
        (("ddp", 4), [("single", 1), ("ddp", 1), ("ddp", 2), ("ddp", 4)], ("ddp", 1)),
        (("ddp", 4), [("single", 1), ("ddp", 2), ("ddp", 4)], ("single", 1)),
        (("ddp", 4), [("ddp", 2), ("ddp", 4)], ("ddp", 2)),
        (("ddp", 2), [("ddp", 2), ("ddp", 4)], None),
        (("single", 1), [("single", 1), ("ddp", 2)], None),
    ],
)
def test_scaling_begins_with_one_share(key, keys, start):
    assert scaled_from(key, keys) == start


def test_efficiency_is_the_speedup_over_the_shares(run_of):
    (work,) = summarise(run_of(single=[1.0, 100.0], ddp=[1.0, 150.0], ddp4=[1.0, 240.0]))
    single, two, four = work.modes
    assert (single.speedup, single.efficiency, single.scaled_from) == (None, None, "")
    assert (two.scaled_from, two.efficiency) == ("single x1", 0.75)
    assert (four.scaled_from, four.efficiency) == ("single x1", 0.6)


def test_parts_memory_and_arithmetic_of_a_step(run_of):
    (work,) = summarise(run_of(dp=[1.0, 100.0, 100.0], ddp=[1.0, 200.0, 200.0]))
    dp, ddp = work.modes
    medians = {name: part.median for name, part in dp.parts_ms.items()}
    assert medians == {"data": 1.0, "forward": 30.0, "backward": 50.0, "optimizer": 2.0}
    assert ddp.parts_ms["communication"] == Spread(7.0, 7.0, 7.0, 2)
    assert ddp.timed_steps == 4
    assert (ddp.step_ms, ddp.slow_step_ms) == (500.0, pytest.approx(550.0))
    assert (ddp.memory.rss_most, ddp.memory.rss_sum, ddp.memory.gpu_reserved) == (800.0, 1600.0, None)
    assert (ddp.flops_per_s, ddp.utilisation) == (1.2e9, None)


def test_utilisation_is_over_the_peak_of_all_gpus(run_of):
    records = [{**r, "device": "NVIDIA H200"} if r["kind"] == "setup" else r for r in run_of(ddp=[1.0, 2e6])]
    (work,) = summarise(records)
    assert work.modes[0].utilisation == pytest.approx(12e12 / (2 * 67e12))


def test_what_failed_and_was_measured_since_did_not_fail(run_of):
    failed = {"kind": "failed", **mode_key("ddp"), "why": "RuntimeError: no"}
    assert failures([*run_of(ddp=[1.0]), failed]) == {"ddp x2 on mlp (fp32, batch 100)": "RuntimeError: no"}
    assert failures([failed, *run_of(ddp=[1.0, 2.0])]) == {}


def test_quantities_of_each_round(run_of):
    found = {q.name: q for q in quantities(run_of(dp=[1.0, 100.0, 200.0]))}
    rate = found["mlp", "fp32", "batch 100", "dp x2", "samples/s"]
    assert (rate.unit, rate.better, rate.values) == ("samples/s", "higher", (100.0, 200.0))
    assert {name[-1]: q.better for name, q in found.items()} == {
        "samples/s": "higher",
        "step p50 by round": "lower",
        "peak RSS of all processes": "lower",
    }


def test_blocks_with_enough_steps_have_a_slow_one_to_compare(run_of):
    records = [{**r, "step_ms": [*range(1, 41)]} if r["kind"] == "block" else r for r in run_of(dp=[1.0, 100.0, 200.0])]
    (slow,) = [q for q in quantities(records) if q.name[-1] == "step p95 by round"]
    assert slow.values == (38, 38)


def test_rounds_free_of_other_programs_are_told_apart(run_of):
    (model,) = summarise(run_of(others=(0.0, 0.5, 0.0, 0.5), dp=[1.0, 100.0, 100.0, 100.0], ddp=[1.0, 200, 110, 200]))
    assert model.modes[1].ratio.median == 2.0
    assert model.modes[1].quiet_ratio == Spread(1.1, None, None, 1)
    assert model.others_cores.median == 0.5


def test_other_programs_may_be_unseen(run_of):
    records = run_of(dp=[1.0, 100.0])
    (model,) = summarise([{**r, "others_cpu_seconds": None} if r["kind"] == "block" else r for r in records])
    assert model.others_cores is None


def test_nothing_measured_is_an_empty_summary(run_of):
    assert summarise(run_of(dp=[1.0], ddp=[1.0])) == ()


def test_the_json_is_plain_and_says_how_the_run_ended(run_of):
    records = run_of(dp=[1.0, 100.0], ddp=[1.0, 150.0])
    told = json.loads(json.dumps(as_json(records)))
    assert told["status"] == "complete"
    assert [mode["strategy"] for mode in told["workloads"][0]["modes"]] == ["dp", "ddp"]
    unfinished = run_of(dp=[1.0, 100.0], status=None)
    assert as_json(unfinished)["status"] == "unfinished"


def test_a_step_time_by_round_is_not_called_as_that_of_all_steps(run_of):
    """Of two rounds, the median of all steps is the slowest of the faster one; that of the rounds lies between them."""
    records = run_of(ddp=[1.0, 1000.0, 500.0])
    (work,) = summarise(records)
    by_round = {q.name[-1]: median(q.values) for q in quantities(records) if q.unit == "ms"}
    assert (work.modes[0].step_ms, by_round) == (110.0, {"step p50 by round": 150.0})
