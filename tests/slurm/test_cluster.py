"""The test cluster itself: what the other tests of this folder rely on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm
REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "slurm" / "cluster"
# Two processes of the job on n1, one in a session of its own, and one on n2.
SLEEPY_JOB = "#!/bin/sh\nsetsid sleep 1234 &\nsrun sleep 1234\n"


def sleepers(cluster):
    return [p for p in cluster.job_processes() if p.command.endswith("sleep 1234") and "srun" not in p.command]


def start_sleepy_job(cluster, cwd):
    job_id = cluster.submit(SLEEPY_JOB, "--nodes=2", cwd=cwd)
    cluster.wait_until(lambda: len(sleepers(cluster)) == 3, "three processes of the job sleep")
    return job_id


def traces(directory):
    """Whatever on this machine still names a cluster's directory: commands, environments, mounts."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ", "mountinfo"):
            try:
                if os.fsencode(directory) in (entry / name).read_bytes():
                    found.append(f"{entry.name} {name}")
            except OSError:  # it ended, or it is not ours to read
                continue
    return found


def freezer_group(process):
    """The process's group in the v1 freezer; a path that does not exist where the kernel has none."""
    lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    names = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "freezer"]
    return Path("/sys/fs/cgroup/freezer" + names[0]) if names else Path("/nonexistent")


def test_nodes_are_idle(cluster):
    assert cluster.node_states() == {"n1": "idle", "n2": "idle"}


def test_a_step_runs_on_both_nodes_each_with_its_own_name_address_and_shared_memory(cluster):
    show = "h=$(hostname); touch /dev/shm/$h; echo $h $(getent hosts $h | cut -d' ' -f1) $(ls /dev/shm)"
    out = cluster.run(["srun", "--nodes=2", "sh", "-c", show]).stdout
    assert sorted(out.splitlines()) == ["n1 10.77.0.1 n1", "n2 10.77.0.2 n2"]


def test_nodes_reach_each_other(cluster, tmp_path):
    program = tmp_path / "meet.py"
    program.write_text(
        "import socket, time\n"
        "if socket.gethostname() == 'n1':\n"
        "    print(socket.create_server(('10.77.0.1', 4000)).accept()[1][0])\n"
        "else:\n"
        "    for attempt in range(100):\n"
        "        try:\n"
        "            socket.create_connection(('n1', 4000))\n"
        "            break\n"
        "        except OSError:\n"
        "            time.sleep(0.1)\n"
    )
    assert cluster.run(["srun", "--nodes=2", sys.executable, str(program)]).stdout.split() == ["10.77.0.2"]


def test_tasks_are_tracked_in_the_way_this_machine_allows(cluster):
    # Who gets a signal differs between the two, so the cluster must not fall back in silence.
    frozen = os.access("/sys/fs/cgroup/freezer/cgroup.procs", os.W_OK) and os.getuid() == 0
    configured = cluster.run(["scontrol", "show", "config"]).stdout
    assert f"proctrack/{'cgroup' if frozen else 'linuxproc'}" in configured
    group = cluster.run(["srun", "--nodelist=n1", "cat", "/proc/self/cgroup"]).stdout
    assert ("/slurm_n1/" in group) == frozen


@pytest.mark.parametrize(("command", "state", "code"), [("true", "COMPLETED", "0:0"), ("exit 7", "FAILED", "7:0")])
def test_the_exit_code_of_a_batch_job_comes_back(cluster, tmp_path, command, state, code):
    job_id = cluster.submit(f"#!/bin/sh\necho on $(hostname)\n{command}\n", cwd=tmp_path)
    job = cluster.wait_job(job_id, timeout=20)
    assert (job.state, job.exit_code, job.nodes, job.log) == (state, code, "n1", "on n1\n")


def test_a_cancelled_job_leaves_no_process(cluster, tmp_path):
    job_id = start_sleepy_job(cluster, tmp_path)
    cluster.run(["scancel", str(job_id)])
    assert cluster.wait_job(job_id, timeout=20).state == "CANCELLED"
    cluster.wait_until(lambda: not cluster.job_processes(), "no process of the job is left")


