"""Whatever a run was ended at, its report says that nothing was measured where there is no number in it."""

import importlib
import json
from pathlib import Path

import pytest
import report
from bench_parts.driver import Benchmark
from bench_parts.markdown import text
from bench_parts.registry import read_result

from tests.unit.bench.machine_record import MACHINE
from tests.unit.bench.test_launch_report import LAUNCH, idle, others, run, start

REPORTS = Path(__file__).parents[3] / "benchmarks" / "reports"
FOLDERS = ["checkpoint", "comm-cpu", "heartbeat", "launch", "overhead", "throughput-cpu", "verdict"]
ADVISE = {
    "target": "mlp", "words": [], "size": "small", "strategies": ["single", "ddp"], "nproc": 2, "batch_is": "global",
    "batches": [64], "gpus": 0, "device": "cpu", "precision": "auto", "rounds": 2, "warmup": 5, "steps": 30,
    "seconds": 30.0,
}  # fmt: skip
NOTHING = "Nothing was measured."
INTERRUPTED = {"kind": "end", "status": "interrupted"}


def first_of(name: str) -> tuple[Benchmark, dict[str, object]]:
    """A benchmark and the first record of a run."""
    if name == "advise":
        return importlib.import_module("advise").BENCHMARK, {**MACHINE, "benchmark": "advise", "options": ADVISE}
    benchmark, records = read_result(REPORTS / name)
    return benchmark, dict(records[0])


@pytest.mark.parametrize("end", [[], [INTERRUPTED]], ids=["killed", "interrupted"])
@pytest.mark.parametrize("name", [*FOLDERS, "advise"])
def test_a_run_that_was_ended_before_its_first_round(name, end, capsys):
    benchmark, first = first_of(name)
    words = text(benchmark.render([first, *end]))
    assert NOTHING in words
    assert [line for line in words.splitlines() if line.startswith("## ")] == ["## Machine"]
    assert words.count("\n|---") == 1, "that of the machine"
    benchmark.show([first, *end])
    assert capsys.readouterr().out == f"{NOTHING}\n"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_complete_run_does_not_say_so(name, capsys):
    benchmark, records = read_result(REPORTS / name)
    assert NOTHING not in text(benchmark.render(records))
    benchmark.show(records)
    assert NOTHING not in capsys.readouterr().out


def test_the_report_of_a_result_with_nothing_in_it_is_no_result(tmp_path, capsys):
    _, first = first_of("heartbeat")
    (tmp_path / "results.jsonl").write_text(json.dumps(first) + "\n")
    assert report.main([str(tmp_path)]) == 2
    assert NOTHING in capsys.readouterr().out
    assert NOTHING in (tmp_path / "report.md").read_text()
    assert report.main([str(tmp_path), "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"status": "unfinished"}
    assert NOTHING in shown.err


def launch(*records):
    return text(importlib.import_module("launch").BENCHMARK.render([LAUNCH, *records, INTERRUPTED]))


def test_a_round_of_launch_that_was_cut_off_before_its_baseline_is_none():
    answer = {"kind": "answer", "round": 1, "command": "dtk --help", "seconds": 0.2}
    assert NOTHING in launch(answer)
    assert "answers" not in launch(answer)
    words = launch(start("torchrun", 1, 3.0), start("dtk launch", 1, 3.3), others("starts", 1, 0.0), answer)
    assert "1 round of the starts, each after" in words
    assert "answers" not in words


def test_what_was_not_started_is_not_said_to_have_been():
    answers = [record for record in run() if record["kind"] == "answer" or record.get("part") == "answers"]
    words = launch(*answers)
    assert "Many ranks" not in words
    assert "A training script" not in words
    assert "there were 8 ranks for the shares of a core, on one node." in launch(idle("quiet", 1, 0.0))
    both = launch(start("torchrun", 1, 3.0), idle("quiet", 1, 0.0))
    assert "there were 2 ranks for the starts and 8 ranks for the shares of a core, on one node." in both


def test_the_spread_that_is_rough_is_named():
    starts = [start(command, number, 3.0) for number in range(1, 16) for command in ("torchrun", "dtk launch")]
    words = launch(*starts, *(idle("quiet", number, 0.0) for number in range(1, 4)))
    rough = 'quartiles of fewer than 10 rounds are rough, and there were only 3 looks at each run ("While it runs").'
    assert rough in words
    assert "rough" not in launch(*starts)
    assert "there were only 9 rounds of the starts, 1 look at each run" in launch(*starts[:18], idle("quiet", 1, 0.0))
