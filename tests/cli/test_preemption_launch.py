"""What dtk tells the ranks when it is to end, how long they get, which exit code that gives; and the test of it."""

import json
import signal
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals and /proc"),
]

# Rank 0 saves slowly, and says whether a process of its group lives; rank 1 is soon done; rank 2 knows no signal.
THREE = """
import os, signal, subprocess, sys, time
rank = os.environ["RANK"]
loader = subprocess.Popen(["sleep", "600"])
def save(signum, frame):
    with open(f"got{{rank}}", "a") as file:
        file.write(f"{{signum}} ")
    if rank == "0":
        time.sleep(1.5)
        with open("saved", "w") as file:
            file.write(str(loader.poll()))
    loader.kill()
    sys.exit(75)
if rank != "2":
    signal.signal(signal.{name}, save)
with open(f"rank{{rank}}", "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--max-restarts", "1"), "SIGTERM"),
        (("--preempt-signal", "usr1", "--max-restarts", "3", "--grace", "5s"), "SIGUSR1"),
    ],
)
def test_each_rank_is_told_once_and_may_take_its_time_but_no_more_than_the_grace(start, options, name):
    run = start(THREE.format(name=name), "--nproc", "3", *options)
    run.pids("rank0", "rank1", "rank2")
    run.process.terminate()
    code, _, err = run.wait()
    expected = 75 if name == "SIGTERM" else 143  # rank 2 ended itself, or was killed: it may have had to save
    assert (code, "preempted and saved" in err) == (expected, expected == 75), err
    assert ("but rank 2 was killed before it had saved" in err) == (expected != 75)
    number = int(signal.Signals[name])
    assert [(run.folder / f"got{rank}").read_text() for rank in (0, 1)] == [f"{number} ", f"{number} "]
    assert (run.folder / "saved").read_text() == "None"  # the process of its group was not told
    assert run.record(1)["restart"] == 0
    assert ("still there 5 s after SIGTERM (--grace): ranks 2\n" in err) == (name == "SIGUSR1")  # it has no handler
    run.nothing_is_left()


# Leaves as Lightning does. The other rank writes what a Trainer writes.
EXITS_0 = """
class SIGTERMException(SystemExit):
    pass
def leave(signum, frame):
    {leave}
signal.signal(signal.SIGTERM, leave)
"""
TRAINER = """os.makedirs("out/checkpoint-3")
    with open("out/checkpoint-3/trainer_state.json", "w") as file:
        file.write('{"global_step": 3, "max_steps": 9}')
    sys.exit()"""


@pytest.mark.parametrize(
    ("leave", "code", "said"),
    [
        (TRAINER, 75, "its Trainer saved step 3 of 9 in "),
        pytest.param("raise SIGTERMException", 75, "Lightning left its training on the signal", marks=pytest.mark.slow),
        pytest.param("sys.exit()", 0, "ended with 0 after SIGTERM, so this run is done", marks=pytest.mark.slow),
    ],
)
def test_a_script_that_ends_with_0_when_it_is_told_to_stop(start, waiting, leave, code, said):
    run = start(waiting(EXITS_0.format(leave=leave)))
    run.pids("rank0", "child0")
    run.process.terminate()
    found, _, err = run.wait()
    assert (found, said in err) == (code, True), err
    run.nothing_is_left()


TRAINING = """
import glob, os, time
from functools import partial
import torch
import dist_toolkit as dtk
second = os.path.exists("second")
open("second", "w").close()
with dtk.init(seed=0, log_every=1) as rt:
    engine = rt.setup(partial(torch.nn.Linear, 2, 1), partial(torch.optim.SGD, lr=0.1))
    loader = rt.loader(torch.utils.data.TensorDataset(torch.ones(40, 2)), global_batch_size=4)
    ckpt = rt.checkpointer(engine=engine, loader=loader)
    saved = max((int(name[-8:]) for name in glob.glob("runs/script/checkpoints/step-*")), default=0)
    for step, (x,) in ckpt.steps(loader, until=saved + 5 if second else 10**6):
        loss = engine(x).mean()
        engine.backward(loss)
        engine.step()
        rt.log(step, loss=loss)
        time.sleep(0.01)
"""


def test_a_preemption_as_a_test_of_a_training_that_saves(start):
    # SIGUSR1: a rank that is still importing remembers it
    run = start(TRAINING, "--device", "cpu", "--preempt-signal", "USR1", "--preempt-test", "2s", "--json")
    code, out, err = run.wait(120)
    assert (code, "dtk: preempt test: lost: nothing" in err) == (0, True), err
    found = json.loads(out)["preempt_test"]
    assert (found["exit_code"], found["second_exit_code"], found["lost_steps"]) == (75, 0, 0)
    assert found["last_step"] == found["saved_step"] == found["resumed_step"] >= 1
    assert found["seconds_to_return"] > 0
    steps = [json.loads(line)["step"] for line in (run.folder / "runs/script/metrics.jsonl").open()]
    assert steps == list(range(1, found["saved_step"] + 6))


@pytest.mark.slow
def test_a_preemption_as_a_test_of_a_script_that_does_not_save(start):
    run = start("import time; time.sleep(600)", "--preempt-test", "100ms", "--json")
    code, out, err = run.wait()
    assert (code, "ended with 143 " in err, "before the first step" in err) == (74, True, True), err
    found = json.loads(out)["preempt_test"]
    assert (found["exit_code"], found["second_exit_code"], found["lost_steps"]) == (143, None, None)


# Says nothing of its steps to dtk, and knows no dist_toolkit; what it saves is its own.
FOREIGN = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
import torch
weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
step = int(open("saved").read()) if os.path.exists("saved") else 0
until, begun = (step + 7 if step else 10**9), step
while step < until:
    weight.sum().backward()
    optimizer.step()
    step += 1
    if told:
        open("saved", "w").write(str(step))
        sys.exit(75)
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_a_preemption_as_a_test_of_a_script_that_says_nothing_of_its_steps(start):
    run = start(FOREIGN, "--device", "cpu", "--preempt-test", "5s", "--json")
    code, out, err = run.wait()
    assert (code, "lost: unknown, for nothing shows from which step it went on" in err) == (74, True), err
    found, steps = json.loads(out)["preempt_test"], int((run.folder / "saved").read_text())
    assert (found["exit_code"], found["second_exit_code"], found["lost_steps"]) == (75, 0, None)
    assert (found["counted_at_end"], found["counted_again"]) == (steps, 7)
    assert 0 <= (found["counted_at_notice"] or 0) <= steps
    assert f"{steps} by the end, 7 after the second start" in err


@pytest.mark.slow
def test_hugging_faces_trainer_saves_when_it_is_told_to(start, until):
    source = (Path(__file__).parent / "other_libraries" / "trainer.py").read_text()
    words = "--output_dir out --max_steps 100000 --report_to none --save_steps 5 --enable_jit_checkpoint true"
    args = (*words.split(), "--dataloader_num_workers", "1", "--disable_tqdm", "true")
    run = start(source, "--device", "cpu", "--env", "ACCELERATE_USE_CPU=true", args=args)
    until(lambda: (run.folder / "out/checkpoint-5/trainer_state.json").exists(), "it has saved step 5", timeout=120)
    run.process.terminate()
    code, _, err = run.wait()
    assert (code, "preempted: its Trainer saved step " in err) == (75, True), err
    run.nothing_is_left()
