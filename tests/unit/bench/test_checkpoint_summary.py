import json

import pytest
from bench_parts.statistics import Spread
from checkpoint_parts.summary import as_json, summarise

from tests.unit.bench.checkpoint_records import phase, run


def only(records):
    (case,) = summarise(records).cases
    return case


def test_a_rate_is_taken_within_each_round():
    """A disk that becomes four times slower half-way changes the medians and not one rate."""
    case = only(run(phase("plain", "save", [9, 100, 100, 400, 400]), phase("dtk", "save", [1, 125, 125, 500, 500])))
    saved = case.method("dtk").phases["save"]
    assert saved.rate.spread == Spread(0.8, 0.8, 0.8, 4)
    assert saved.ms.median == pytest.approx(312.5)
    assert case.method("plain").phases["save"].rate is None


def test_each_phase_has_its_own_baseline():
    case = only(
        run(
            phase("plain", "load", [1, 10]), phase("plain", "cold", [1, 100]),
            phase("dtk", "load", [1, 20]), phase("dtk", "cold", [1, 110]),
        )
    )  # fmt: skip
    phases = case.method("dtk").phases
    assert phases["load"].rate.spread.median == pytest.approx(0.5)
    assert phases["cold"].rate.spread.median == pytest.approx(100 / 110)
    assert "save" not in phases


def test_a_stall_is_compared_with_a_copy_of_the_same_round():
    case = only(
        run(phase("memcpy", "copy", [1, 50, 100]), phase("dtk-background", "save", [1, 500, 900], [1, 60, 120]))
    )
    background = case.method("dtk-background")
    assert background.stall.spread.median == pytest.approx(1.2)
    assert background.stall_ms.median == pytest.approx(90)
    assert case.copy_ms.median == pytest.approx(75)
    assert case.method("memcpy") is None


def test_one_load_that_differs_is_enough_even_in_the_warm_up():
    good, bad = phase("dtk", "load", [1, 20, 20]), phase("torch.save", "load", [1, 20, 20])
    bad[0]["same"] = False
    case = only(run(good, bad))
    assert (case.method("dtk").same, case.method("torch.save").same) == (True, False)
    assert only(run(phase("dtk", "save", [1, 20]))).method("dtk").same is None


def test_a_round_that_was_cut_short_counts_for_no_rate():
    records = run(phase("plain", "save", [1, 5, 5]), phase("dtk", "save", [1, 6]), status="interrupted")
    assert summarise(records).status == "interrupted"
    case = only(records)
    assert case.method("plain").phases["save"].ms.count == 2
    assert case.method("dtk").phases["save"].rate.spread.count == 1
    lonely = only(run(phase("dtk", "save", [1, 6])))
    assert lonely.method("dtk").phases["save"].rate is None


def test_states_are_kept_apart_and_a_warm_up_alone_is_nothing():
    records = run(
        phase("plain", "save", [1, 5]), phase("dtk", "save", [1, 10]),
        phase("plain", "save", [1, 5], case="small"), phase("dtk", "save", [1, 50], case="small"),
    )  # fmt: skip
    rates = {c.case: c.method("dtk").phases["save"].rate.spread.median for c in summarise(records).cases}
    assert rates == pytest.approx({"large": 0.5, "small": 0.1})
    assert summarise(run(phase("dtk", "save", [1]), status=None)).cases == ()
    assert summarise(run(phase("memcpy", "copy", [1, 1]), status="interrupted")).cases == (), "no method had its turn"
    assert summarise(run(status=None)).status == "unfinished"


def test_the_summary_is_json():
    records = run(phase("plain", "save", [1, 5]), phase("dtk", "save", [1, 5]))
    assert json.loads(json.dumps(as_json(records)))["cases"][0]["methods"][1]["phases"]["save"]["ms"]["median"] == 5
