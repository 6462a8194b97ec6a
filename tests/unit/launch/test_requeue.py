"""When a job goes back into its queue, and when it is told that its time is up."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from dtk_launch import controller
from dtk_launch.errors import PlanError
from dtk_launch.job_record import JobRecord
from dtk_launch.jobs import build_job
from dtk_launch.notice import notice
from dtk_launch.options import SubmitOptions
from dtk_launch.requeue import Attempt, Decision, JobState, decide, line_of, read_attempts, read_job, stalled
from dtk_launch.schedulers.slurm import Slurm
from hypothesis import given
from hypothesis import strategies as st

RUNNING = JobState("RUNNING", "None", 0, preempted=False)
ENDING = replace(RUNNING, state="COMPLETING")
TIME_IS_UP = replace(ENDING, reason="TimeLimit")
ASKED_BACK = replace(RUNNING, preempted=True)
SAVED = Attempt("7", 0, 75, None, 10, requeued=False, time=0.0)
STALLED = Attempt("7", 0, 75, 10, 10, requeued=True, time=0.0)


@pytest.mark.parametrize(
    ("code", "job", "told", "again"),
    [
        (75, RUNNING, False, True),
        (75, RUNNING, True, True),
        (75, TIME_IS_UP, True, True),  # without a notice; SLURM 22.05 takes it
        (75, replace(RUNNING, state="SIGNALING"), False, True),  # while a signal of SLURM is on its way
        (75, replace(ASKED_BACK, state="SIGNALING"), False, True),
        (75, replace(RUNNING, state="RESIZING"), False, True),  # it has just lost a node
        (75, ASKED_BACK, False, True),  # the script's end in the grace would be the job's
        (75, ENDING, True, False),  # cancelled
        (75, replace(ENDING, restarts=1), True, False),  # SLURM has requeued it itself
        (75, replace(ENDING, preempted=True), True, False),  # cancelled in its grace
        (75, replace(ENDING, preempted=True, at_once=True), True, True),  # its site cancels what is preempted
        (143, replace(ENDING, preempted=True, at_once=True), True, True),
        (75, None, False, True),
        (75, None, True, False),
        (143, ASKED_BACK, False, True),  # preempted before there was anything to save
        (0, ASKED_BACK, False, False),
        (0, RUNNING, False, False),
        (1, RUNNING, False, False),
        (143, RUNNING, False, False),
        (143, TIME_IS_UP, True, False),
        (1, None, False, False),
    ],
)
def test_which_jobs_go_back(code, job, told, again):
    assert decide(replace(SAVED, exit_code=code), job, told, [], 3).requeue == again


def test_a_job_that_loses_nodes_again_and_again_without_a_new_checkpoint_ends():
    """Its script may be what brings them down."""
    now = replace(STALLED, exit_code=69, requeued=False)
    known = [replace(now, requeued=True, lost=("n1",))] * 2
    assert decide(now, RUNNING, False, known[:1], 3, ("n2",)) == Decision(True, "n2 is lost; it is requeued")
    assert not decide(now, RUNNING, False, known, 3, ("n2",)).requeue
    assert "no new checkpoint in 3 starts" in decide(now, RUNNING, False, known, 3, ("n2",)).why
    assert decide(replace(now, saved=20), RUNNING, False, known, 3, ("n2",)).requeue
    assert not decide(now, ENDING, False, [], 3, ("n2",)).requeue, "cancelled"
    assert read_attempts("".join(map(line_of, known)), "7") == known


@pytest.mark.parametrize(
    ("earlier", "most", "again"),
    [
        ([], 1, False),
        ([], 2, True),
        ([STALLED], 2, False),
        ([STALLED, STALLED], 3, False),
        ([STALLED, STALLED], 4, True),
        ([STALLED, STALLED, SAVED], 2, True),  # progress begins the count anew
        ([replace(STALLED, requeued=False)] * 5, 2, True),  # SLURM's own requeues do not count
    ],
)
def test_it_is_not_requeued_for_ever(earlier, most, again):
    decision = decide(STALLED, RUNNING, False, earlier, most)
    assert decision.requeue == again
    assert ("no new checkpoint in" in decision.why) != again


def test_what_is_preempted_is_not_at_fault():
    assert decide(STALLED, ASKED_BACK, False, [STALLED] * 9, 3).requeue


@given(st.lists(st.booleans(), max_size=12))
def test_the_count_is_of_the_last_starts_in_a_row(advances):
    attempts = [SAVED if advance else STALLED for advance in advances]
    last = advances[::-1].index(True) if True in advances else len(advances)
    assert stalled(attempts) == last


SHOWN = """JobId=7 JobName=a b Requeue=1 JobState=PENDING
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0
   StartTime=2026-11-23T01:00:00 EndTime={end} Deadline=N/A
   PreemptEligibleTime=2026-11-23T01:00:00 PreemptTime={time}
   Command=/a b/Restarts=9 JobState=FAILED/job.sbatch
   SubmitLine=sbatch --comment JobState=FAILED /a b/job.sbatch
   Comment=it was JobState=COMPLETING Restarts=7
