import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bench_parts import resume
from bench_parts.arguments import Parser, UsageError, add_output
from bench_parts.driver import Benchmark, main
from bench_parts.elsewhere import CHECK
from bench_parts.interrupt import Interrupted
from bench_parts.records import NAME, RecordFile, read_records
from bench_parts.rounds import next_round, whole_rounds
from bench_parts.terminal import Progress

from tests.unit.bench.machine_record import MACHINE

HEAD = {**MACHINE, "options": {"rounds": 3, "models": ["mlp"]}}


def block(number, name="a"):
    return {"kind": "block", "round": number, "name": name}


def write(folder, *records):
    with RecordFile(folder, records):
        pass


def test_the_records_of_an_interrupted_run_are_kept(tmp_path):
    records = [HEAD, block(0), {"kind": "end", "status": "interrupted"}]
    write(tmp_path, *records)
    assert resume.kept(tmp_path, HEAD) == records


def test_a_line_that_was_cut_off_is_not_there(tmp_path):
    write(tmp_path, HEAD, block(0))
    with open(tmp_path / NAME, "a") as file:
        file.write('{"kind": "blo')
    assert resume.kept(tmp_path, HEAD) == [HEAD, block(0)]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            {"options": {"rounds": 5, "models": ["mlp", "resnet18"]}},
            "--models mlp, now mlp,resnet18; --rounds 3, now 5",
        ),
        ({"commit": "ffff"}, "commit 0123456789ab, now ffff"),
        ({"cores": 4}, "cores 2, now 4"),
        ({"torch": "2.15.0"}, "torch 2.14.1, now 2.15.0"),
    ],
)
def test_a_run_is_gone_on_with_by_the_same_command_on_the_same_machine(tmp_path, now, message):
    write(tmp_path, HEAD, block(0))
    with pytest.raises(UsageError) as caught:
        resume.kept(tmp_path, {**HEAD, **now})
    assert message in str(caught.value)


def test_nothing_to_go_on_with(tmp_path):
    with pytest.raises(UsageError, match=r"holds no results.jsonl; leave --resume out"):
        resume.kept(tmp_path, HEAD)
    (tmp_path / NAME).write_text("words\n")
    with pytest.raises(UsageError, match="pass another --out, or --overwrite in the place of --resume"):
        resume.kept(tmp_path, HEAD)


def test_a_round_that_was_cut_off_is_measured_again():
    whole = [HEAD, *(block(number, name) for number in range(3) for name in "ab")]
    assert whole_rounds([*whole, block(3, "b")]) == whole
    assert whole_rounds(whole) == whole
    assert next_round(whole) == 3
    assert whole_rounds([HEAD, block(0)]) == [HEAD], "a warm-up alone may be cut off, too"
    assert next_round([HEAD]) == 0


@dataclass
class Options:
    out: Path
    resume: bool
    json: bool = False
    overwrite: bool = False


