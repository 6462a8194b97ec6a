"""A run that a job still has is not given to another."""

from dataclasses import replace

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.job_record import JobRecord
from dtk_launch.run_taken import check_free
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.slurm import Slurm

SHOWN = """JobId={id} JobName=dup
   JobState={state} Reason={reason} Dependency=(null)
   Restarts=0 ExitCode=0:0 RunTime=00:00:05 TimeLimit=00:05:00
   NodeList={hosts}
   NumNodes=1
   Command={script}
"""


@pytest.fixture
def job(tmp_path):
    """A job to submit into a run directory that job 19 has had."""
    run = tmp_path / "runs" / "dup"
    run.mkdir(parents=True)
    JobRecord("19", "", 0.0, "", "", "").write(run)
    return JobPlan(("dtk",), 1, "dup", run, run, tmp_path)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A function that has a scontrol on PATH tell of jobs."""

    def tell(text, code=0):
        (tmp_path / "answer").write_text(text)
        program = tmp_path / "bin" / "scontrol"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat '{tmp_path}/answer' {'>&2' * bool(code)}; exit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")

    return tell


def shown(job, state, hosts="", **given):
    asked = {"id": "19", "reason": "None", "script": job.run_dir / "job.sbatch"} | given
    return SHOWN.format(state=state, hosts=hosts, **asked)


def array(text, task):
    return text.replace("JobName", f"ArrayJobId=19 ArrayTaskId={task} JobName")


@pytest.mark.parametrize(
    ("state", "hosts", "said"),
    [
        ("RUNNING", "n1", r"job 19 still has the run \S+/dup \(running on n1\); dtk cancel 19, pass another --name"),
        ("PENDING", "", r"\(pending\); dtk cancel 19, .* or --dependency afterany:19 to go on behind it"),
        ("COMPLETING", "n1", r"\(completing on n1\); wait until that is done, pass another --name"),
    ],
)
def test_a_job_that_is_not_over_keeps_its_run(job, scontrol, state, hosts, said):
    scontrol(shown(job, state, hosts))
    with pytest.raises(PlanError, match=said):
        check_free(job, Slurm())
    check_free(replace(job, asked=(("dependency", "afterany:19"),)), Slurm())
    check_free(replace(job, run_dir=job.run_dir.parent / "other"), Slurm())


def test_an_array_keeps_it_until_its_last_task_is_over(job, scontrol):
    JobRecord("19", "", 0.0, "", "", "0-3").write(job.run_dir)
    over = array(shown(job, "COMPLETED", "n1"), 0)
    scontrol(over + array(shown(job, "PENDING", id=20), "2-3") + array(shown(job, "RUNNING", "n2", id=21), 1))
    with pytest.raises(PlanError, match=r"job 19 still has .* \(task 19_1 running on n2, and 1 more\)"):
        check_free(job, Slurm())
    scontrol(over)
    check_free(job, Slurm())


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"])
def test_a_job_that_is_over_gives_it_back(job, scontrol, state):
    scontrol(shown(job, state, "n1"))
    check_free(job, Slurm())


def test_what_is_not_known_to_have_it_does_not(job, scontrol, monkeypatch, tmp_path):
    scontrol(shown(job, "RUNNING", "n1", script="/home/ben/other/job.sbatch"))  # ids begin anew on a new cluster
    check_free(job, Slurm())
    for words in ("Invalid job id specified", "Unable to contact slurm controller (connect failure)"):
        scontrol(f"slurm_load_jobs error: {words}", 1)
        check_free(job, Slurm())
    monkeypatch.setenv("PATH", str(tmp_path))
    check_free(job, Slurm())
