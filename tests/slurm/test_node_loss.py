"""Nodes that die in training: the run goes on by itself, loses no step that was saved, and takes the same samples."""

import json
import re
import sys

import pytest
import torch

pytestmark = pytest.mark.slurm

STEPS = 60
# 12 samples go to 1, 2 and 3 ranks. Each fifth step is saved, every rank notes its samples, the weights depend on all.
TRAINING = f"""
import json, os, socket, sys, time
from functools import partial
from pathlib import Path
import torch
import dist_toolkit as dtk
run = Path(os.environ["DTK_RUN_DIR"])
(run / "samples").mkdir(exist_ok=True)
start = os.environ.get("SLURM_RESTART_COUNT", "0") + "-" + os.environ["TORCHELASTIC_RESTART_COUNT"]
noted = open(run / "samples" / f"{{start}}-{{socket.gethostname()}}-{{os.environ['RANK']}}-{{time.time_ns()}}", "w")
with dtk.init(seed=0) as rt:
    engine = rt.setup(partial(torch.nn.Linear, 8, 4), partial(torch.optim.SGD, lr=0.01, momentum=0.9))
    x = torch.randn(252, 8, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, torch.arange(252))
    loader = rt.loader(data, global_batch_size=12)
    ckpt = rt.checkpointer(engine=engine, loader=loader, every=5, keep_last=None)
    for step, (x, number) in ckpt.steps(loader, until={STEPS}):
        engine.backward(engine(x).square().mean())
        engine.step()
        print(json.dumps([rt.world.world_size, step, number.tolist()]), file=noted, flush=True)
        time.sleep(float(sys.argv[1]))
    if rt.world.is_main:
        torch.save(engine.module.state_dict(), run / "weights.pt")
"""


@pytest.fixture
def cluster(make_cluster):
    """Six nodes, of which SLURM knows a few seconds later that they are dead."""
    with make_cluster(NODES=6, CPUS=1, SLURMD_TIMEOUT=6) as cluster:
        yield cluster


class Run:
    """A job that trains."""

    def __init__(self, cluster, folder, name, *options, pause=0.2):
        self.cluster, self.name, self.folder = cluster, name, folder / "runs" / name
        (folder / "train.py").write_text(TRAINING)
        asked = ["--nproc", "1", "--name", name, "--time", "00:10:00", *options, "train.py", str(pause)]
        env = {"OMP_NUM_THREADS": "1", "DTK_NODE_TIMEOUT": "8"}
        command = [sys.executable, "-m", "dtk_launch", "submit", *asked]
        self.job = int(cluster.run(command, cwd=folder, env=env).stdout.split()[0])

    def field(self, name):
        """What SLURM says."""
        text = self.cluster.run(["scontrol", "show", "job", "-o", str(self.job)]).stdout
        return re.search(rf"(?:^| ){name}=(\S*)", text)[1]

    def trains(self, step=11):
        """Wait for a step behind two checkpoints; the nodes of the job, the first first."""
        self.cluster.wait_until(lambda: step in self.samples()[0], f"{self.name} has made step {step}", 90)
        return self.cluster.run(["scontrol", "show", "hostnames", self.field("NodeList")]).stdout.split()

    def starts(self):
        """Of each start of the ranks, in their order: step -> (number of ranks, samples that all of them took)."""
        found = {}
        for file in sorted((self.folder / "samples").glob("*"), key=lambda file: int(file.name.rpartition("-")[2])):
            steps = found.setdefault(tuple(file.name.split("-")[:2]), {})
            for line in file.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    world, step, numbers = json.loads(line)
                    steps[step] = (world, sorted([*steps.get(step, (0, []))[1], *numbers]))
        return list(found.values())

    def samples(self):
        """Step -> the samples of its last start that made it, and the steps that were made more than once."""
        taken, again = {}, []
        for start in self.starts():
            whole = {step: numbers for step, (_, numbers) in start.items() if len(numbers) == 12}
            again += [step for step in whole if step in taken]
            taken |= whole
        return taken, again

    def requeued(self, timeout=60, pause=1):
        """Let it start `pause` seconds after it is back in the queue: SLURM would wait for two minutes."""

        def again():
            return self.field("Restarts") != "0" and self.field("JobState") == "PENDING"

        self.cluster.wait_until(again, f"{self.name} is requeued", timeout)
        self.cluster.run(["scontrol", "update", f"jobid={self.job}", f"StartTime=now+{pause}"])

    def ended(self, timeout=150):
        """The job, which has ended well, each step with the samples that it would have had without the fault."""
        job = self.cluster.wait_job(self.job, timeout)
        assert (job.state, job.exit_code) == ("COMPLETED", "0:0"), job.log
        taken, again = self.samples()
        assert sorted(taken) == list(range(1, STEPS + 1)), job.log
        assert len(again) <= 6, "at most the steps since the last checkpoint, and the one that was being made"
        epoch = sorted(number for step in range(1, 22) for number in taken[step])
        assert epoch == list(range(252)), "21 steps of 12 take each once"
        return job


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_nodes_and_two_writers_do_not_meet(cluster, tmp_path):
    shrinks = Run(cluster, tmp_path, "shrinks", "--nodes", "1:2", "--max-restarts", "3")
    split = Run(cluster, tmp_path, "split", "--nodes", "1", pause=0.7)
    *_, last = shrinks.trains()
    says = cluster.run([sys.executable, "-m", "dtk_launch", "status", str(shrinks.job)], cwd=tmp_path).stdout
    assert f"to end at step {STEPS}, in about 0:00:" in says
    cluster.power("stop", last)
    (host,) = split.trains()
    cluster.run(["pkill", "-9", "-x", "slurmd"], node=host)  # its ranks are well, but SLURM does not see them
    split.requeued()
    split_job, shrunk_job = split.ended(), shrinks.ended()
    assert f"{last} is lost: no word for 8 s; the ranks begin again without it" in shrunk_job.log
    assert [{world for world, _ in start.values()} for start in shrinks.starts()] == [{2}, {1}]
    assert len(split.starts()) == 2
    assert split_job.nodes != host
    assert not cluster.run(["pgrep", "-f", "train.py"], node=host, check=False).stdout, "the old ranks are gone"
    assert split.samples()[0] == shrinks.samples()[0]
    one, two = (torch.load(run.folder / "weights.pt") for run in (split, shrinks))
    torch.testing.assert_close(one, two)  # the mean of two ranks' gradients is rounded otherwise


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the batch host", "another"])
def test_a_power_cut(cluster, tmp_path, which):
    run = Run(cluster, tmp_path, "rigid", "--nodes", "2")
    first, last = run.trains()
    cluster.power("stop", first if which == "the batch host" else last)
    run.requeued()
    run.ended()
    assert [{world for world, _ in start.values()} for start in run.starts()] == [{2}, {2}]


