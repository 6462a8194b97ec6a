"""Submitted jobs: what is asked of sbatch, what is refused, and what it answers."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.jobs import build_job
from dtk_launch.options import SubmitOptions
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.slurm import Slurm


@pytest.fixture
def job(facts):
    def make(**given):
        return build_job(SubmitOptions(**{"script": "train.py"} | given), facts())

    return make


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nproc": "0"}, "--nproc=0"),
        ({"nproc": "x"}, "neither a number"),
        ({"nodes": "-2"}, "--nodes=-2"),
        ({"time": "soon"}, "no SLURM time"),
        ({"strategy": "dp"}, "did you mean ddp?"),
        ({"strategy": "single", "nodes": "2"}, "--strategy single"),
        ({"sbatch": ("array=1-3",)}, "pass --array"),
        ({"sbatch": ("a b=1",)}, "not KEY=VALUE"),
        ({"env": ("RANK=1",)}, "RANK"),
    ],
)
def test_bad_jobs_are_refused(job, given, said):
    with pytest.raises(PlanError) as caught:
        job(**given)
    assert said in str(caught.value)


def test_a_value_cannot_end_its_directive(job):
    with pytest.raises(PlanError, match="--account"):
        Slurm().render(job(account="x\nrm -rf /"))


@pytest.mark.parametrize("time", ["30", "00:05:00", "10:00", "1-12", "2-00:00:00", "UNLIMITED"])
def test_times_as_slurm_writes_them(job, time):
    assert ("time", time) in job(time=time).asked


def test_gpus_follow_nproc_only_when_cuda_is_asked_for(job):
    assert ("gpus-per-node", "4") in job(nproc="4", device="cuda").asked
    assert ("gpus-per-node", "a100:8") in job(nproc="4", device="cuda", gpus_per_node="a100:8").asked
    assert "gpus-per-node" not in dict(job(nproc="4").asked)


@pytest.mark.parametrize(("out", "job_id"), [("12\n", "12"), ("12;cluster\n", "12"), ("note from the site\n7\n", "7")])
def test_job_id(out, job_id):
    assert Slurm().parse_job_id(out) == job_id


@pytest.mark.parametrize("out", ["", "Submitted batch job 12"])
def test_no_job_id(out):
    with pytest.raises(SubmitError, match="squeue"):
        Slurm().parse_job_id(out)


def test_the_script_keeps_out_what_was_not_asked():
    plan = JobPlan(("dtk",), 1, "n", Path("/r"), Path("/r"), Path("/w"))
    assert "cpus-per-task" not in Slurm().render(plan)
    assert Slurm().render(replace(plan, cpus_per_task=3)).count("--cpus-per-task=3") == 2