"""


@pytest.mark.parametrize(
    ("time", "end", "preempted", "at_once"),
    [
        ("None", "2026-11-24T01:00:00", False, False),
        ("2026-11-23T01:00:09", "2026-11-23T01:05:09", True, False),  # a grace of five minutes
        ("2026-11-23T01:00:09", "2026-11-23T01:00:09", True, True),
        ("2026-11-23T23:59:59", "2026-11-24T00:00:00", True, True),
        ("2026-11-22T23:00:00", "2026-11-24T01:00:00", False, False),  # of an earlier start
        ("2026-11-22T23:00:00", "2026-11-22T23:00:00", False, False),
        ("00:00:09", "Unknown", False, False),
    ],
)
def test_what_scontrol_shows(time, end, preempted, at_once):
    assert read_job(SHOWN.format(time=time, end=end)) == JobState("RUNNING", "None", 2, preempted, at_once)


def test_what_it_cannot_show():
    assert read_job("slurm_load_jobs error: Invalid job id specified") is None


@given(st.lists(st.sampled_from([SAVED, STALLED, replace(SAVED, job="8")])), st.integers(0, 40))
def test_attempts_are_read_back_but_for_one_that_was_cut_short(attempts, cut):
    text = "".join(map(line_of, attempts)) + line_of(SAVED)[:cut]
    assert read_attempts(text, "7") == [attempt for attempt in attempts if attempt.job == "7"]


def options(**given):
    return SubmitOptions(**{"script": "train.py"} | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "USR1@60"),
        ({"time": "1-00:00:00"}, "USR1@60"),
        ({"grace": "5m"}, "USR1@330"),
        ({"time": "1"}, "USR1@30"),
        ({"time": "00:00:40"}, "USR1@30"),  # SLURM rounds it up to a minute
        ({"time": "2", "grace": "100s"}, "USR1@100"),
        ({"time": "UNLIMITED"}, "USR1@60"),
        ({"time": "0"}, "USR1@60"),  # no limit either
        ({"sbatch": ("signal=USR1@20",)}, ""),  # which starts no grace
        ({"sbatch": ("signal=R:SIGTERM@90",)}, ""),
        ({"sbatch": ("signal=15",)}, ""),
        ({"plain": True}, ""),
    ],
)
def test_the_notice(given, expected):
    assert notice(options(**given)) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time": "5", "grace": "5m"}, "--grace=5m is 300 s before the end, but --time=5 is only 300 s in all"),
        ({"sbatch": ("signal=TERM@20",)}, "--grace=30s lets the ranks take longer; pass signal=TERM@60"),
        ({"sbatch": ("signal=USR1@20",), "preempt_signal": "TERM"}, "--grace=30s lets the ranks take longer"),
        ({"sbatch": ("signal=TERM@600",), "time": "5"}, "--sbatch signal=TERM@600 is 600 s before the end"),
        ({"sbatch": ("signal=B:USR1@90",)}, "leave out the B:"),
        ({"sbatch": ("signal=ALRM@90",)}, "would end dtk without a save; pass one of TERM"),
        ({"sbatch": ("signal=@",)}, "none that sbatch can read"),
    ],
)
def test_a_notice_that_would_not_help(given, words):
    with pytest.raises(PlanError) as caught:
        notice(options(**given))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"no_requeue": True, "max_stalls": 5}, "--max-stalls=5 bounds the requeues, but --no-requeue"),
        ({"plain": True, "max_stalls": 5}, "--plain leaves the nodes to torchrun, but --max-stalls=5"),
        ({"sbatch": ("no-requeue",)}, "pass --no-requeue"),
    ],
)
def test_options_that_contradict_each_other(facts, given, words):
    with pytest.raises(PlanError) as caught:
        build_job(options(**given), facts())
    assert words in str(caught.value)


def test_without_requeue_nothing_stands_before_srun(facts):
    text = Slurm().render(build_job(options(no_requeue=True), facts()))
    assert "#SBATCH --no-requeue\n" in text
    assert "batch-step" not in text
    assert "\nexec srun " in text


SCONTROL = """#!/bin/sh
echo "$@" >> calls
[ -e away ] && [ "$(wc -l <calls)" -lt "$(cat away)" ] && {
  echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1; }
