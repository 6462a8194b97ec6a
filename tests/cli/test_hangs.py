"""Runs that are made to hang, and runs that only look so: real ranks over gloo, and an unchanged script."""

import contextlib
import json
import os
import re
import sys
import time

import pytest

pytestmark = [pytest.mark.cli, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]

# Steps of a few milliseconds; {seed} is done by each rank after the fourth.
SCRIPT = """
import os, subprocess, sys, threading, time
import torch, torch.distributed as dist
from torch.utils.data import DataLoader
rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def step():
    model(torch.ones(2, 4)).sum().backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    optimizer.step()
    optimizer.zero_grad()

def until(name):
    while not os.path.exists(name):
        time.sleep(0.05)

class Blocked:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if index == 5:
            until("batch")
        return index

def deadlock():
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lambda: (until("unlock"), lock.release()), daemon=True).start()
    lock.acquire()

def endless():
    number = 0
    while not {stop_loop}:
        number += 1

def save():
    dist.barrier()
    open("saved", "w").close()

def work():
    x = torch.randn(100, 100)
    for layer in (torch.relu, torch.tanh, torch.sigmoid, torch.nn.functional.softplus, torch.nn.functional.layer_norm):
        x = layer(x @ x / 100, (100,)) if layer is torch.nn.functional.layer_norm else layer(x @ x / 100)
    torch.nn.functional.cross_entropy(x, torch.zeros(100, dtype=torch.long))

def evaluate(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()

def write(seconds):
    end = time.monotonic() + seconds
    with open("big", "wb") as file:
        while time.monotonic() < end:
            file.write(os.urandom(1 << 16))
            os.fsync(file.fileno())
            file.seek(0)
            time.sleep(0.05)

def here():
    for number in range(4):
        step()
{seed}
for number in range(4):
    step()
dist.barrier()
print("done")
"""


def script(seed, stop_loop="False"):
    return SCRIPT.replace("{stop_loop}", stop_loop).replace("{seed}", "here()\n" + seed)


def line_of(source, text, after=0):
    """Number of the first line that has this text, or of a later one."""
    return [number for number, line in enumerate(source.splitlines(), start=1) if text in line][after]


class Output:
    """What dtk writes to stderr."""

    def __init__(self, run):
        self._file, self.text = run.process.stderr.fileno(), ""
        os.set_blocking(self._file, False)

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._file, 1 << 16):
                self.text += data.decode()
        return self.text


def test_a_hang_is_named_while_the_run_goes_on_and_so_is_its_end(start, dtk, until):
    seed = "if rank == 1: deadlock()\nhere()\nif rank == 1: list(DataLoader(Blocked(), num_workers=2))\nhere()"
    source = script(f"{seed}\nif rank == 0: save()")
    run = start(source, "--nproc", "2", "--hang-timeout", "1")
    said, folder = Output(run), run.folder
    reduce, inside = line_of(source, "dist.all_reduce"), line_of(source, 'until("batch")')

    until(lambda: "dtk: hang: " in said.read(), "the deadlocked lock is found")
    locked = line_of(source, "lock.acquire()", 1)
    assert f"rank 1 waits for another thread in deadlock (script.py:{locked})" in said.text
    assert f"rank 0 waits in all_reduce (script.py:{reduce})" in said.text
    told = json.loads((folder / "runs/script/hang.json").read_text())
    assert (told["odd"], told["steps"], told["action"]) == ([1], 4, "report")
    assert "in deadlock" in told["stacks"]["1"]["main"]
    until(lambda: "hang: rank 1 waits for another thread" in dtk("runs").stdout, "dtk runs shows it")
    (folder / "unlock").touch()
    until(lambda: "the run moves again" in said.read(), "it goes on")

    worker = f"a worker process sleeps in until (script.py:{line_of(source, 'time.sleep(0.05)')})"
    until(lambda: said.read().count("dtk: hang: ") == 2, "the dataset is found")
    assert "rank 1 waits for the next batch of the DataLoader" in said.text
    assert worker in said.text
    asked = dtk("stacks", "script")
    assert f"rank 0 waits in all_reduce (script.py:{reduce})" in asked.stdout, asked.stderr
    assert worker in asked.stdout
    stacks = json.loads(dtk("stacks", "--json", str(folder / "runs/script")).stdout)["stacks"]
    assert any(f'script.py", line {inside} in __getitem__' in text for text in stacks["1"]["workers"].values())
    (folder / "batch").touch()

    until(lambda: said.read().count("dtk: hang: ") == 3, "the lonely save is found")
    assert f"rank 0 waits in barrier (script.py:{line_of(source, 'dist.barrier()')})" in said.text
    run.process.terminate()
    assert run.process.wait(timeout=60) == 143
    verdict = json.loads((folder / "runs/script/verdict.json").read_text())
    assert {group["call"] for group in verdict["hang"]["groups"]} == {"barrier", "all_reduce"}
    gone = dtk("stacks", "script")
    assert (gone.returncode, "this run is over: script: stopped: by SIGTERM" in gone.stderr) == (1, True)


