"""dtk doctor on this machine: what it finds, its exit code, and that nothing of it is left."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

DTK = str(Path(sys.executable).parent / "dtk")
PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("dtk ")
]


NAMELESS = ("unshare", "-u", "sh", "-c", 'hostname no-such-host && exec "$@"', "sh")
"""Words before a command that give its host a name that leads nowhere."""


ISOLATED = ("unshare", "-n")
"""The same for a host whose loopback is down."""


def may(before):
    """Skip a test where this machine does not let a command be run so."""
    there = shutil.which(before[0]) is not None
    if not there or subprocess.run([*before, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs namespaces: unshare")


def doctor(folder, *words, before=(), **environ):
    ours = ("DTK_", "PET_", "OMP_", "SLURM_", "MASTER_", "NCCL_", "GLOO_", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [*before, DTK, "doctor", *words]
    return subprocess.run(
        command, cwd=folder, env=clean | environ, capture_output=True, text=True, timeout=200, check=False
    )


def test_seeded_warnings_and_an_all_reduce(tmp_path):
    """With --strict they count."""
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
        done = doctor(
            tmp_path, "--json", "--strict", "--nproc", "2", "--run-dir", "a/b",
            OMP_NUM_THREADS=str(os.cpu_count()), MASTER_PORT=port, NCCL_SOCKET_IFNAME="nope", DTK_NPROC="none",
            RANK="3", WORLD_SIZE="8", LOCAL_RANK="3", MASTER_ADDR="localhost",
        )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    values = json.loads(done.stdout)
    found = {(finding["check"], finding["level"]) for finding in values["findings"]}
    assert {(check, "warning") for check in ("threads", "ports", "variables", "network")} < found
    assert ("all-reduce", "ok") in found
    (result,) = [line for line in values["all_reduce"] if line["stage"] == "result"]
    assert (result["right"], result["ranks"], result["backend"]) == (True, 2, "gloo")
    assert all(finding["why"] and finding["fix"] for finding in values["findings"] if finding["level"] == "warning")
    assert values["run_dir"] == str(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def with_torch(folder, text):
    """A PYTHONPATH on which torch is a package of this text."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch/__init__.py").write_text(text)
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        (" | true; exit ${PIPESTATUS[0]}", 141, ""),
        (" > /dev/full", 74, "dtk: error: stdout cannot be written: No space left on device\n"),
        (" --json >&-", 1, ""),
    ],
)
def test_a_stdout_that_cannot_be_written_is_no_problem_of_the_machine(tmp_path, to, code, said):
    environ = os.environ | {"PYTHONPATH": with_torch(tmp_path, "raise ImportError")}
    shell = ["bash", "-c", f"{shlex.join([DTK, 'doctor', '--no-run'])}{to}"]
    done = subprocess.run(shell, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_an_all_reduce_that_takes_too_long_is_ended(tmp_path):
    done = doctor(tmp_path, "--timeout", "300ms")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the all-reduce over 2 ranks was not over after 0.3 s: no rank has started" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problem will break a run")
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_signal_while_it_runs_leaves_nothing(tmp_path):
    process = subprocess.Popen([DTK, "doctor"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    records = lambda: list(tmp_path.glob("runs/.dtk-doctor-*/run/ranks/*.json"))  # noqa: E731
    deadline = time.monotonic() + 60
    while len(records()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = [json.loads(path.read_text())["pid"] for path in records()]
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(pids) == 2
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"GLOO_SOCKET_IFNAME": "ib9"}, ("and there is no ib9 here", "failed in join")),
        ({"PET_NNODES": "5"}, ("PET_NNODES=5 contradicts --nnodes 1 of a plain dtk launch", "ok       all-reduce")),
        ({"LD_PRELOAD": "/no/such.so", "OMP_NUM_THREADS": "x"}, ("OMP_NUM_THREADS='x' is no number",)),
    ],
)
def test_seeded_problems(tmp_path, environ, said):
    done = doctor(tmp_path, **environ)
    assert done.returncode == 1, done.stdout + done.stderr
    for words in said:
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("", "No module named 'torch.distributed'"),
    ],
)
def test_a_torch_that_cannot_be_imported(tmp_path, torch, said):
    """torchrun does not start either: no rank can tell."""
    path = with_torch(tmp_path / "path", torch)
    (tmp_path / "here").mkdir()
    done = doctor(tmp_path / "here", "--json", PYTHONPATH=path)
    assert done.returncode == 1, done.stdout + done.stderr
    (about,) = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "versions"]
    assert about["level"] == "problem"
    assert said in about["what"]
    assert str(tmp_path / "path/torch/__init__.py") in about["fix"]
    assert ".dtk-doctor-" not in done.stdout


@pytest.mark.slow
def test_a_host_whose_own_name_leads_nowhere(tmp_path):
    """torchrun --standalone starts no rank on it."""
    may(NAMELESS)
    done = doctor(tmp_path, "--json", before=NAMELESS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(finding["check"], finding["level"]): finding for finding in json.loads(done.stdout)["findings"]}
    assert ("all-reduce", "ok") in found
    assert "the name no-such-host of this host is not known here" in found["network", "warning"]["what"]
    assert "/etc/hosts" in found["network", "warning"]["fix"]


def test_a_loopback_that_is_down(tmp_path):
    """dtk launch refuses it at once, and so there is no all-reduce to wait for."""
    may(ISOLATED)
    done = doctor(tmp_path, before=ISOLATED)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "problem  network    the loopback interface lo is down" in done.stdout
    assert "dtk: error: the loopback interface of this host is down" in done.stdout
    assert "not over after" not in done.stdout


@pytest.mark.slow
def test_one_inside_a_step_of_several_nodes_looks_at_this_machine_alone(tmp_path):
    step = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NODEID": "0"}
    done = doctor(tmp_path, **step)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"dtk doctor on {os.uname().nodename},")


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_page_run(tmp_path, line):
    words = shlex.split(line.replace("/scratch", str(tmp_path / "scratch")))
    done = doctor(tmp_path, *words[2:])
    assert words[:2] == ["dtk", "doctor"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_tells_every_check_and_option():
    from dtk_launch.doctor.command import doctor as command
    from dtk_launch.doctor.findings import CHECKS

    assert re.findall(r"^\| ([a-z-]+) \|", PAGE, re.MULTILINE) == ["check", *CHECKS]
    for parameter in command.params:
        assert parameter.opts[0] in PAGE, parameter.opts