[ "$1" = requeue ] && [ -e refuses ] && { echo "Requested operation is presently disabled" >&2; exit 1; }
echo "JobId=1 JobState=RUNNING Reason=None Restarts=0 StartTime=2026-11-23T01:00:00 PreemptTime=None"
"""
RANKS = "import pathlib; pathlib.Path('run/checkpoints/step-00000004').mkdir(parents=True); " + (
    "pathlib.Path('run/checkpoints/step-00000004/manifest.json').touch(); raise SystemExit({code})"
)


@pytest.fixture
def batch(tmp_path):
    """A function that runs batch-step before a command, with a scontrol that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(SCONTROL)
    (tmp_path / "bin/scontrol").chmod(0o755)
    (tmp_path / "run").mkdir()

    def run(*command, **environ):
        known = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "DTK_"))}
        known |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"} | environ
        words = [sys.executable, "-m", "dtk_launch", "batch-step", "--run-dir", "run", "--max-stalls", "3", "--"]
        return subprocess.run([*words, *command], cwd=tmp_path, env=known, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({"SLURM_JOB_ID": "9"}, "9"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, "7_0"),
    ],
)
def test_the_right_job_is_requeued(batch, tmp_path, environ, job):
    done = batch(sys.executable, "-c", RANKS.format(code=75), **environ)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == f"dtk: job {job}: ended to go on later, at step 4; it is requeued\n"
    assert (tmp_path / "calls").read_text() == f"show job {job}\nrequeue {job}\n"
    (line,) = (tmp_path / "run/requeues.jsonl").read_text().splitlines()
    assert json.loads(line) | {"time": 0} == {
        "job": job, "restart": 0, "exit_code": 75, "began_at": None, "saved": 4, "requeued": True, "time": 0,
        "lost": [],
    }  # fmt: skip


@pytest.mark.parametrize(("code", "exit_code"), [("0", 0), ("3", 3), ("__import__('os').kill(0, 9)", 137)])
def test_other_ends_are_passed_on(batch, tmp_path, code, exit_code):
    command = ("setsid", sys.executable, "-c", RANKS.format(code=code))
    done = batch(*command, SLURM_JOB_ID="9")
    assert (done.returncode, done.stderr) == (exit_code, "")
    assert not (tmp_path / "calls").exists() or "requeue" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("environ", "to_go_on"),
    [
        ({}, "sbatch run/job.sbatch"),
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "sbatch --array=3 ./job.sbatch"),  # not all tasks
    ],
)
def test_a_refusal_says_how_to_go_on(batch, tmp_path, environ, to_go_on):
    (tmp_path / "refuses").touch()
    done = batch(sys.executable, "-c", RANKS.format(code=75), SLURM_JOB_ID="9", **environ)
    assert done.returncode == 75
    assert done.stderr.endswith(
        f"scontrol requeue was refused: Requested operation is presently disabled; to go on: {to_go_on}\n"
    )


@pytest.mark.parametrize(
    ("recorded", "environ", "expected"),
    [
        ("5", {}, ("9", "slurm-9.out")),  # sbatch by hand, as dtk itself advises
        ("9", {}, ("9", "slurm-9.out")),
        ("12", {}, ("12", "slurm-12.out")),  # dtk submit has made a later one
        ("5", {"SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}, ("8", "slurm-8_*.out")),
    ],
)
def test_a_job_that_was_submitted_by_hand_has_the_run_directory(batch, tmp_path, recorded, environ, expected):
    array = "1-3" if environ else ""
    folder = tmp_path if array else tmp_path / "run"  # `run` stands for task-3
    log = f"/l/slurm-{recorded}_*.out" if array else f"/l/slurm-{recorded}.out"
    JobRecord(recorded, "", 1.0, log, "/s", array).write(folder)
    batch("true", SLURM_JOB_ID="9", **environ)
    record = JobRecord.read(folder)
    assert (record.job_id, record.log.removeprefix("/l/")) == expected
    assert (record.submitted > 1.0) == (expected[0] not in (recorded, "12"))
    assert record.array == array


def test_a_line_that_was_cut_short_takes_none_along(batch, tmp_path):
    (tmp_path / "run/requeues.jsonl").write_text('{"job": "9", "rest')
    batch("true", SLURM_JOB_ID="9")
    assert len(read_attempts((tmp_path / "run/requeues.jsonl").read_text(), "9")) == 1


def test_what_is_not_known_is_not_said():
    assert "was cancelled" in decide(SAVED, ENDING, True, [], 3).why
    assert "SLURM has ended the job and does not say why" in decide(SAVED, None, True, [], 3).why


@pytest.mark.parametrize("away", [1, 9, 10, 11])
def test_a_controller_that_is_away_is_waited_for(tmp_path, batch, monkeypatch, capsys, away):
    """Nine questions without an answer; the job's state and the requeue need one each."""
    (tmp_path / "away").write_text(str(away))
    monkeypatch.setattr(controller, "_PAUSES", (0.01,) * 9)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert (controller.job_state("9") == RUNNING) == (away < 11)
    (tmp_path / "calls").unlink()
    assert (controller.requeue("9") == "") == (away < 11)
    assert (tmp_path / "calls").read_text().count("requeue 9") == min(10, away)


def test_outside_a_job_and_without_srun(batch):
    assert batch("true").returncode == 0
    done = batch("no-such-srun", SLURM_JOB_ID="9")
    assert (done.returncode, done.stderr) == (127, "dtk: no-such-srun cannot be run: No such file or directory\n")