@pytest.mark.slow
def test_what_only_takes_long_is_no_hang(start):
    seed = """
evaluate(1)
if rank == 0: evaluate(4.5)
here()
if rank == 0: write(4.5)
"""
    source = script(seed).replace("import torch, torch.dist", "time.sleep(1)\nimport torch, torch.dist")
    code, out, err = start(source, "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop").wait(120)
    assert (code, "hang" in err) == (0, False), err
    assert out.count("done") == 2


DDP = """model = torch.nn.parallel.DistributedDataParallel(model)
def step():
    model(torch.ones(2, 4)).sum().backward()
"""
ALONE = {
    "missing": ("if rank == 1: until('never')", [1], "sleeps in until"),
    "mismatched": ("if rank == 1: dist.all_gather_object([None, None], rank)", [], "in all_gather_object"),
    "getitem": ("if rank == 1: list(DataLoader(Blocked()))", [1], "sleeps in until"),
    "endless": ("if rank == 1: endless()", [1], "rank 1 keeps computing in endless"),
    "ddp": (
        f"{DDP}    optimizer.step()\nhere()\nif rank == 1: deadlock()",
        [1],
        "rank 1 waits for another thread in deadlock",
    ),
    "stopped": ("if rank == 1: os.kill(os.getpid(), 19)", [1], "rank 1 is stopped (SIGSTOP"),
    "branch": ("if rank == 1: dist.barrier()", [], "rank 1 waits in barrier"),
    "subprocess": ("if rank == 1: subprocess.run(['sleep', '600'])", [1], "rank 1 waits for a program in"),
}


@pytest.mark.parametrize(
    "seed", [pytest.param(name, marks=() if name == "ddp" else pytest.mark.slow) for name in ALONE]
)
def test_a_hang_ends_the_run_where_that_is_asked_for(start, tmp_path, seed):
    line, odd, words = ALONE[seed]
    code, out, err = start(script(line), "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop", "--json").wait(120)
    assert code == 124, err
    assert words in err
    assert "dtk: ended because it hung" in err
    result, run = json.loads(out), tmp_path / "runs/script"
    assert (result["exit_code"], result["failure"]) == (124, None)
    assert json.loads((run / "hang.json").read_text())["odd"] == odd
    assert json.loads((run / "verdict.json").read_text())["hang"]["odd"] == odd


@pytest.mark.slow
def test_a_long_call_of_c_is_no_hang(start):
    seed = """
import hashlib
if rank == 0:
    compute = lambda rounds: hashlib.pbkdf2_hmac("sha256", b"word", b"salt", rounds)
    began = time.monotonic()
    compute(1_000_000)
    compute(int(50_000_000 / (time.monotonic() - began)))
    print("computed", time.monotonic() - began)
"""
    code, out, err = start(script(seed), "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop").wait(240)
    assert (code, "hang" in err) == (0, False), err
    # longer than the time after which a rank that gets nowhere is named, however busy the machine was
    assert float(out.partition("computed ")[2].split()[0]) > 35


