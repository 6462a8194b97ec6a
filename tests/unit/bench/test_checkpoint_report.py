import pytest
from bench_parts import markdown
from checkpoint_parts import report as made
from checkpoint_parts.terminal import show

from tests.unit.bench.checkpoint_records import CHECKPOINT, SETUP, phase, run


def render(records):
    return markdown.text(made.render(records))


def measured(status="complete"):
    """Two methods and a copy, twelve rounds."""
    return run(
        phase("memcpy", "copy", [9] + [100] * 12),
        phase("plain", "save", [9] + [800, 1600] * 6),
        phase("plain", "load", [9] + [200] * 12),
        phase("dtk", "save", [9] + [1000, 2000] * 6),
        phase("dtk", "load", [9] + [250] * 12),
        phase("dtk-background", "save", [9] + [1100] * 12, [9] + [120] * 12),
        status=status,
    )


def test_the_whole_report(golden):
    golden("bench/checkpoint.md", render(measured()))


def test_a_method_that_gave_other_bytes_is_the_first_thing_said(capsys):
    bad = phase("torch.save", "load", [1, 20])
    bad[1]["same"] = False
    records = run(phase("plain", "load", [1, 20]), bad)
    report = render(records)
    assert report.index("**torch.save did not give back what was saved (large).**") < report.index("## large")
    assert "| **other** |" in report
    show(records)
    assert "other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "words"),
    [("interrupted", "was interrupted"), ("failed", "failed"), (None, "did not finish")],
)
def test_a_run_that_did_not_complete_says_so(status, words):
    assert f"**The run {words}.**" in render(measured(status))


def test_what_was_not_measured_has_no_table(capsys):
    records = run(phase("plain", "save", [1, 20]))
    report = render(records)
    show(records)
    assert "Load" not in report.partition("## How")[0]
    assert "In the background" not in report
    assert "A cold disk" not in report
    assert "there were only 1 round, and a 95 % interval takes 6." in report
    assert "plain" in capsys.readouterr().out


def test_a_cold_load_says_what_it_is():
    report = render(run(phase("plain", "cold", [1, 20]), phase("dtk", "cold", [1, 25])))
    assert "- large: dist_toolkit reads from the disk at 0.80 (1 round) of the bare files' rate." in report
    assert "- A cold disk: files are dropped from this system's memory alone" in report


def test_what_was_left_out_and_a_busy_machine_are_named():
    left_out = {"kind": "left_out", "method": "fabric", "why": "lightning is not installed"}
    busy = phase("plain", "save", [1, 1000], others_cpu_seconds=0.5)
    report = render([*run(busy), left_out])
    assert "- Left out: fabric (lightning is not installed)." in report
    assert "kept 0.50 cores busy" in report
    assert "A quiet machine" not in render(measured())


def test_nothing_measured_says_so():
    assert "Nothing was measured." in render([CHECKPOINT, SETUP, {"kind": "end", "status": "failed"}])
    quick = {**CHECKPOINT, "options": {**CHECKPOINT["options"], "quick": True}}
    assert "the times mean nothing" in render([quick, *measured()[1:]])
