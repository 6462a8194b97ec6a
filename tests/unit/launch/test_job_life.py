"""What SLURM says of jobs, read and put in words; job ids; job.json."""

import json
import time
from dataclasses import replace

import pytest
from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.job_record import JobRecord
from dtk_launch.joblogs import Following
from dtk_launch.jobref import JobNotFound, JobRef, find_job, of_states
from dtk_launch.jobstatus import JobView, values, words
from dtk_launch.runview import read_run
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.schedulers.slurm_jobs import parse_jobs, parse_queue
from dtk_launch.schedulers.slurm_reasons import reason_words
from hypothesis import given
from hypothesis import strategies as st

# As `scontrol show job` of 22.05 prints it, shortened.
SHOWN = """JobId={id} ArrayJobId=6 ArrayTaskId={task} JobName=my run=1
   UserId=ann(1000) GroupId=ann(1000) MCS_label=N/A
   Priority=4294901754 Nice=0 Account=(null) QOS=(null)
   JobState={state} Reason={reason} Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=3:0
   RunTime=1-00:00:05 TimeLimit=UNLIMITED TimeMin=N/A
   SubmitTime=2026-11-23T01:36:32 EligibleTime=2026-11-23T01:36:33
   StartTime=2026-11-23T01:36:51 EndTime=2026-11-23T01:36:56 Deadline=N/A
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList={nodes}
   NumNodes=1-1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   Command={folder}/job.sbatch
   WorkDir=/home/ann/my project
   StdOut=/home/ann/my project/slurm-6_{task}.out
   Power=

"""


def shown(folder="/home/ann/my project/runs/a", task="3", state="RUNNING", reason="None", nodes="n2", job=10):
    return SHOWN.format(id=job, task=task, state=state, reason=reason, nodes=nodes, folder=folder)


def test_an_array_as_scontrol_shows_it():
    pending = shown(task="4-9%2", state="PENDING", reason="JobArrayTaskLimit", nodes="", job=6)
    jobs = parse_jobs(pending + shown() + shown(task="1", state="FAILED", reason="NonZeroExitCode"))
    assert [(job.id, job.state, job.over) for job in jobs] == [
        ("6_1", "failed", True),
        ("6_3", "running", False),
        ("6_[4-9%2]", "pending", False),
    ]
    assert str(jobs[1].script) == "/home/ann/my project/runs/a/job.sbatch"
    assert (jobs[1].ran, jobs[1].limit, jobs[1].nodes, jobs[1].hosts) == (86405, None, 1, "n2")
    assert (jobs[1].restarts, jobs[1].exit_code, jobs[1].user) == (2, "3:0", "ann")
    assert jobs[1].log == "/home/ann/my project/slurm-6_3.out"
    assert jobs[1].submitted == time.mktime(time.strptime("2026-11-23 01:36:32", "%Y-%m-%d %H:%M:%S"))
    assert (jobs[2].ran, jobs[2].hosts, "as many tasks" in jobs[2].why) == (None, "", True)


def test_what_a_user_may_write_into_a_job_is_not_taken_for_its_state():
    words = "   Comment=it was JobState=FAILED Restarts=9 StdOut=/x NodeList=n9 Dependency=z\n"
    newer = "   SubmitLine=sbatch --comment JobState=FAILED /home/ann/job.sbatch\n"  # of SLURM 24
    (job,) = parse_jobs(shown().rstrip() + "\n" + words + newer)
    assert (job.state, job.restarts, job.hosts, job.reason) == ("running", 2, "n2", "")
    assert job.log == "/home/ann/my project/slurm-6_3.out"


def test_numbers_of_nodes_that_slurm_shortens():
    (job,) = parse_jobs(shown().replace("NumNodes=1-1", "NumNodes=1K"))
    (queued,) = parse_queue("2|RUNNING|None|0:32|5:00|2.5K|n[1-2560]|N/A|N/A|/w/job.sbatch\n")
    assert (job.nodes, queued.nodes) == (1024, 2560)


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("slurm_load_jobs error: Invalid job id specified", True),
        ("Job 123_9 not found", True),  # of an array that is there
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", False),
    ],
)
def test_a_job_that_is_not_there_and_a_controller_that_is_not(words, gone):
    assert Slurm().not_there(words) == gone


