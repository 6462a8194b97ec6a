"""What is decided about the end of a run: the signal, the grace, torchrun's part; and who has left before the end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from dtk_launch.diagnose.evidence import RankEnd
from dtk_launch.durations import parse_seconds
from dtk_launch.early import stopped_early
from dtk_launch.errors import PlanError
from dtk_launch.grace import Stop, stop_words
from dtk_launch.options import LaunchOptions
from dtk_launch.outcome import decide
from dtk_launch.plan import Target
from dtk_launch.preempt_report import LOST, Report, resumed_step, seconds_to_return, words
from dtk_launch.progress import Line, Place, Progress
from dtk_launch.ranks import RankWatch
from dtk_launch.stopping import Stopping, hold_after
from dtk_launch.torchrun import render


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("20s", 20), ("2m", 120), ("1h", 3600), ("7", 7), ("1.5s", 1.5)]
)
def test_a_length_of_time(text, seconds):
    assert parse_seconds("--grace", text) == seconds


@pytest.mark.parametrize("text", ["0", "-1s", "20 s", "s", "1d", "nan", "inf", "1e3", "5sec"])
@pytest.mark.parametrize("option", ["grace", "preempt_test"])
def test_a_length_of_time_that_is_none(plan, option, text):
    with pytest.raises(PlanError, match="is no length of time; pass for example 500ms"):
        plan(**{option: text})


def test_the_signal_is_known_and_a_test_is_of_one_node(plan, facts, step):
    assert plan(preempt_signal="SIGusr1").stop.signal == "USR1"
    with pytest.raises(
        PlanError, match=r"--preempt-signal=KILL \(flag --preempt-signal\): unknown signal 'KILL'; known"
    ):
        plan(preempt_signal="KILL")
    with pytest.raises(PlanError, match="--preempt-test=20s is for one node, but this is a launch on 2"):
        plan(on=facts(allocation=step), preempt_test="20s")


@pytest.mark.parametrize(
    ("torch", "grace", "flag", "held"),
    [
        ("2.14.1", "30s", None, 0.3),
        ("2.14.1", "5s", None, 0.3),
        ("2.12.0", "90.5s", "92", 0.3),
        ("2.11.0+cu130", "90s", None, 61),  # it kills 30 s after it is told to wait
        ("2.11.0", "20s", None, 0.3),
    ],
)
def test_torchrun_waits_as_long_as_the_grace_where_it_can_be_told(plan, facts, torch, grace, flag, held):
    planned = plan(on=facts(torch_version=torch), grace=grace)
    argv = render(planned).argv
    found = argv[argv.index("--shutdown-timeout") + 1] if "--shutdown-timeout" in argv else None
    assert (found, hold_after(planned.stop)) == (flag, held)
    (row,) = (decision for decision in planned.decisions if decision.key == "grace")
    assert ("kills what is left 30 s after the end of the first rank" in row.why) == (held > 1)


def test_a_submitted_job_is_told_what_is_not_the_default():
    assert stop_words(LaunchOptions(script="t.py")) == []
    asked = LaunchOptions(script="t.py", preempt_signal="sigusr1", grace="80s", preempt_test="1m")
    assert stop_words(asked) == ["--preempt-signal", "USR1", "--grace", "80s", "--preempt-test", "1m"]


def ended(code):
    return RankEnd(0, "0", "h", 1, 0, code)


@pytest.mark.parametrize(
    ("code", "signalled", "ends", "stopped", "expected"),
    [
        (1, signal.SIGTERM, [0, 0], "Trainer saved", 75),
        (0, signal.SIGTERM, [0, 0], "Trainer saved", 75),
        (1, signal.SIGTERM, [0, 0], "", 0),
        (1, signal.SIGTERM, [0, 1], "Trainer saved", 143),  # one failed: nobody knows what the other has
        (1, signal.SIGTERM, [0], "Trainer saved", 143),  # one was killed
        (1, signal.SIGUSR1, [75, 75], "", 75),
        (1, signal.SIGUSR1, [75, 137], "", 138),
    ],
)
def test_the_exit_code_of_a_run_that_was_told_to_stop(code, signalled, ends, stopped, expected):
    assert decide(code, signalled, [ended(end) for end in ends], 2, early=stopped).code == expected


@pytest.mark.parametrize(
    ("folder", "args"),
    [("out", ("--output_dir", "out")), ("a/b", ("--output_dir=a/b",)), ("trainer_output", ()), (".", ("--x", "\0"))],
)
def test_what_a_trainer_says_of_itself(tmp_path, folder, args):
    target = Target("train.py", args, False)

    def save(step, steps, time_ns):
        path = tmp_path / folder / f"checkpoint-{step}" / "trainer_state.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"global_step": step, "max_steps": steps}))
        os.utime(path, ns=(time_ns, time_ns))

    assert stopped_early(target, tmp_path, [], 50) == ""
    save(20, 100, 40)
    assert stopped_early(target, tmp_path, [], 50) == ""  # before the notice
    save(9, 100, 60)
    assert "saved step 9 of 100" in stopped_early(target, tmp_path, [], 50)
    save(100, 100, 70)
    assert stopped_early(target, tmp_path, [], 50) == ""  # it has come to its end meanwhile


def test_what_the_run_directory_shows(tmp_path, plan):
    planned = plan(run_dir=str(tmp_path))
    (tmp_path / "ranks").mkdir()
    progress = Progress(planned, tmp_path)
    assert (progress.place(), progress.saved(), progress.lines(Place(0, 0))) == (Place(0, 0), None, [])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 5.0}\nnonsense\n')
    (tmp_path / "ranks/0.err").write_text("restored step 3 from there\n")
    place = progress.place()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "time": 6.5, "loss": null}\n{"step": 9, "ti')
    assert (progress.lines(place), progress.restored(place)) == ([Line(8, 6.5)], None)
    assert progress.restored(Place(0, 0)) == 3
    for name in ("step-00000007/manifest.json", "step-00000009.tmp/manifest.json", "step-00000011/rank-0"):
        (tmp_path / "checkpoints" / name).parent.mkdir(parents=True)
        (tmp_path / "checkpoints" / name).touch()
    assert progress.saved() == 7


LINES = [Line(4, 10.0), Line(5, 11.0), Line(6, 12.0)]


@pytest.mark.parametrize(
    ("said", "lines", "last", "resumed"),
    [(3, [], 3, 3), (None, LINES, 9, 3), (None, [Line(10, 1), Line(20, 2)], 9, None), (None, LINES[:1], 3, 3)],
)
def test_the_step_that_a_run_went_on_from(said, lines, last, resumed):
    assert resumed_step(said, lines, last) == resumed


IGNORES = """
import signal, subprocess, sys, time
for name in sys.argv[2:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) if sys.argv[1] == "1" else None
print(child.pid if child else 0, flush=True)
time.sleep(60)
"""


@pytest.fixture
def asked_to_end(tmp_path, plan):
    """A function that starts a process in torchrun's place and tells dtk to end it; a rank begins after that."""
    started = []

    def begin(ignored, rank):
        (tmp_path / "ranks").mkdir()
        command = [sys.executable, "-c", IGNORES, str(int(rank)), *ignored]
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(agent)
        child = int(agent.stdout.readline())
        watch = RankWatch(tmp_path / "ranks", "h:1", 1, one_node=True)
        stopping = Stopping(plan(grace="60s").stop, watch, 1, lambda: "")
        stopping.take(signal.SIGINT, agent.pid)
        if child:
            entry = {"rank": 0, "local_rank": 0, "pid": child, "host": "h", "restart": 0, "supervisor": "h:1"}
            (tmp_path / "ranks/0.json").write_text(json.dumps(entry | {"started_ns": time.time_ns()}))
        while agent.poll() is None and child not in watch.ended:
            watch.poll()
            stopping.look(agent.pid, lambda: False)
            time.sleep(0.02)
        watch.close()
        return agent.poll(), child in watch.ended

    yield begin
    for agent in started:
        agent.kill()
        agent.wait()
        agent.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds")
