"""A signal that comes before the runtime is there, or after the training: exit code 75, and nothing is left."""

import os
import signal
import sys

import pytest

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals and /proc"),
]

SCRIPT = """
import os, time
rank = os.environ["RANK"]
with open(f"started{rank}", "w") as file:
    file.write(str(os.getpid()))
while not os.path.exists("go"):
    time.sleep(0.02)
from functools import partial
import torch
import dist_toolkit as dtk
with dtk.init(seed=0) as rt:
    engine = rt.setup(partial(torch.nn.Linear, 2, 1), partial(torch.optim.SGD, lr=0.1))
    loader = rt.loader(torch.utils.data.TensorDataset(torch.ones(40, 2)), global_batch_size=4)
    ckpt = rt.checkpointer(engine=engine, loader=loader)
    for step, (x,) in ckpt.steps(loader, until=10):
        engine.backward(engine(x).mean())
        engine.step()
    with open(f"trained{rank}", "w") as file:
        file.write(str(os.getpid()))
    if rank == "1":
        time.sleep(120)
    rt.mean().compute()  # rank 0 waits here
"""


def test_a_notice_before_the_import(start, both):
    run = start(SCRIPT, "--nproc", "2", "--device", "cpu")
    run.pids("started0", "started1")
    run.process.send_signal(signal.SIGUSR1)
    (run.folder / "go").touch()
    code, _, err = run.wait()
    assert (code, "preempted and saved" in err) == (75, True), err
    saved = sorted(path.name for path in (run.folder / "runs/script/checkpoints").glob("step-*"))
    assert saved in (["step-00000001"], ["step-00000002"])
    run.nothing_is_left()


@pytest.mark.slow
def test_a_signal_to_one_rank_in_the_last_evaluation(start, both):
    run = start(SCRIPT, "--nproc", "2", "--device", "cpu")
    (run.folder / "go").touch()
    pids = run.pids("trained0", "trained1")
    os.kill(pids[1], signal.SIGTERM)
    code, _, err = run.wait()
    assert (code, "preempted and saved" in err) == (75, True), err
    assert (run.folder / "runs/script/checkpoints/step-00000010").exists()
    run.nothing_is_left()