@pytest.mark.parametrize("cut", range(6))
def test_a_driver_that_is_interrupted_anywhere_and_resumed_measures_each_round_once(tmp_path, capsys, cut):
    def measure(options, add, say, done):
        for number in range(next_round(done), 5):
            if not options.resume and number == cut:
                raise Interrupted(2)
            add(block(number))

    benchmark = Benchmark(
        "made-up",
        lambda argv: Options(tmp_path, "--resume" in argv),
        lambda options: HEAD,
        lambda options: Progress(),
        measure,
        lambda records: ["# Made up", f"{len(records)} records"],
        len,
        lambda records: None,
        lambda records: [],
    )
    assert main(benchmark, []) == (130 if cut < 5 else 0)
    assert ("--resume goes on with it" in capsys.readouterr().err) == (cut < 5)
    for turn in range(2):
        assert main(benchmark, ["--resume"]) == 0
        assert ("is complete: nothing is left" in capsys.readouterr().err) == (turn == 1 or cut == 5)
    records = read_records(tmp_path)
    assert records == [{**HEAD, "benchmark": "made-up"}, *map(block, range(5)), {"kind": "end", "status": "complete"}]
    assert (tmp_path / "report.md").read_text() == "# Made up\n\n7 records\n"
    assert not list(tmp_path.glob("*.new"))
    assert json.loads((tmp_path / NAME).read_text().splitlines()[0])["benchmark"] == "made-up"


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("at", ["parse", "describe", "progress", "render", "show"])
def test_a_signal_outside_the_measurement_is_one_line_and_128_and_its_number(tmp_path, capsys, at, signum, name):
    def do(step, result):
        def done(*given):
            if step == at:
                os.kill(os.getpid(), signum)
            return result

        return done

    before = signal.getsignal(signum)
    benchmark = Benchmark(
        "made-up",
        do("parse", Options(tmp_path, False)),
        do("describe", HEAD),
        do("progress", Progress()),
        lambda options, add, say, done: add(block(0)),
        do("render", ["# Made up"]),
        len,
        do("show", None),
        lambda records: [],
    )
    assert main(benchmark, []) == 128 + signum
    assert signal.getsignal(signum) == before
    said = capsys.readouterr().err.splitlines()
    if at in ("parse", "describe"):
        assert said[-1] == f"dtk bench made-up: ended by {name} before anything was measured"
        assert not list(tmp_path.iterdir())
    else:
        kept = (
            f"ended by {name}; {tmp_path} keeps what was measured, and `dtk bench report {tmp_path}` makes the report"
        )
        assert said[-1] == f"dtk bench made-up: {kept}"
        whole = [] if at == "progress" else [block(0), {"kind": "end", "status": "complete"}]
        assert read_records(tmp_path)[1:] == whole


def test_a_result_of_another_benchmark_or_a_damaged_one(tmp_path):
    write(tmp_path, {**HEAD, "benchmark": "comm"}, block(0))
    with pytest.raises(UsageError, match="is of dtk bench comm; pass another --out, or --overwrite in the place"):
        resume.kept(tmp_path, {**HEAD, "benchmark": "launch"})
    (tmp_path / NAME).write_text('{"kind": "machine"}\n{"kind": \n{}\n')
    with pytest.raises(UsageError, match=r"results.jsonl is damaged: a line is not JSON \(Expecting value\)"):
        resume.kept(tmp_path, HEAD)


def test_an_out_that_is_empty():
    parser = Parser(prog="x")
    add_output(parser, "x")
    with pytest.raises(UsageError, match="argument --out: is empty; pass a folder"):
        parser.parse_args(["--out", ""])


def made_up(out, measure=None):
    """A benchmark that measures rounds 0 and 1."""

    def both(options, add, say, done):
        for number in range(next_round(done), 2):
            add(block(number))

    return Benchmark(
        "made-up",
        lambda argv: Options(out, "--resume" in argv, False, "--overwrite" in argv),
        lambda options: HEAD,
        lambda options: Progress(),
        measure or both,
        lambda records: ["# Made up", f"{len(records)} records"],
        len,
        lambda records: None,
        lambda records: [],
    )


def cut_off(options, add, say, done):
    add(block(0))
    raise Interrupted(15)


def test_what_is_not_finished_is_replaced_only_if_that_is_said(tmp_path, capsys):
    assert main(made_up(tmp_path, cut_off), []) == 143
    before = (tmp_path / NAME).read_text()
    capsys.readouterr()
    assert main(made_up(tmp_path), []) == 2
    assert capsys.readouterr().err == (
        f"dtk bench made-up: error: --out {tmp_path} holds an unfinished result of dtk bench made-up; --resume goes on "
        "with it, --overwrite begins anew in its place\n"
    )
    assert (tmp_path / NAME).read_text() == before
    assert (tmp_path / "report.md").exists()
    assert main(made_up(tmp_path), ["--overwrite"]) == 0
    assert read_records(tmp_path)[1:] == [block(0), block(1), {"kind": "end", "status": "complete"}]
    assert main(made_up(tmp_path), []) == 0, "what is complete is replaced"


@pytest.mark.parametrize("left", [[HEAD], [HEAD, {"kind": "setup"}, {"kind": "end", "status": "failed"}]])
def test_a_run_that_measured_nothing_is_replaced(tmp_path, left):
    write(tmp_path, *left)
    assert main(made_up(tmp_path), []) == 0


