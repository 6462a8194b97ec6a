import pytest
from bench_parts import markdown
from bench_parts.statistics import Paired
from overhead_parts import report as made
from overhead_parts.report import verdict
from overhead_parts.terminal import show

from tests.unit.bench.overhead_records import OVERHEAD, SETUP, run

HAND = [9.0] + [5.0] * 12
SLOWER = [9.0] + [5.5] * 12
SAME = [9.0] + [4.95, 5.05] * 6


def render(records):
    return markdown.text(made.render(records))


def test_a_difference_is_named_where_the_interval_shows_one():
    report = render(run(hand=HAND, accelerate=SLOWER, dtk=SAME))
    assert "- memory: Accelerate takes 10.0 % more time than the hand-written loop." in report
    assert (
        "- memory: dist_toolkit is neither faster nor slower, as far as was seen, than the hand-written loop" in report
    )


def test_a_faster_loop_says_what_the_options_gave():
    report = render(run(hand=HAND, hand_options=[9.0] + [4.5] * 12, dtk=SAME))
    assert "DDP with the options that dist_toolkit sets takes 10.0 % less time than the hand-written loop." in report
    assert "; it takes 11.1 % more time than one with the same DDP options." in report


def test_other_buckets_are_not_the_same_options():
    records = run(hand=HAND, hand_options=SAME, dtk=SAME)
    for record in records:
        if record["kind"] == "weights" and record["loop"] == "dtk":
            record["collectives"] = 1.0
    report = render(records)
    assert "same DDP options" not in report
    assert "than one whose DDP has other buckets (its gradients go in 2 collectives, here in 1)" in report


def test_of_few_rounds_nothing_is_claimed():
    report = render(run(hand=[1.0, 5.0, 5.0], dtk=[1.0, 5.5, 5.5]))
    assert "dist_toolkit takes 1.10 times the time of the hand-written loop (2 rounds)" in report
    assert "- A reliable median: there were only 2 rounds, and a 95 % interval takes 6." in report


def test_a_loop_that_was_not_measured_has_no_column(capsys):
    for tuned, there in (({}, False), ({"hand_options": SAME}, True)):
        records = run(hand=HAND, dtk=SAME, **tuned)
        report = render(records)
        show(records)
        assert ("time / hand-options" in report) is there
        assert ("time / hand-options" in capsys.readouterr().out) is there
        results = report.partition("## Results")[2].partition("## How")[0]
        assert len({line.count("|") for line in results.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("times", "words"), [([0.9] * 12, "takes 10.0 % less time than x"), ([0.9, 1.1] * 6, "neither")]
)
def test_verdict(times, words):
    assert words in verdict(Paired.of(times), "x")


@pytest.mark.parametrize(
    ("status", "words"),
    [("interrupted", "was interrupted"), ("failed", "failed"), (None, "did not finish")],
)
def test_a_run_that_did_not_complete_says_so(status, words):
    assert f"**The run {words}.**" in render(run(status=status, hand=HAND, dtk=SAME))


def test_a_loop_that_did_other_work_shows():
    records = run(hand=HAND, dtk=SAME)
    for record in records:
        if record.get("kind") == "weights" and record["loop"] == "dtk":
            record.update(identical=False, difference=3e-4)
    report = render(records)
    assert report.count("| 2 | within 3e-04 |") == 1
    assert "identical" not in render(run(status="interrupted", hand=HAND, dtk=SAME))


def test_what_was_left_out_and_a_busy_machine_are_named():
    left_out = {"kind": "left_out", "loop": "fabric", "why": "lightning is not installed"}
    report = render([*run(others=0.5, hand=HAND, dtk=SAME), left_out])
    assert "- Left out: fabric (lightning is not installed)." in report
    assert "Other programs, the launcher among them, kept 0.50 cores busy in the median round" in report
    assert "A quiet machine" not in render(run(hand=HAND, dtk=SAME))


def test_the_guard_has_its_own_line():
    records = run(hand=HAND, dtk=[9.0] + [5.02] * 12, dtk_noguard=HAND)
    report = render([*records, {"kind": "guard", "rank": 0, "seconds": 6.04e-6}])
    assert "Desync guard: +20.0 µs a step (+20.0 to +20.0)" in report
    assert "timed alone: 6.0 µs." in report
    assert "Desync guard" not in render(run(hand=HAND, dtk=SAME))


def test_the_machine_and_the_versions_are_there():
    report = render(run(hand=HAND, dtk=SAME))
    for words in ("Example CPU, 2 cores used", "torch 2.14.1", "accelerate 1.15.0", "0123456789ab", "2026-01-02"):
        assert words in report


def test_nothing_measured_says_so():
    assert "Nothing was measured." in render([OVERHEAD, SETUP, {"kind": "end", "status": "failed"}])
    quick = {**OVERHEAD, "options": {**OVERHEAD["options"], "quick": True}}
    assert "the times mean nothing" in render([quick, *run(hand=HAND, dtk=SAME)[1:]])