def test_reasons_with_blanks_and_those_that_a_cancelled_job_keeps():
    (job,) = parse_jobs(shown(state="PENDING", reason="ReqNodeNotAvail, UnavailableNodes:n[1-2]"))
    assert (job.reason, "sinfo -R" in job.why) == ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", True)
    (job,) = parse_jobs(shown(state="PENDING", reason="launch failed requeued held"))
    assert "scontrol release 6_3" in job.why
    (job,) = parse_jobs(shown(state="CANCELLED", reason="Priority"))
    assert (job.reason, job.why, job.over) == ("", "", True)


def test_a_queue_of_which_a_line_is_not_understood():
    text = (
        "14_[2-5%2]|PENDING|JobArrayTaskLimit|0:00|10:00|1||N/A|2026-11-23T01:38:57|(null)\n"
        "a banner of the site\n"
        "2|COMPLETED|None|0:32|5:00|2|n[1-2]|2026-11-23T01:36:32|2026-11-23T01:36:31|/w/a|b/job.sbatch\n"
    )
    done, waits = parse_queue(text)
    assert (done.id, done.ran, done.limit, str(done.script)) == ("2", 32, 300, "/w/a|b/job.sbatch")
    assert (waits.id, waits.script, waits.start, waits.ran) == ("14_[2-5%2]", None, "", None)


@given(st.text(), st.sampled_from(["", "JobId=1 JobState=", "JobId=1 ArrayTaskId=2 JobState=X "]))
def test_nothing_that_a_scheduler_prints_is_a_traceback(text, start):
    parse_jobs(start + text)
    parse_queue(text)
    reason_words(text, "1")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Priority", "higher priority"),
        ("Resources", "until nodes are free"),
        ("BeginTime", "before 12:00"),
        ("Dependency", "afterok:8"),
        ("DependencyNeverSatisfied", "never starts; cancel it"),
        ("AssocGrpCpuLimit", "sacctmgr show assoc"),
        ("AssocMaxJobsLimit", "sacctmgr show assoc"),
        ("QOSMaxGRESPerUser", "sacctmgr show qos"),
        ("PartitionNodeLimit", "more nodes"),
        ("(JobHeldUser)", "scontrol release 7 "),
        ("JobHeldAdmin", "admin"),
        ("launch_failed_requeued_held", "slurmd log"),
        ("SomethingNew", ""),
    ],
)
def test_reasons_in_words(reason, said):
    found = reason_words(reason, "7", "12:00", "afterok:8")
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", "12"), ("12_3", "12_3"), ("12_", ""), ("-3", ""), ("run", ""), ("\uff11", ""), ("1\n", "")],
)
def test_job_ids(text, number):
    assert Slurm().job_id_in(text) == number


def test_another_cluster_is_named_in_every_question():
    slurm = Slurm()
    assert slurm.parse_cluster("note\n12;east\n") == "east"
    assert slurm.parse_cluster("12\n") == slurm.parse_cluster("") == ""
    assert slurm.job_argv("12", "east") == ("scontrol", "--clusters=east", "show", "job", "12")
    assert slurm.cancel_argv("12", "") == ("scancel", "12")
    assert slurm.inside_argv("12", "", "n2", True)[-2:] == ("--nodelist=n2", "--pty")


def test_the_record_of_a_job(tmp_path):
    record = JobRecord("12", "east", 1.5, "/r/slurm-12.out", "/r/job.sbatch", "1-3")
    record.write(tmp_path)
    assert JobRecord.read(tmp_path) == record
    assert json.loads((tmp_path / "job.json").read_text())["format"] == 1
    for torn in ("", "[]", "{}", '{"job_id": "1", "submitted": null}'):
        (tmp_path / "job.json").write_text(torn)
        assert JobRecord.read(tmp_path) is None
    record.write(tmp_path / "not there")


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A function that has a scontrol on PATH answer; and a run directory of job 6."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    JobRecord("6", "", 0.0, "/l", "/s", "").write(run)

    def answer(text, code=0):
        (folder / "answer").write_text(text)
        (folder / "scontrol").write_text(f"#!/bin/sh\ncat '{folder}/answer' {'>&2' * bool(code)}; exit {code}\n")
        (folder / "scontrol").chmod(0o755)

    return answer, run