@pytest.mark.slow
def test_an_endless_loop_over_functions_is_worth_a_word_and_is_not_ended(start, until):
    seed = """
def loop():
    while not os.path.exists("enough"):
        work()
if rank == 1: loop()
"""
    source = script(seed)
    run = start(source, "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop")
    said = Output(run)
    until(lambda: "work that takes long, or an endless loop; it goes on" in said.read(), "it is said", 200)
    # a rank answers between two steps of Python, so that all looks may have found it in the function which it calls
    seen = re.search(r"rank 1 is at work, at each look in (loop|work) \(script.py:(\d+)\)", said.text)
    assert seen, said.text
    assert seen[1] == "work" or int(seen[2]) == line_of(source, "        work()", 1)
    assert f"rank 0 waits in all_reduce (script.py:{line_of(source, 'dist.all_reduce')})" in said.text
    assert "dtk: hang" not in said.text
    (run.folder / "enough").touch()
    assert run.process.wait(60) == 0


@pytest.mark.slow
def test_auto_names_a_hang_after_the_time_that_quick_steps_teach(start, tmp_path):
    run = start(script("if rank == 1: deadlock()"), "--nproc", "2", "--on-hang", "stop", "--hang-timeout", "auto")
    code, _, err = run.wait(240)
    assert (code, "rank 1 waits for another thread in deadlock" in err) == (124, True), err
    told = json.loads((tmp_path / "runs/script/hang.json").read_text())
    # looked at after 60 s, said when nothing has moved for 30 s more; 600 s would be the time before the first steps
    assert (told["step_seconds"] < 2, 90 <= told["silent_seconds"] < 200) == (True, True)


@pytest.mark.slow
def test_auto_takes_no_long_evaluation_and_no_long_save_for_a_hang(start):
    seed = "if rank == 0: evaluate(100); write(100)"  # without a step between, which would teach a longer pause
    code, out, err = start(script(seed), "--nproc", "2", "--on-hang", "stop").wait(400)
    assert (code, "hang" in err) == (0, False), err
    assert out.count("done") == 2


@pytest.mark.slow
def test_a_compilation_is_no_hang(start):
    seed = """
def net(x):
    for number in range(40):
        x = torch.nn.functional.gelu(x * number) + x.sin()
    return x
if rank == 0:
    torch.compile(net)(torch.ones(64, 64))
"""
    code, _, err = start(script(seed), "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop").wait(240)
    assert (code, "hang" in err) == (0, False), err


@pytest.mark.slow
def test_the_supervisor_rests_while_steps_are_made(start):
    run = start(script("evaluate(20)"), "--nproc", "2", "--hang-timeout", "600")
    time.sleep(10)
    ticks = lambda: sum(map(int, open(f"/proc/{run.process.pid}/stat").read().rpartition(")")[2].split()[11:13]))  # noqa: E731, SIM115
    before = ticks()
    time.sleep(10)
    used = (ticks() - before) / os.sysconf("SC_CLK_TCK") / 10
    assert used < 0.05
    assert run.wait()[0] == 0


OVER = """
import os, threading
lock = threading.Lock()
lock.acquire()

def save():
    lock.acquire()

if os.environ["RANK"] != "0":
    threading.Thread(target=save).start()
if os.environ["RANK"] == "2":
    raise ValueError("bad")
"""


def test_ranks_that_stay_after_their_scripts_are_found_though_another_one_has_ended(start, dtk, until):
    run = start(OVER, "--nproc", "3", "--hang-timeout", "2", "--on-hang", "report")
    said, waits = Output(run), f"waits for a thread in save (script.py:{line_of(OVER, 'lock.acquire()', 1)})"
    until(lambda: "dtk: hang: " in said.read(), "it is found")
    assert f"rank 1 has ended its script and {waits}; rank 2 has failed (ValueError) and {waits}" in said.text
    asked = dtk("stacks", "script")
    assert asked.stdout.count(waits) == 2, asked.stderr
    assert "tell" not in asked.stdout


@pytest.mark.slow
def test_threads_at_work_after_the_script_are_no_hang(start):
    source = """
import os, threading, time

def upload():
    end = time.monotonic() + 8
    with open("upload" + os.environ["RANK"], "wb") as file:
        while time.monotonic() < end:
            file.write(os.urandom(1 << 16))
            os.fsync(file.fileno())
            time.sleep(0.2)

class Slow:
    def __del__(self):
        time.sleep(4)

last = Slow()
threading.Thread(target=upload).start()
"""
    code, _, err = start(source, "--nproc", "2", "--hang-timeout", "1", "--on-hang", "stop").wait(120)
    assert (code, "hang" in err) == (0, False), err
