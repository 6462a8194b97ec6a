"""Jobs while they wait, run and end, on a real cluster of two nodes: dtk status, logs, cancel and attach."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dtk_launch import vitals

pytestmark = pytest.mark.slurm

# Steps on the page that a rank shares with its dtk, until it is told to end.
STEPS = """
import importlib.util, json, os, sys, time
spec = importlib.util.spec_from_file_location("vitals", sys.argv[1])
vitals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vitals)
record = json.load(open(f"{os.environ['DTK_RUN_DIR']}/ranks/{os.environ['RANK']}.json"))
descriptors = f"/proc/{record['supervisor'].rpartition(':')[2]}/fd/"
found = next(d for d in os.listdir(descriptors) if "dtk-vitals" in os.readlink(descriptors + d))
page = vitals.Page(os.open(descriptors + found, os.O_RDWR), record["vitals"])
while True:
    time.sleep(0.05)
    page.beat()
"""
HELLO = """
import json, os, sys, time
print("hello", *sys.argv[1:])
code = int(sys.argv[-1].partition("=")[2] or 0)
with open(os.environ["DTK_RUN_DIR"] + "/metrics.jsonl", "a") as file:
    file.write(json.dumps({"step": 5, "time": time.time(), "loss": code + 0.5}) + "\\n")
