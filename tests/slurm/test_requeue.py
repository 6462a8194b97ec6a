"""Jobs that are told to end: they save, SLURM or dtk puts them back into the queue, and they go on as the same run."""

import contextlib
import json
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

# A site's template that starts the script itself: dtk on the nodes would load torch, which is not the point here.
QUICK = """#!/bin/bash
{% for key, value in directives %}
#SBATCH --{{ key }}{% if value is not none %}={{ value | quote }}{% endif %}

{% endfor %}
trap '' TERM
exec {{ batch | words }} {{ srun | words }} {{ setup[0] }} {{ workdir | quote }}/train.py
"""
# Saves when it is told to, and ends well when it is started again. `never` saves nothing, `late` does not listen,
# `dies` of it, `deaf` listens to SIGTERM alone.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
run = Path(os.environ["RUN"].replace("%a", os.environ.get("SLURM_ARRAY_TASK_ID", "")))
restart, mode = int(os.environ.get("SLURM_RESTART_COUNT", 0)), os.environ.get("MODE", "")
first = os.environ["SLURM_PROCID"] == "0"
def save(signum, frame):
    if mode == "late":
        return
    if first and mode != "never":
        (run / f"checkpoints/step-{restart + 1:08}").mkdir(parents=True)
        (run / f"checkpoints/step-{restart + 1:08}/manifest.json").touch()
    time.sleep(0.3)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python's own end gives handlers back
    sys.exit(75)
for told in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(told, save if mode != "dies" else signal.SIG_DFL)
if mode == "deaf":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print(f"start {restart} of {os.environ['SLURM_PROCID']}", flush=True)
if mode == "never":  # together: srun ends the others as soon as one has failed, and they are to listen by then
    name = f"up-{os.environ['SLURM_JOB_ID']}-{restart}-"
    Path(name + os.environ["SLURM_PROCID"]).touch()
    while len(list(Path().glob(name + "*"))) < int(os.environ["SLURM_NTASKS"]):
        time.sleep(0.02)
    save(0, None)
if restart == 0:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
"""
# 40 steps of 0.1 s, whose weights depend on every batch, its order, and the state of the optimizer.
TRAINING = """
import time
from functools import partial
from pathlib import Path
import torch
import dist_toolkit as dtk
with dtk.init(seed=0) as rt:
    engine = rt.setup(partial(torch.nn.Linear, 8, 4), partial(torch.optim.AdamW, lr=0.01))
    data = torch.utils.data.TensorDataset(torch.randn(256, 8, generator=torch.Generator().manual_seed(1)))
    loader = rt.loader(data, global_batch_size=8)
    ckpt = rt.checkpointer(engine=engine, loader=loader)
    for step, (x,) in ckpt.steps(loader, until=40):
        engine.backward(engine(x + torch.randn_like(x)).square().mean())
        engine.step()
        if step == 5:
            Path("trains").touch()
        time.sleep(0.1)
"""


def submit(cluster, folder, *options, mode="", script=SCRIPT, template=QUICK, nodes="2"):
    """Submit the script, its run in `folder`/run. Returns the job's id."""
    (folder / "train.py").write_text(script)
    run = folder / "run"
    asked = ["--nodes", nodes, "--nproc", "1", "--run-dir", str(run), "--setup", sys.executable, *options]
    if template:
        (folder / "site.j2").write_text(template)
        asked += ["--template", "site.j2"]
    command = [sys.executable, "-m", "dtk_launch", "submit", *asked, "train.py"]
    env = {"OMP_NUM_THREADS": "1", "MODE": mode, "RUN": f"{run}/task-%a" if "--array" in options else str(run)}
    return int(cluster.run(command, cwd=folder, env=env).stdout.split()[0])


def field(cluster, job, name):
    """A field of the job, as SLURM has it now."""
    text = cluster.run(["scontrol", "show", "job", "-o", str(job)]).stdout
    return re.search(rf"(?:^| ){name}=(\S*)", text)[1]


def started(cluster, log, count=2):
    cluster.wait_until(lambda: log.exists() and log.read_text().count("start 0 of") == count, "the ranks have started")


def requeued(cluster, job, timeout=20):
    """Wait until the job is in the queue again, and let it start at once: SLURM would wait for two minutes."""

    def again():
        return field(cluster, job, "Restarts") != "0" and field(cluster, job, "JobState") == "PENDING"

    cluster.wait_until(again, f"job {job} is requeued", timeout)
    # Not now: what starts in the second in which it was requeued fails, for its credential counts as revoked.
    cluster.run(["scontrol", "update", f"jobid={job}", "StartTime=now+1"])


def attempts(run):
    return [json.loads(line) for line in (run / "requeues.jsonl").read_text().splitlines()]


