"""dtk doctor over the nodes of a real allocation: good ones, and with faults that were put there."""

import json
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
DTK = f"{sys.executable} -m dtk_launch doctor"
# In the second part the name of the second node leads to its loopback, that of the first to where nothing listens.
JOB = f"""#!/bin/bash
{DTK} --run-dir "$PWD/runs"
echo "good: $?"
hosts=$(mktemp)
sed "s/10.77.0.2 n2/127.0.1.1 n2/; s/10.77.0.1 n1/10.77.0.254 n1/" /etc/hosts >"$hosts"
srun --overlap -N1 -w n2 mount --bind "$hosts" /etc/hosts
trap 'srun --overlap -N1 -w n2 umount /etc/hosts; rm "$hosts"' EXIT
NCCL_SOCKET_IFNAME=ib9 {DTK} --run-dir /dev/shm/dtk-runs --timeout 2s
echo "faults: $?"
srun --overlap -l ls -A /dev/shm | grep dtk
"""


def test_two_good_nodes_and_then_faults(cluster, tmp_path):
    job = cluster.wait_job(cluster.submit(JOB, "--nodes=2", cwd=tmp_path), timeout=120)
    good, _, faults = job.log.partition("good: 0\n")
    assert faults, job.log
    assert "dtk doctor on 2 nodes (n1, n2), run directories in" in good
    assert re.search(r"^ok +network +n1: gloo takes eth0 \(10\.77\.0\.1, by the name n1\)", good, re.MULTILINE)
    assert re.search(r"^ok +ports .*all nodes reach n1:2\d{4}, at most", good, re.MULTILINE)
    assert re.search(r"^ok +clock +the clocks of all nodes are within", good, re.MULTILINE)
    assert re.search(r"^ok +filesystem .* is the same on all 2 nodes", good, re.MULTILINE)
    assert re.search(r"^ok +all-reduce +gloo by eth0, 2 ranks: right, 16 MiB in", good, re.MULTILINE)
    assert "problem " not in good
    assert not (tmp_path / "runs").exists()

    assert "faults: 1\n" in faults, job.log
    said = {
        "warning": [
            "n2: the name n2 leads to 127.0.1.1 here; dtk launch has gloo take eth0",
            "NCCL_SOCKET_IFNAME=ib9 fits",
        ],
        "problem": [
            "is not reached by n2 (Connection refused)",
            "n1 does not see what n2 wrote; n2 does not see what n1",
        ],
        "note": ["left out: n1:"],
    }
    for level, texts in said.items():
        for text in texts:
            assert re.search(rf"^{level} +[a-z-]+ .*{re.escape(text)}", faults, re.MULTILINE), (text, faults)
    assert faults.partition("faults: 1\n")[2] == "", "something is left on a node"
    assert "umount" not in job.log


@pytest.mark.slow
def test_one_node_is_looked_at_from_the_login_host(cluster, tmp_path):
    """Not the host where salloc leaves its shell, which runs nothing of the job."""
    words = ["salloc", "--nodes=1", "--quiet", *DTK.split(), "--json", "--run-dir", str(tmp_path / "runs")]
    done = cluster.run(words, cwd=tmp_path, check=False, timeout=120)
    values = json.loads(done.stdout)
    (name,) = values["nodes"]
    assert re.fullmatch(r"n\d", name), "no node of the cluster"
    assert values["facts"][name]["network"]["hostname"] == name
    (result,) = [line for line in values["all_reduce"] if line["stage"] == "result"]
    assert (result["right"], result["ranks"]) == (True, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_command_of_the_page(cluster, tmp_path):
    (line,) = re.findall(r"^(sbatch .*?)(?:  #.*)?$", PAGE, re.MULTILINE)
    command = line.replace("dtk doctor", DTK).replace("/shared", str(tmp_path))
    job = int(cluster.run(["bash", "-c", f"{command} --parsable"], cwd=tmp_path).stdout.split(";")[0])
    done = cluster.wait_job(job, timeout=200)
    assert done.state == "COMPLETED", done.log
    assert "nothing found that breaks a run" in done.log


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_on_all_nodes(cluster, tmp_path):
    script = f"#!/bin/bash\n{DTK} --timeout 2s\necho $?\n"
    job = cluster.wait_job(cluster.submit(script, "--nodes=2", cwd=tmp_path), timeout=120)
    assert "the all-reduce over 2 ranks was not over after 2 s" in job.log
    assert job.log.endswith("\n1\n")
    assert not [process for process in cluster.job_processes() if "rank.py" in process.command]


@pytest.mark.slow
def test_a_rank_that_stands_still_is_named(cluster, tmp_path):
    """It is stopped while it loads torch; its node answers all the same."""
    stop = (
        'until pid=$(pgrep -f "[w]orker.py.*doctor/rank.py" | tail -1) && [ -n "$pid" ]; do sleep 0.05; done; '
        'sleep 0.2; kill -STOP "$pid"; sleep 60'
    )
    script = f"#!/bin/bash\nsrun --overlap -N1 -n1 -w n2 bash -c '{stop}' &\nsleep 1\n{DTK} --timeout 60s\necho $?\n"
    job = cluster.wait_job(cluster.submit(script, "--nodes=2", cwd=tmp_path), timeout=150)
    assert re.search(r"rank 0 on n1 failed in join: .*; rank 1 on n2 has not loaded torch$", job.log, re.MULTILINE), (
        job.log
    )
    assert not [process for process in cluster.job_processes() if "rank.py" in process.command]