def test_following_goes_on_while_a_job_may_come_back(scontrol, monkeypatch, capsys):
    answer, run = scontrol
    for pace in ("_ASK_AT_END", "_ASK_EVERY"):
        monkeypatch.setattr(f"dtk_launch.joblogs.{pace}", 0)
    (run / "nodes").mkdir()
    (run / "nodes/0.json").write_text(json.dumps({"host": "n", "state": "ended", "started_ns": 1, "exit_code": 75}))
    following, view = Following(JobRef("6", run, JobRecord.read(run))), read_run(run)
    assert view.over
    plain = "".join(shown(run, state="PENDING", reason="BeginTime").split(" ArrayJobId=6 ArrayTaskId=3"))
    answer(plain)
    assert not following.over(view)
    assert not following.over(view)
    assert (
        capsys.readouterr().err.count("job 6 is pending (BeginTime: it may not start before 2026-11-23 01:36:51") == 1
    )
    answer("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
    assert not following.over(view)
    assert "slurmctld does not answer" in capsys.readouterr().err
    assert following.over(replace(view, state="failed"))
    answer(plain.replace("PENDING", "COMPLETED"))
    assert following.over(view)
    answer("slurm_load_jobs error: Invalid job id specified", 1)
    assert following.over(view)


def test_a_controller_is_not_asked_each_second_for_hours(scontrol, monkeypatch):
    _, run = scontrol
    asked, clock = [], {"now": 1000.0}
    monkeypatch.setattr("dtk_launch.joblogs.now", lambda ref, scheduler: asked.append(clock["now"]) or ref)
    monkeypatch.setattr("dtk_launch.joblogs.time.monotonic", lambda: clock["now"])
    (pending,) = parse_jobs(shown(run, state="PENDING").replace(" ArrayJobId=6 ArrayTaskId=3", ""))
    (run / "nodes").mkdir()
    (run / "nodes/0.json").write_text(json.dumps({"host": "n", "state": "ended", "started_ns": 1, "exit_code": 75}))
    following, view = Following(JobRef("6", run, JobRecord.read(run), (pending,))), read_run(run)
    for _ in range(3600):
        following.over(view)
        clock["now"] += 1
    assert 100 < len(asked) < 400


@pytest.mark.parametrize(("number", "later", "known"), [("6", "", True), ("5", "6", False), ("9", "", False)])
def test_whose_a_run_directory_is(scontrol, number, later, known):
    """Job 9 was submitted by hand from the script of job 6, which dtk advises where a requeue is refused."""
    _, run = scontrol
    (state,) = parse_jobs(shown(run).replace("JobId=10 ArrayJobId=6 ArrayTaskId=3", f"JobId={number}"))
    found = of_states(number, run, (state,))
    assert (found.later, found.record is not None) == (later, known)


def test_a_job_that_the_scheduler_does_not_know(scontrol, tmp_path, monkeypatch):
    answer, run = scontrol
    answer("slurm_load_jobs error: Invalid job id specified", 1)
    assert find_job("6", tmp_path, Slurm()).folder == run
    with pytest.raises(JobNotFound, match=r"no job 7: the scheduler .*has forgotten it.* no run in "):
        find_job("7", tmp_path, Slurm())
    answer("slurm_load_jobs error: Unable to contact slurm controller", 1)
    assert "does not answer" in find_job("6", tmp_path, Slurm()).silent
    with pytest.raises(SubmitError, match=r"job 7 cannot be asked for: .*slurmctld does not answer"):
        find_job("7", tmp_path, Slurm())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmitError, match="job 7 cannot be asked for: no scontrol on PATH"):
        find_job("7", tmp_path, Slurm())


def test_a_number_that_is_a_run_and_another_job(tmp_path):
    run = tmp_path / "runs" / "12"
    run.mkdir(parents=True)
    JobRecord("6", "", 0.0, "", "", "").write(run)
    with pytest.raises(PlanError, match="12 can be job 12, or the run"):
        find_job("12", tmp_path, Slurm())
    assert find_job("runs/12", tmp_path, Slurm()).id == "6"


def test_time_left_is_not_made_up(tmp_path):
    (job,) = parse_jobs(shown())
    view = JobView("6_3", tmp_path, job, None)
    assert (view.left, view.rate, view.steps_left, view.step) == (None, None, None, None)
    assert words(view)[0] == "job 6_3: running for 1 d 00:00:05 on n2, 2 restarts"
    assert values(view)["run"] is None