def test_fake_gpus_come_out_as_cuda_visible_devices(make_cluster):
    with make_cluster(NODES=1, GPUS=3) as own:
        out = own.run(["srun", "--gpus-per-node=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]).stdout
    assert out == "0,1\n"


@pytest.mark.slow
def test_a_node_that_lost_its_power_or_crashed_is_noticed_and_comes_back(make_cluster):
    with make_cluster(NODES=3, SLURMD_TIMEOUT=3) as own:
        own.power("stop", "n2")
        own.power("crash", "n3")
        own.wait_until(lambda: own.node_states() == {"n1": "idle", "n2": "down*", "n3": "down*"}, "n2 and n3 are down")
        assert "not running" in own.run(["hostname"], node="n2", check=False).stderr
        own.power("start", "n2")
        own.power("start", "n3")
        own.wait_until(lambda: set(own.node_states().values()) == {"idle"}, "n2 and n3 are idle again")
        assert sorted(own.run(["srun", "--nodes=3", "hostname"]).stdout.split()) == ["n1", "n2", "n3"]
        assert own.run(["hostname"], node="n2").stdout == "n2\n"


def test_up_again_changes_nothing(make_cluster, tmp_path):
    with make_cluster() as own:
        job_id, before = start_sleepy_job(own, tmp_path), own.processes()
        again = own.script("up.sh", env={"DTK_CLUSTER_NODES": "2", "DTK_CLUSTER_CPUS": "2", "DTK_CLUSTER_GPUS": "0"})
        assert (again.returncode, again.stdout.split(":")[0]) == (0, "already up")
        other = own.script("up.sh", env={"DTK_CLUSTER_NODES": "3"})
        assert (other.returncode, "other settings" in other.stderr) == (2, True)
        assert own.job(job_id).state == "RUNNING"
        assert {p.pid for p in own.alive(before)} == {p.pid for p in before}


def test_down_leaves_nothing_and_touches_no_other_cluster(make_cluster, tmp_path):
    mounts = Path("/proc/self/mountinfo").read_text()
    with make_cluster() as other, make_cluster() as own:
        (tmp_path / "other").mkdir()
        assert start_sleepy_job(other, tmp_path / "other") == start_sleepy_job(
            own, tmp_path
        )  # the same names for everything
        processes = own.processes()
        group = freezer_group(processes[0])
        assert len(sleepers(own)) == 3
        assert len(traces(own.directory)) > 10, "the search for what is left finds nothing even now"
        own.down()
        own.wait_until(lambda: not own.alive(processes), "every process of the cluster has ended", timeout=2)
        assert traces(own.directory) == []
        assert str(group) == "/sys/fs/cgroup/freezer/" or not group.exists()  # the root group: linuxproc was in force
        own.down()  # twice is no error
        assert len(sleepers(other)) == 3
        assert other.job(1).state == "RUNNING"
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_the_cluster_ends_with_the_process_that_holds_its_lease(make_cluster):
    with make_cluster() as own:
        processes = own.processes()
        assert own.alive(processes)
        own.give_up_lease()
        own.wait_until(lambda: not own.alive(processes), "the cluster has ended itself", timeout=10)


def test_what_up_cannot_do_is_refused_with_the_reason(make_cluster, tmp_path):
    def refusal(**env):
        return subprocess.run([SCRIPTS / "up.sh"], env=os.environ | env, capture_output=True, text=True, timeout=30)

    (tmp_path / "thesis.tex").touch()
    foreign = refusal(DTK_CLUSTER_DIR=str(tmp_path))
    assert (foreign.returncode, "holds something else" in foreign.stderr) == (2, True)
    assert (tmp_path / "thesis.tex").exists()
    number = refusal(DTK_CLUSTER_NODES="many", DTK_CLUSTER_DIR=str(tmp_path / "new"))
    assert (number.returncode, number.stderr) == (2, "cannot start: DTK_CLUSTER_NODES=many is not a number\n")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (slurm/cluster/install.sh)")
def test_the_scripts_pass_shellcheck():
    checked = subprocess.run(["shellcheck", *sorted(SCRIPTS.glob("*.sh"))], cwd=SCRIPTS, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("shellcheck")), reason="slurm/cluster/install.sh has not run here"
)
def test_the_commands_of_the_readme_work(make_cluster):
    (block,) = re.findall(r"```sh\n(.*?)```", (SCRIPTS / "README.md").read_text(), re.DOTALL)
    with make_cluster(NODES=1) as own:  # only for its directory, and to skip where there can be no cluster
        own.down()
        env = os.environ | {"DTK_CLUSTER_DIR": str(own.directory)}
        ran = subprocess.run(
            ["bash", "-euc", block],
            cwd=REPOSITORY,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        _, up, *hosts = ran.stdout.splitlines()
        assert up.startswith("up: 4 nodes")
        assert sorted(hosts) == ["n1", "n2"]
        assert traces(own.directory) == []