@pytest.mark.parametrize(
    ("ignored", "rank", "ended"),
    [
        (["SIGINT"], False, (-signal.SIGTERM, False)),  # as an import can do with a KeyboardInterrupt
        (["SIGINT", "SIGTERM"], False, (-signal.SIGKILL, False)),
        (["SIGTERM"], True, (None, True)),  # the rank that began too late to be seen is told
    ],
)
def test_a_torchrun_without_ranks_ends_whatever_becomes_of_a_ctrl_c(asked_to_end, ignored, rank, ended):
    assert asked_to_end(ignored, rank) == ended


def test_what_was_lost():
    assert (seconds_to_return(LINES, 5, 9.5), seconds_to_return(LINES, 6, 9.5)) == (2.5, None)
    whole = Report(75, 8, 9, 9, 9, 1.0, 2.5, 0)
    assert (whole.lost_steps, whole.code, words(whole)[-1]) == (0, 0, "lost: nothing")
    some = Report(75, 8, 9, 5, 5, 1.0, None, 0)
    assert (some.lost_steps, some.code, words(some)[-1]) == (4, LOST, "lost: 4 steps")
    unknown = Report(75, None, None, None, None, 1.0, None, 0)
    assert (unknown.lost_steps, unknown.code, "lost: unknown" in words(unknown)[-1]) == (None, LOST, True)
    counted = Report(75, None, None, None, None, 1.0, None, 0, 40, 42, 60)
    said = "optimizer steps that dtk has counted: 40 by the notice, 42 by the end, 60 after the second start"
    assert (counted.lost_steps, words(counted)[-2]) == (None, said)
    assert "steps that dtk" not in str(words(Report(75, 8, 9, 9, 9, 1.0, 2.5, 0, 40, 42, 60)))
    assert "counted: 0 by the notice, 1 by the end" in words(Report(143, seconds_to_end=1.0, counted_at_end=1))[-2]
    failed = Report(75, 8, 9, 9, 9, 1.0, 2.5, 1)
    assert (failed.code, "ended with 1" in words(failed)[-2]) == (1, True)
    not_saved = Report(143, 8, 9, None, None, 0.1)
    assert (not_saved.code, "ended with 143 0.1 s after the notice, not with 75" in words(not_saved)[0]) == (LOST, True)
    assert words(not_saved)[-1].startswith("work was lost, or nothing shows that none was")
    for code in (143, 75):  # while the script imports; before the loop of a checkpointer
        early = Report(code, seconds_to_end=0.1, second_exit_code=0 if code == 75 else None, steps_seen=False)
        assert (early.code, "before the first step" in words(early)[-1]) == (LOST, True)
        assert "pass a longer time" in words(early)[-1]
        assert "lost, or" not in str(words(early))


def test_the_decision_is_part_of_the_plan(plan):
    assert plan().stop == Stop("", 30.0, 30)