@pytest.mark.slow
def test_a_power_cut_that_the_ranks_notice_first(cluster, tmp_path):
    """Their errors end the run before SLURM knows why."""
    run = Run(cluster, tmp_path, "noticed", "--nodes", "2")
    _, last = run.trains()
    cluster.run(["pkill", "-9", "-f", "train.py"], node=last)  # the other rank's connection is reset
    cluster.power("stop", last)
    run.requeued()
    job = run.ended()
    assert f"nothing is known of {last}" in job.log


@pytest.mark.slow
def test_slurmd_dies_on_one_of_two_nodes(cluster, tmp_path):
    """The ranks are well, and are told: they save."""
    run = Run(cluster, tmp_path, "unseen", "--nodes", "2", pause=0.7)
    _, last = run.trains()
    cluster.run(["pkill", "-9", "-x", "slurmd"], node=last)
    run.requeued()
    run.ended()
    assert not cluster.run(["pgrep", "-f", "train.py"], node=last, check=False).stdout, "the old ranks are gone"
    _, again = run.samples()
    assert len(again) <= 1, "the one that was being made"


@pytest.mark.slow
def test_slurmstepd_dies(cluster, tmp_path):
    """The ranks do not need it, and nobody else tells srun that they have ended."""
    run = Run(cluster, tmp_path, "stepd", "--nodes", "2")
    _, last = run.trains()
    cluster.run(["pkill", "-9", "-x", "slurmstepd"], node=last)
    job = run.ended()
    assert "slurmstepd must have died" in job.log
    assert len(run.starts()) == 1


@pytest.mark.slow
def test_slurmstepd_of_the_batch_host_dies(cluster, tmp_path):
    run = Run(cluster, tmp_path, "stepds", "--nodes", "1", pause=0.7)
    (host,) = run.trains()
    cluster.run(["pkill", "-9", "-x", "slurmstepd"], node=host)
    run.requeued(pause=15)  # its srun still ends the step of this number, which would be the new one's
    run.ended()


@pytest.mark.slow
def test_the_first_node_of_a_run_that_may_shrink_dies(cluster, tmp_path):
    """The batch script is gone, and the ranks cannot meet any more: the second node has the job requeued."""
    run = Run(cluster, tmp_path, "headless", "--nodes", "1:2", "--max-restarts", "3")
    first, _ = run.trains()
    cluster.power("stop", first)
    run.requeued()
    run.ended()
    assert {world for start in run.starts() for world, _ in start.values()} == {2}


@pytest.mark.slow
def test_too_few_nodes_are_left(cluster, tmp_path):
    run = Run(cluster, tmp_path, "few", "--nodes", "2:3", "--max-restarts", "3")
    _, *others = run.trains()
    for node in others:
        cluster.power("stop", node)
    run.requeued()
    job = run.ended()
    assert "the run cannot go on" in job.log
    assert re.search(rf"{others[0]}, {others[1]} are lost; it is requeued", job.log)
