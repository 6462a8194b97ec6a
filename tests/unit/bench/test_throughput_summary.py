import json

from bench_parts.statistics import Spread
from throughput_parts.summary import as_json, summarise


def test_a_spread_of_one_value_is_that_value():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)


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
    (model,) = summarise(run_of(ddp=[1.0, 150.0], single=[1.0, 50.0], dp=[1.0, 100.0]))
    assert model.baseline == "dp"
    assert [mode.ratio.median if mode.ratio else None for mode in model.modes] == [1.5, 0.5, None]


def test_rounds_free_of_other_programs_are_told_apart(run_of):
    (model,) = summarise(run_of(others=(0.0, 0.5, 0.0, 0.5), dp=[1.0, 100.0, 100.0, 100.0], ddp=[1.0, 200, 110, 200]))
    assert model.modes[1].ratio.median == 2.0
    assert model.modes[1].quiet_ratio == Spread(1.1, 1.1, 1.1, 1)
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
    assert [mode["strategy"] for mode in told["models"][0]["modes"]] == ["dp", "ddp"]
    unfinished = run_of(dp=[1.0, 100.0], status=None)
    assert as_json(unfinished)["status"] == "unfinished"