def test_a_task_of_an_array_that_is_told_of_its_end_is_requeued_and_no_other(cluster, tmp_path):
    array = submit(cluster, tmp_path, "--array", "1,3", nodes="1")
    logs = {task: tmp_path / "run" / f"slurm-{array}_{task}.out" for task in (1, 3)}
    for log in logs.values():
        started(cluster, log, 1)
    cluster.run(["scancel", "--signal", "USR1", f"{array}_3"])  # as --signal has it: to the steps alone
    requeued(cluster, f"{array}_3")
    assert field(cluster, f"{array}_1", "Restarts") == "0"
    cluster.wait_until(lambda: field(cluster, f"{array}_3", "JobState") == "COMPLETED", "the task has ended")
    cluster.run(["scancel", str(array)])
    log = logs[3].read_text()
    assert "start 0 of 0" in log  # the log is not begun anew
    assert "start 1 of 0" in log
    assert f"dtk: job {array}_3: ended to go on later, at step 1; it is requeued" in log
    of_task = [
        (a["job"], a["restart"], a["exit_code"], a["saved"], a["requeued"]) for a in attempts(logs[3].parent / "task-3")
    ]
    assert of_task == [(f"{array}_3", 0, 75, 1, True), (f"{array}_3", 1, 0, 1, False)]


def test_a_requeue_from_outside_is_left_to_slurm_and_a_cancelled_job_stays_so(cluster, tmp_path):
    job = submit(cluster, tmp_path, "--time", "5")
    log = tmp_path / "run" / f"slurm-{job}.out"
    started(cluster, log)
    cluster.run(["scontrol", "requeue", str(job)])
    requeued(cluster, job)
    assert cluster.wait_job(job).state == "COMPLETED", log.read_text()
    assert field(cluster, job, "Restarts") == "1"
    assert "dtk: job" not in log.read_text()

    (tmp_path / "other").mkdir()
    job = submit(cluster, tmp_path / "other")
    log = tmp_path / "other/run" / f"slurm-{job}.out"
    started(cluster, log)
    cluster.run(["scancel", str(job)])
    cluster.wait_until(lambda: "not requeued: the job was cancelled" in log.read_text(), "dtk says so")
    assert cluster.wait_job(job).state == "CANCELLED"
    assert (tmp_path / "other/run/checkpoints/step-00000001").exists()


def test_without_a_new_checkpoint_it_is_not_requeued_for_ever(cluster, tmp_path):
    job = submit(cluster, tmp_path, "--max-stalls", "2", mode="never")
    log = tmp_path / "run" / f"slurm-{job}.out"
    requeued(cluster, job)
    ended = cluster.wait_job(job)
    assert (ended.state, ended.exit_code) == ("FAILED", "75:0"), log.read_text()
    assert (
        log.read_text().count("not requeued: no new checkpoint in 2 starts in a row (--max-stalls 2; it has none)") == 1
    )
    assert [a["requeued"] for a in attempts(tmp_path / "run")] == [True, False]

    (tmp_path / "other").mkdir()
    job = submit(cluster, tmp_path / "other", "--no-requeue", mode="never")
    assert cluster.wait_job(job).exit_code == "75:0"
    assert field(cluster, job, "Requeue") == "0"


@contextlib.contextmanager
def giving_way(cluster, grace, mode="REQUEUE"):
    """GraceTime and PreemptMode of the partition that gives way to the other."""
    shown = cluster.run(["scontrol", "show", "partition", "main"]).stdout
    before = re.findall(r"\b(?:GraceTime|PreemptMode)=\w+", shown)
    change = ["scontrol", "update", "partitionname=main"]
    cluster.run([*change, f"GraceTime={grace}", f"PreemptMode={mode}"])
    try:
        yield
    finally:
        cluster.run([*change, *before])


def preempt(cluster, folder):
    """A job of the higher partition that needs both nodes, for a moment."""
    return cluster.submit("#!/bin/sh\nsleep 0.5\n", "--partition=hi", "--nodes=2", "--exclusive", cwd=folder)


PREEMPTED = [(20, "dies", "dtk"), (0, "", "SLURM"), pytest.param(1, "late", "SLURM", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("grace", "mode", "by"), PREEMPTED)
def test_a_preempted_job_goes_on(cluster, tmp_path, grace, mode, by):
    with giving_way(cluster, grace):
        job = submit(cluster, tmp_path, "--exclusive", mode=mode)
        log = tmp_path / "run" / f"slurm-{job}.out"
        started(cluster, log)
        other = preempt(cluster, tmp_path)
        requeued(cluster, job, 40)
        assert cluster.wait_job(other).state == "COMPLETED"
        assert cluster.wait_job(job).state == "COMPLETED", log.read_text()
    assert field(cluster, job, "Restarts") == "1"
    assert ("it is requeued" in log.read_text()) == (by == "dtk"), log.read_text()
    assert "was cancelled" not in log.read_text()


def test_a_job_that_its_site_cancels_for_another_goes_on(cluster, tmp_path):
    with giving_way(cluster, 0, "CANCEL"):
        job = submit(cluster, tmp_path, "--exclusive")
        log = tmp_path / "run" / f"slurm-{job}.out"
        started(cluster, log)
        preempt(cluster, tmp_path)
        requeued(cluster, job)
        assert cluster.wait_job(job).state == "COMPLETED", log.read_text()
    assert "ended to go on later, at step 1; it is requeued" in log.read_text()


def test_preempt_send_user_signal(make_cluster, tmp_path):
    with make_cluster(GRACE=20, CONF="SlurmctldParameters=preempt_send_user_signal") as cluster:
        job = submit(cluster, tmp_path, "--exclusive")
        started(cluster, tmp_path / "run" / f"slurm-{job}.out")
        preempt(cluster, tmp_path)
        requeued(cluster, job)
        assert cluster.wait_job(job).state == "COMPLETED"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["", "deaf", "late"])
