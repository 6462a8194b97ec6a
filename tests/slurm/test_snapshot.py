"""`dtk submit --snapshot` on a real cluster: what is edited after the submission does not reach the job."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slurm

SCRIPT = """
import os, sys, time
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "src"))
from lib import VALUE
with open(os.path.join(os.environ["DTK_RUN_DIR"], "said.txt"), "a") as file:
    print("{script}", VALUE, open("data/input.txt").read(), os.environ.get("SLURM_RESTART_COUNT", "0"), file=file)
if "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(600)
"""


def write(root, number):
    (root / "sub" / "train.py").write_text(SCRIPT.replace("{script}", f"script {number}"))
    (root / "src" / "lib.py").write_text(f"VALUE = 'module {number}'\n")


@pytest.fixture
def project(tmp_path):
    """A repository whose script imports a module and reads ignored data, at its first state."""
    root = tmp_path / "my project"
    for folder in ("sub/data", "src"):
        (root / folder).mkdir(parents=True)
    (root / ".gitignore").write_text("data/\nruns/\n")
    (root / "sub" / "data" / "input.txt").write_text("data")
    write(root, 1)
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run(("git", *words), cwd=root, env={**os.environ, **author}, check=True)
    return root


def test_a_queued_and_a_requeued_job_run_the_code_that_was_submitted(cluster, project):
    write(project, 2)
    run_dir = project / "runs" / "train"
    options = ["--snapshot", "--nproc", "1", "--sbatch", "hold", "--run-dir", str(run_dir), "--grace", "1s"]
    command = [sys.executable, "-m", "dtk_launch", "submit", *options, "train.py"]
    done = cluster.run(command, cwd=project / "sub", env={"OMP_NUM_THREADS": "1"})
    job_id = int(done.stdout.split()[0])
    assert f"the job runs from {run_dir}/snapshots/1/tree, 3 files" in done.stderr
    write(project, 3)
    cluster.run(["scontrol", "release", str(job_id)])
    said = run_dir / "said.txt"
    cluster.wait_until(said.exists, "the first attempt has begun", timeout=60)
    plan = json.loads((run_dir / "plan.json").read_text())
    write(project, 4)
    cluster.run(["scontrol", "requeue", str(job_id)])
    cluster.wait_until(lambda: cluster.job(job_id).state == "PENDING", "it is queued again", timeout=60)
    cluster.run(["scontrol", "update", f"JobId={job_id}", "StartTime=now"])
    job = cluster.wait_job(job_id, timeout=120)
    assert job.state == "COMPLETED", job.log
    assert said.read_text().splitlines() == [f"script 2 module 2 data {attempt}" for attempt in (0, 1)]
    assert (plan["cwd"], plan["tree"]["root"]) == (f"{run_dir}/snapshots/1/tree/sub", str(project))
    assert "+VALUE = 'module 2'" in plan["tree"]["diff"]
    assert json.loads((run_dir / "plan.json").read_text())["tree"] == plan["tree"]
