"""A start of a job that is over is not shown as running; runs by their names."""

import json
import os
import time
from dataclasses import replace
from functools import partial

import pytest
from dtk_launch import runs
from dtk_launch.job_record import JobRecord
from dtk_launch.jobref import JobRef
from dtk_launch.jobstatus import JobView, values, views_of, words
from dtk_launch.jobstatus import _table as table
from dtk_launch.schedulers.slurm_jobs import parse_jobs, parse_queue

NS = 1_000_000_000
SHOWN = """JobId=7 JobName=slow
   JobState={state} Reason=None Dependency=(null)
   Restarts={restarts} ExitCode=0:0 RunTime={ran} TimeLimit=00:10:00
   SubmitTime={submitted} StartTime={start}
   NodeList=n1
   NumNodes=1
"""


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - seconds))


def state_of(state, began=100, ran="00:01:40", restarts=0):
    (found,) = parse_jobs(
        SHOWN.format(state=state, ran=ran, restarts=restarts, submitted=stamp(300), start=stamp(began))
    )
    return found


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path):
    """A run whose last entry, of just now, says that it has been running for 100 seconds at 5 steps a second."""
    folder, now = tmp_path / "runs" / "slow", time.time()
    rank = {"rank": 0, "pid": 1, "state": "running", "steps": 50, "beat_ns": int(now * NS), "rate": 5.0}
    entry = {"host": "n1", "pid": os.getpid(), "state": "running", "launch": "a", "ranks": [rank]}
    times = {"time_ns": int(now * NS), "started_ns": int((now - 99) * NS)}
    put(folder / "nodes/0.json", entry | times)
    put(folder / "plan.json", {"name": "slow", "topology": {"nodes": 1, "nproc": 1}})
    put(folder / "goal.json", {"until": 1000, "from": 0, "time": now - 90})
    JobRecord("7", "", now - 300, "", "", "").write(folder)
    return folder


def view_of(run, state):
    (view,) = views_of(JobRef("7", run, JobRecord.read(run), (state,)))
    return view


def test_a_job_that_runs_has_a_pace_and_time_left(run):
    view = view_of(run, state_of("RUNNING"))
    assert (view.run.state, view.rate, view.left) == ("running", 5.0, 500.0)
    assert view.steps_left == 2500
    assert view.run.eta is not None


@pytest.mark.parametrize(
    ("state", "said"),  # the state is made when the test runs: a start of 20 seconds ago would else get older
    [
        (partial(state_of, "TIMEOUT"), ", and the scheduler says: timeout"),
        (partial(state_of, "CANCELLED"), ", and the scheduler says: cancelled"),
        (partial(state_of, "COMPLETING"), " yet, and the scheduler says: completing"),
        (partial(state_of, "PENDING", ran="00:00:00", restarts=1), ", and the scheduler says: pending"),
        (partial(state_of, "RUNNING", began=20, ran="00:00:20", restarts=1), ", and the job has started again"),
    ],
)
def test_a_start_that_is_over_has_none(run, state, said):
    state = state()
    view = view_of(run, state)
    assert (view.rate, view.steps_left, view.run.eta, view.step) == (None, None, None, 50)
    assert view.left == (580.0 if state.state == "running" else None)
    lines = words(view)
    assert lines[1] == f"run slow: dead: no end of its last start is on record{said}"
    assert lines[3] == "step 50"
    assert "steps/s" not in " ".join(lines)
    assert values(view)["run"]["ranks"][0]["rate"] is None
    assert (view.run.seconds is not None) == state.over


def test_an_end_that_is_on_record_stays(run):
    entry = json.loads((run / "nodes/0.json").read_text())
    put(run / "nodes/0.json", entry | {"state": "ended", "exit_code": 75})
    assert view_of(run, state_of("PENDING", ran="00:00:00", restarts=1)).run.state == "preempted"
    assert view_of(run, state_of("RUNNING", began=20, restarts=1)).run.state == "preempted"


@pytest.mark.parametrize(
    ("restarts", "said"), [(0, ": the --begin that was asked for"), (2, ": SLURM keeps a requeued job for two minutes")]
)
def test_why_a_job_may_not_begin_yet(restarts, said):
    text = SHOWN.format(state="PENDING", ran="00:00:00", restarts=restarts, submitted=stamp(9), start=stamp(-60))
    (state,) = parse_jobs(text.replace("Reason=None", "Reason=BeginTime"))
    assert state.why == f"it may not start before {stamp(-60).replace('T', ' ')}{said}"
    (queued,) = parse_queue("7|PENDING|BeginTime|0:00|5:00|1||N/A|N/A|/w/job.sbatch\n")
    assert "asked for, or SLURM keeps" in queued.why


def test_how_many_nodes_a_job_waits_for(tmp_path):
    lines = {"1": "job 7: pending", "1-1": "job 7: pending", "2-3": "job 7: pending, 2 to 3 nodes"}
    for text, line in (lines | {"3-3": "job 7: pending, 3 nodes", "1-3": "job 7: pending, 1 to 3 nodes"}).items():
        (found,) = parse_jobs(
            SHOWN.format(state="PENDING", ran="00:00:00", restarts=0, submitted="", start="")
            .replace("NumNodes=1", f"NumNodes={text}")
            .replace("NodeList=n1", "NodeList=(null)")
        )
        assert words(JobView("7", tmp_path, found, None))[0] == line


def test_a_long_reason_is_the_last_column(run, capsys):
    state = replace(state_of("PENDING"), reason="ReqNodeNotAvail, UnavailableNodes:" + "n1," * 80)
    task = run.parent / "sw" / "task-1"
    swept = JobView("8_1", task, state_of("RUNNING"), None, sweep="--lr=0.1")
    table([JobView("7", run, state, None), swept], as_json=False)
    head, waits, runs_now = capsys.readouterr().out.splitlines()
    assert head.split()[-3:] == ["metric", "swept", "why"]
    assert waits.endswith(state.reason)
    assert runs_now.split()[:2] == ["8_1", "sw/task-1"]
    assert runs_now.endswith("  -       --lr=0.1")


def test_the_list_of_runs_has_the_tasks_of_arrays_by_their_number(run, capsys):
    for number in (10, 2, 0):
        task = run.parent / "sw" / f"task-{number}"
        started = int((time.time() - 50 * (number != 10)) * NS)
        put(task / "plan.json", {"name": f"sw-{number}", "topology": {"nodes": 1, "nproc": 1}})
        put(task / "nodes/0.json", {"host": "n", "state": "ended", "started_ns": started, "exit_code": 0})
    (run.parent / "sw" / "task-x").mkdir()
    runs.show(run.parent, given=False, as_json=False)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["run", "sw/task-0", "sw/task-2", "sw/task-10", "slow"]