sys.exit(code)
"""
# Starts a command, and sends it SIGINT once it has written the word to stderr.
INTERRUPT = """
import signal, subprocess, sys
process = subprocess.Popen(sys.argv[2:], stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    sys.stderr.write(line)
    if sys.argv[1] in line:
        process.send_signal(signal.SIGINT)
sys.exit(process.wait())
"""


class Dtk:
    """The command, on the login node and in a folder of its own."""

    def __init__(self, cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def __call__(self, *words, code=0, before=()):
        done = self.cluster.run(
            [*before, sys.executable, "-m", "dtk_launch", *map(str, words)], cwd=self.folder, check=False, timeout=150
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def submit(self, name, script, *words, args=()):
        path = self.folder / f"{name}.py"
        path.write_text(script)
        options = ["--nproc", "1", "--time", "5", "--name", name, "--json", *words]
        return json.loads(self("submit", *options, path, *args).stdout)["job_id"]

    def state(self, job):
        (found,) = json.loads(self("status", job, "--json").stdout)
        return found


@pytest.fixture
def dtk(cluster, tmp_path):
    """dtk in a folder with a blank in its name; what it has submitted is cancelled at the end."""
    folder = tmp_path / "my project"
    folder.mkdir()
    yield Dtk(cluster, folder)
    for record in folder.glob("runs/*/job.json"):
        cluster.run(["scancel", json.loads(record.read_text())["job_id"]], check=False)


def test_a_job_that_runs_and_jobs_that_wait_for_it(cluster, dtk):
    busy = dtk.submit("busy", STEPS, "--nodes", "2", "--exclusive", args=[vitals.__file__])
    cluster.wait_until(lambda: dtk.state("busy")["state"] == "running", "the job runs")
    waits = dtk.submit("waits", HELLO, "--nodes", "2", "--exclusive")
    cluster.wait_until(lambda: dtk.state(waits)["why"], "SLURM says why the job waits")

    again = ["submit", "--nproc", "1", "--time", "5", "--name"]
    refused = dtk(*again, "busy", "busy.py", code=2).stderr
    assert f"job {busy} still has the run " in refused
    assert f"(running on n[1-2]); dtk cancel {busy}, " in refused
    assert f"job {waits} still has the run " in dtk(*again, "waits", "waits.py", code=2).stderr

    waiting = dtk("status", "waits").stdout
    assert re.match(rf"job {waits}: pending, 2 nodes; (Resources: it is next, and|Priority: jobs of a higher)", waiting)
    left = dtk("logs", "waits", "-f", code=130, before=[sys.executable, "-c", INTERRUPT, "waiting for its output"])
    assert f"job {waits} is pending (" in left.stderr
    assert f"job {waits} goes on, dtk cancel {waits} ends it" in left.stderr
    assert dtk.state(waits)["state"] == "pending"
    assert "dtk logs -f waits for its output" in dtk("logs", waits).stderr
    assert "is pending (" in dtk("attach", waits, "hostname", code=2).stderr

    cluster.wait_until(lambda: dtk.state(busy)["rate"], "its pace is known", timeout=90)
    running = dtk.state(busy)
    assert (running["hosts"], running["nodes"], running["restarts"]) == ("n[1-2]", 2, 0)
    assert running["step"] > 1
    assert 0 < running["steps_left"] <= running["left"] * running["rate"]
    words = dtk("status", "busy").stdout
    assert re.search(r"^job \d+: running for 0:\d\d:\d\d of 0:05:00 on n\[1-2\]$", words, re.MULTILINE)
    assert re.search(r"^step \d+, [\d.]+ steps/s$", words, re.MULTILINE)
    assert re.search(
        r"^0:0\d:\d\d left of its time, enough for about \d+ more steps at this rate$", words, re.MULTILINE
    )
    table = [line.split()[:3] for line in dtk("status").stdout.splitlines()]
    assert [busy, "busy", "running"] in table
    assert [waits, "waits", "pending"] in table
    assert dtk("attach", "busy", "hostname").stdout == "n1\n"
    assert dtk("attach", "--node", "n2", busy, "hostname").stdout == "n2\n"
    assert dtk("attach", busy).stdout.startswith("busy: running\n2 nodes x 1 ranks")

    with ThreadPoolExecutor() as pool:
        followed = pool.submit(dtk, "logs", waits, "-f")
        assert "its ranks get SIGTERM now" in dtk("cancel", busy).stdout
        assert cluster.wait_job(int(waits)).state == "COMPLETED"
        assert sorted(line[-5:] for line in followed.result().stdout.splitlines()) == ["hello", "hello"]
    assert cluster.wait_job(int(busy)).state == "CANCELLED"
    ended = dtk.state(busy)["run"]
    assert (ended["code"], ended["state"], ended["why"]) == (143, "stopped", "by SIGTERM")
    assert dtk("cancel", "busy").stdout == f"job {busy} has ended already (cancelled); nothing to cancel\n"
    assert re.match(rf"job {waits}: completed after .* on n\[1-2\]\nrun waits: ended\n", dtk("status", "waits").stdout)


@pytest.mark.slow
def test_a_sweep_of_which_one_run_fails(cluster, dtk):
    array = dtk.submit("many", HELLO, "--sweep", "word=it's so", "--sweep", "code=0,3")
    for task in (0, 1):
        cluster.wait_until(lambda task=task: dtk.state(f"{array}_{task}")["over"], "the task has ended", timeout=90)
    rows = {line.split()[0]: line.split()[1:] for line in dtk("status", "many").stdout.splitlines()}
    assert rows[f"{array}_0"][:2] == ["many/task-0", "completed"]
    assert rows[f"{array}_0"][-5:] == ["loss", "0.5", "--word=it's", "so", "--code=0"]
    assert rows[f"{array}_1"][:5] == ["many/task-1", "failed", "(exit", "code", "3)"]
    failed = dtk("status", "runs/many/task-1").stdout
    assert failed.startswith(f"job {array}_1: failed (exit code 3) after ")
    assert "run many-1: failed (3): rank 0: " in failed
    assert dtk("logs", f"{array}_1").stdout == "[0] hello --word=it's so --code=3\n"
    for verb in ("logs", "attach"):
        assert f"is an array; pass one of its tasks: {array}_0, {array}_1" in dtk(verb, array, code=2).stderr
    assert json.loads(dtk("cancel", array, "--json").stdout)["cancelled"] is False
    again = dtk.submit("many", HELLO, "--array", "0-1")
    assert f"now of job {again}" in dtk("status", f"{array}_0").stdout
    assert dtk("cancel", again).stdout.startswith(f"job {again} is cancelled: ")


def test_jobs_that_are_not_there_or_not_ours(cluster, dtk):
    theirs = cluster.submit("#!/bin/bash\nsleep 1\n", "--hold", cwd=dtk.folder)
    for verb in ("status", "logs", "cancel", "attach"):
        refused = dtk(verb, theirs, code=2).stderr
        assert f"job {theirs} is not one that dtk submit has made (its script: {dtk.folder}/job.sh)" in refused
        assert refused.count("\n") == 1
        assert "no job 987654: the scheduler does not know it" in dtk(verb, "987654", code=2).stderr
        assert "no run 'nowhere'" in dtk(verb, "nowhere", code=2).stderr
    assert cluster.job(theirs).state == "PENDING"
    cluster.run(["scancel", str(theirs)])

    run = dtk.folder / "runs" / "old"
    (run / "nodes").mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    (run / "nodes" / "0.json").write_text(json.dumps({"host": "n1", "state": "ended", "started_ns": 9, "exit_code": 7}))
    assert dtk("status", "old").stdout.startswith(
        "no job: this run was started without dtk submit\nrun old: failed (7)"
    )
    assert "is a run of dtk launch and no job; it is ended with Ctrl-C" in dtk("cancel", "old", code=2).stderr

    record = {"job_id": "987654", "submitted": 0, "log": "x.out"}
    (run / "job.json").write_text(json.dumps(record))  # a job that the controller has forgotten
    for name in ("old", "987654"):
        said = dtk("status", name).stdout
        assert said.startswith(
            "job 987654: the scheduler does not tell of it (any more); its run directory says\nrun old"
        )
    assert "has ended already (forgotten by the scheduler)" in dtk("cancel", "987654").stdout
    assert "job 7, or the run" in (run.rename(run.parent / "7"), dtk("cancel", "7", code=2).stderr)[1]
