from bench_parts.markdown import text
from launch_parts.report import quantities, render
from launch_parts.starts import threads_of
from launch_parts.turns import turns

from tests.unit.bench.machine_record import MACHINE

LAUNCH = {**MACHINE, "libraries": {"click": "8.5.1"}, "options": {"rounds": 2, "parts": ["starts", "idle", "answers"]}}


def start(command, number, seconds, threads=1):
    return {
        "kind": "start", "round": number, "command": command, "seconds": seconds, "total": seconds + 1,
        "threads": threads,
    }  # fmt: skip


def others(part, number, cores):
    return {"kind": "others", "part": part, "round": number, "seconds": 10.0, "others_cpu_seconds": 10 * cores}


def idle(ranks, number, cores):
    seen = {"seconds": 15.0, "others_cpu_seconds": 15 * cores, "threads": 1}
    return {"kind": "idle", "round": number, "ranks": ranks, "dtk": 0.006, "torchrun": 0.004, **seen}


def run():
    return [
        LAUNCH,
        start("torchrun", 1, 3.0), start("dtk launch", 1, 3.3, 2), others("starts", 1, 0.02),
        start("dtk launch", 2, 3.0, 2), start("torchrun", 2, 3.0), others("starts", 2, 0.5),
        idle("quiet", 1, 0.01), idle("quiet", 2, 0.03),
        {"kind": "answer", "round": 1, "command": "torchrun --help", "seconds": 3.0},
        {"kind": "answer", "round": 1, "command": "dtk --help", "seconds": 0.2},
        others("answers", 1, 0.04),
        {"kind": "end", "status": "complete"},
    ]  # fmt: skip


def test_a_whole_report(golden):
    golden("bench/launch.md", text(render(run())))


def test_an_older_result_still_has_a_report():
    records = [
        {name: value for name, value in record.items() if name not in ("threads", "seconds", "others_cpu_seconds")}
        if record["kind"] == "idle"
        else {name: value for name, value in record.items() if name != "threads"}
        for record in run()
        if record["kind"] != "others"
    ]
    words = text(render(records))
    assert "How busy other programs kept the cores was not recorded." in words
    assert "OMP_NUM_THREADS" not in words
    assert len(quantities(records)) == len(quantities(run()))


def test_a_part_alone():
    words = text(render([LAUNCH, idle("quiet", 1, 0.0), {"kind": "end", "status": "complete"}]))
    assert "during the runs, 0.00 cores busy in the median round." in words
    assert "A quiet machine" not in words


def test_every_round_has_each_command_once_and_begins_with_another():
    rounds = list(turns("abc", 3))
    assert [number for number, _ in rounds] == [0, 1, 2, 3], "the first warms up"
    assert {tuple(sorted(order)) for _, order in rounds} == {("a", "b", "c")}
    assert [order[0] for _, order in rounds] == ["a", "b", "c", "a"]


def test_threads_as_a_rank_has_written_them():
    assert [threads_of(words) for words in (["4"], ["4,2"], [])] == [4, 4, None]
