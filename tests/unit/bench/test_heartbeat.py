import heartbeat
import pytest
from bench_parts.arguments import UsageError
from bench_parts.markdown import text
from bench_parts.rounds import next_round
from launch_parts import report as launch
from verdict_parts import report as verdict

from tests.unit.bench.machine_record import MACHINE

FIRST = {**MACHINE, "options": {"rounds": 3, "steps": 100, "step_ms": 5.0}}


def blocks(number, without, ratio, cores=0.02):
    place = {"round": number, "warmup": number == 0}
    return [
        {"kind": "others", **place, "seconds": 1.0, "others_cpu_seconds": cores},
        {"kind": "block", **place, "mode": "with", "milliseconds": ratio * without},
        {"kind": "block", **place, "mode": "without", "milliseconds": without},
    ]


def run(cores=0.02):
    records = [FIRST, {"kind": "setup", "threads": 1}, {"kind": "call", "microseconds": 2.0}]
    records += [*blocks(0, 50.0, 9.0, 2.0), *blocks(1, 5.0, 1.01), *blocks(2, 5.0, 1.0), *blocks(3, 5.2, 0.99, cores)]
    return [*records, {"kind": "end", "status": "complete"}]


def test_a_whole_report(golden):
    golden("bench/heartbeat.md", text(heartbeat.render(run(0.7))))


def test_the_warm_up_is_left_out():
    found = heartbeat.summary(run())
    assert (found["rounds"], found["step_ms"], found["ratio"]) == (3, 5.0, 1.0)
    assert found["others_cores"]["worst"] == 0.02
    assert [len(each.values) for each in heartbeat.quantities(run())] == [3, 3]


def test_an_older_result_had_no_warm_up():
    records = [
        {name: value for name, value in record.items() if name != "warmup"}
        for record in run()
        if record["kind"] not in ("others", "setup")
    ]
    assert heartbeat.summary(records)["rounds"] == 4
    words = text(heartbeat.render(records))
    assert "Without a round of warm-up: 4 rounds" in words
    assert "How busy other programs kept the cores was not recorded." in words


def test_a_round_that_was_cut_off_goes_with_what_was_seen_of_others():
    cut = run()[:-2]
    assert [record["kind"] for record in cut[-2:]] == ["others", "block"]
    kept = heartbeat.keep(cut)
    assert next_round(kept) == 3
    assert {record["round"] for record in kept if record["kind"] == "others"} == {0, 1, 2}


def test_nothing_measured_has_a_report():
    assert "heartbeat" in text(heartbeat.render([FIRST, {"kind": "end", "status": "failed"}]))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            "--step-ms 1e9",
            "--step-ms 1e+09 is more than a second: finding such a step would take too long; pass at most 1000",
        ),
        ("--step-ms nan", "--step-ms nan is not a positive number"),
        ("--steps 99999999", "one round would take 277:46:40 (2 x 99999999 steps of 5 ms)"),
        (
            "--steps 300 --step-ms 1000",
            "one round would take 0:10:00 (2 x 300 steps of 1000 ms); pass at most --steps 150",
        ),
        ("--step-ms five", "argument --step-ms: 'five' is not a number"),
        ("--rounds 1e3", "argument --rounds: '1e3' is not a whole number"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
    ],
)
def test_what_nobody_could_wait_for_is_refused(argv, said):
    with pytest.raises(UsageError) as caught:
        heartbeat.parse(argv.split())
    assert str(caught.value).startswith(said)


def test_how_long_it_takes_is_said_before():
    assert heartbeat.duration(heartbeat.parse([])) == "1 minute"
    assert heartbeat.duration(heartbeat.parse(["--rounds", "100000"])) == "28 hours"
    assert heartbeat.duration(heartbeat.parse(["--rounds", "2", "--steps", "2"])) == "a second"


def test_how_the_run_ended_is_in_the_json():
    assert heartbeat.as_json(run()) == {"status": "complete", **heartbeat.summary(run())}
    assert heartbeat.as_json([FIRST]) == {"status": "unfinished"}
    assert launch.as_json([FIRST])["status"] == verdict.as_json([FIRST])["status"] == "unfinished"