@pytest.mark.parametrize(("content", "code"), [("", 0), ("words\n", 2), ('{"mine": 1}\n', 2)])
def test_a_file_that_is_no_result_is_not_replaced_unless_it_is_empty(tmp_path, capsys, content, code):
    (tmp_path / NAME).write_text(content)
    assert main(made_up(tmp_path), []) == code
    if code:
        assert capsys.readouterr().err.endswith("; pass another --out, or --overwrite\n")
        assert (tmp_path / NAME).read_text() == content
        assert main(made_up(tmp_path), ["--overwrite"]) == 0


def test_reports_of_what_is_replaced_are_gone_from_the_start(tmp_path):
    assert main(made_up(tmp_path), []) == 0
    (tmp_path / "plot.svg").touch()
    (tmp_path / "drawn-by-hand.svg").touch()
    with open(tmp_path / "report.md", "a") as file:
        file.write("\n![what, over sizes](plot.svg)\n")
    seen = []

    def look(options, add, say, done):
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))

    assert main(made_up(tmp_path, look), []) == 0
    assert seen == ["drawn-by-hand.svg", NAME]


def test_a_report_of_nothing_measured_here_stays_until_it_is_replaced(tmp_path):
    (tmp_path / "report.md").write_text("mine ![my own](my.svg)\n")
    (tmp_path / "my.svg").touch()
    assert main(made_up(tmp_path, cut_off), []) == 143
    assert (tmp_path / "my.svg").exists()
    assert (tmp_path / "report.md").read_text().startswith("# Made up")


def test_an_out_whose_report_cannot_be_written(tmp_path, capsys):
    (tmp_path / "report.html").mkdir()
    assert main(made_up(tmp_path), []) == 2
    assert "report.html is a folder); pass another --out" in capsys.readouterr().err
    assert not (tmp_path / NAME).exists()


def test_going_on_and_beginning_anew_exclude_each_other():
    parser = Parser(prog="x")
    add_output(parser, "x")
    with pytest.raises(UsageError, match="--overwrite: not allowed with argument --resume"):
        parser.parse_args(["--resume", "--overwrite"])


@pytest.fixture
def elsewhere(monkeypatch):
    """As `dtk bench NAME --slurm` asks: for a machine with more cores, and nothing is to be started or written."""
    monkeypatch.setenv(CHECK, '{"cores": 64, "gpus": 0}')


def refuse(*given):
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("left", "argv", "said"),
    [
        ([HEAD, block(0)], [], "holds an unfinished result of dtk bench made-up; --resume goes on"),
        ([HEAD, block(0)], ["--resume"], ""),
        ([HEAD, block(0)], ["--overwrite"], ""),
        ([{**HEAD, "cores": 4, "torch": "3"}, block(0)], ["--resume"], ""),
        (
            [{**HEAD, "options": {"rounds": 9}}, block(0)],
            ["--resume"],
            "was measured with --models None, now mlp; --ro",
        ),
        ([{**HEAD, "benchmark": "comm"}, block(0)], ["--resume"], "is of dtk bench comm; pass another --out"),
        ([HEAD, block(0), {"kind": "end", "status": "complete"}], [], ""),
        ([], ["--resume"], "holds no results.jsonl"),
        ([], [], ""),
    ],
)
def test_what_is_in_out_is_found_before_the_queue(tmp_path, capsys, elsewhere, left, argv, said):
    out = tmp_path / "out"
    if left:
        write(out, {"benchmark": "made-up", **left[0]}, *left[1:])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(made_up(out, refuse), argv) == (2 if said else 0)
    told = capsys.readouterr()
    assert said in told.err
    assert said or json.loads(told.out)["out"] == str(out)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_out_whose_report_cannot_be_written_is_found_before_the_queue(tmp_path, capsys, elsewhere):
    (tmp_path / "report.md").mkdir()
    assert main(made_up(tmp_path, refuse), []) == 2
    assert "report.md is a folder); pass another --out" in capsys.readouterr().err


def test_what_a_library_that_is_missing_here_leaves_out_is_no_other_option(tmp_path, elsewhere):
    """The job's environment may have it."""
    write(tmp_path, {**HEAD, "benchmark": "checkpoint", "options": {"rounds": 3, "methods": ["a", "b"]}}, block(0))
    now = {"options": {"rounds": 3, "methods": ["a"]}}
    made = replace(made_up(tmp_path, refuse), name="checkpoint", describe=lambda options: now)
    assert main(made, ["--resume"]) == 0