def test_the_time_limit_itself(cluster, tmp_path, mode):
    """Half a minute: that often SLURM looks at time limits."""
    job = submit(cluster, tmp_path, "--time", "2", mode=mode)
    log = tmp_path / "run" / f"slurm-{job}.out"
    started(cluster, log)
    cluster.run(["scontrol", "update", f"jobid={job}", "EndTime=now+50"])
    if mode == "late":
        ended = cluster.wait_job(job, timeout=150)
        assert ended.state == "TIMEOUT", log.read_text()
        return
    requeued(cluster, job, 90)
    assert cluster.wait_job(job).state == "COMPLETED", log.read_text()
    assert "ended to go on later, at step 1; it is requeued" in log.read_text()


def final_weights(run: Path) -> dict[str, bytes]:
    """The bytes of weights, optimizer and all random numbers of the last step, by name."""
    found = {}
    for path in (run / "checkpoints/step-00000040").glob("*.safetensors"):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8:start]).items():
            if re.match(r"model\.|optim\.|rng\.", name):
                first, last = tensor["data_offsets"]
                found[name] = data[start + first : start + last]
    return found


@pytest.fixture(scope="module")
def uninterrupted(cluster, tmp_path_factory):
    """A function that waits for a run that nobody disturbs, and gives its final weights."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    job = submit(cluster, folder, script=TRAINING, template="")

    def wait():
        ended = cluster.wait_job(job, timeout=120)
        assert ended.state == "COMPLETED", ended.log
        found = final_weights(folder / "run")
        assert {"model.weight", "optim.weight.exp_avg", "rng.1.torch"} <= found.keys()
        return found

    return wait


def tell(cluster, job, how, folder):
    if how == "notice":
        cluster.run(["scancel", "--signal", "USR1", str(job)])
    elif how == "requeue":
        cluster.run(["scontrol", "requeue", str(job)])
    elif how == "time limit":
        cluster.run(["scontrol", "update", f"jobid={job}", "EndTime=now+20"])
    else:
        preempt(cluster, folder)


SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in ("requeue", "time limit", "grace", "no grace")]


@pytest.mark.parametrize("how", ["notice", *SLOW])
def test_the_final_weights_are_those_of_an_uninterrupted_run(cluster, tmp_path, uninterrupted, how):
    with giving_way(cluster, 0 if how == "no grace" else 20):
        script = TRAINING
        if how == "time limit":  # which SLURM looks at every 30 s
            script = script.replace(
                "sleep(0.1)", "sleep(0.1 if 'SLURM_RESTART_COUNT' in __import__('os').environ else 2)"
            )
        alone = []
        if how.endswith("grace"):  # what another job is to preempt has its nodes for itself
            uninterrupted()
            alone = ["--exclusive"]
        job = submit(cluster, tmp_path, *alone, script=script, template="")
        cluster.wait_until((tmp_path / "trains").exists, "it trains", 90)
        tell(cluster, job, how, tmp_path)
        requeued(cluster, job, 90)
        ended = cluster.wait_job(job, timeout=120)
    assert ended.state == "COMPLETED", ended.log
    assert 0 < int(re.search(r"restored step (\d+)", ended.log)[1]) < 40
    if how not in ("requeue", "no grace"):  # after KillWait SLURM kills dtk, too, noted or not
        assert attempts(tmp_path / "run")[0]["exit_code"] == 75
    expected, resumed = uninterrupted(), final_weights(tmp_path / "run")
    assert [name for name in expected.keys() | resumed.keys() if expected[name] != resumed[name]] == []


@pytest.mark.slow
def test_the_final_weights_where_preemption_sends_the_user_signal(make_cluster, tmp_path, uninterrupted):
    expected = uninterrupted()
    with make_cluster(GRACE=20, CONF="SlurmctldParameters=preempt_send_user_signal") as cluster:
        job = submit(cluster, tmp_path, "--exclusive", script=TRAINING, template="")
        cluster.wait_until((tmp_path / "trains").exists, "it trains", 90)
        preempt(cluster, tmp_path)
        requeued(cluster, job, 90)
        ended = cluster.wait_job(job, timeout=120)
    assert ended.state == "COMPLETED", ended.log
    assert 0 < int(re.search(r"restored step (\d+)", ended.log)[1]) < 40
    resumed = final_weights(tmp_path / "run")
    assert [name for name in expected.keys() | resumed.keys() if expected[name] != resumed[name]] == []
