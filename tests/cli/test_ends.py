"""However a launch ends, its exit code says how, each rank gets one notice, and no process is left."""

import os
import signal
import sys
import time

import pytest

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals and /proc"),
]

# A handler that notes each signal it gets, then does {end}.
SAVE_ON = """
def save(signum, frame):
    with open(f"got{{rank}}", "a") as file:
        file.write(f"{{signum}} ")
    {end}
signal.signal(signal.{name}, save)
"""


def test_sigterm_reaches_each_rank_once_and_a_save_gives_75(start, waiting, both):
    run = start(waiting(SAVE_ON.format(end="sys.exit(75)", name="SIGTERM")), "--nproc", "2", "--max-restarts", "1")
    run.pids(*both)
    run.torchrun()
    run.process.terminate()
    time.sleep(0.05)
    run.process.terminate()  # SLURM sends two
    code, _, err = run.wait()
    assert code == 75, err
    assert "started again, it goes on" in err
    assert [(run.folder / f"got{rank}").read_text() for rank in (0, 1)] == ["15 ", "15 "]
    run.nothing_is_left()


def test_sigterm_without_a_save(start, waiting, both):
    run = start(waiting(), "--nproc", "2")
    run.pids(*both)
    run.torchrun()
    run.process.terminate()
    code, _, err = run.wait()
    assert (code, "ended by SIGTERM" in err) == (143, True)
    run.nothing_is_left()


def test_ctrl_c_of_the_terminal_reaches_each_rank_once(start, waiting, both):
    end = "time.sleep(1); open(f'saved{rank}', 'w').close(); raise KeyboardInterrupt"
    run = start(waiting(SAVE_ON.format(end=end, name="SIGINT")), "--nproc", "2")
    run.pids(*both)
    assert os.getsid(run.torchrun()) != os.getsid(run.process.pid)
    os.killpg(run.process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    code, _, err = run.wait()
    assert (code, "ended by SIGINT" in err) == (130, True)
    assert [(run.folder / f"got{rank}").read_text() for rank in (0, 1)] == ["2 ", "2 "]
    assert all((run.folder / f"saved{rank}").exists() for rank in (0, 1))
    assert "Traceback" not in "".join(line for line in err.splitlines() if not line.startswith("["))
    run.nothing_is_left()


def test_a_second_ctrl_c_ends_ranks_that_will_not_and_a_run_has_its_directory_alone(start, dtk, waiting, both):
    run = start(waiting("signal.signal(signal.SIGINT, signal.SIG_IGN)"), "--nproc", "2")
    run.pids(*both)
    run.torchrun()
    run.process.send_signal(signal.SIGINT)
    other = dtk("launch", "script.py")
    running = f"another dtk launch (pid {run.process.pid}) is running"  # its pid: seen, and not waited for in vain
    assert (other.returncode, running in other.stderr) == (2, True), other.stderr
    time.sleep(1)  # so that the two are not one press
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    code, _, _ = run.wait()
    assert code == 130
    assert time.monotonic() - began < 5
    run.nothing_is_left()


def test_usr1_is_passed_on_and_torchrun_lives(start, waiting, both, until):
    setup = SAVE_ON.format(end="pass", name="SIGUSR1")
    loop = "while not os.path.exists('go'): time.sleep(0.02)\nchild.kill()\nchild.wait()"
    run = start(waiting(setup, loop), "--nproc", "2")
    run.pids(*both)
    run.process.send_signal(signal.SIGUSR1)
    until(lambda: all((run.folder / f"got{rank}").exists() for rank in (0, 1)), "both ranks got SIGUSR1")
    os.kill(run.torchrun(), signal.SIGUSR1)
    (run.folder / "go").touch()
    code, _, err = run.wait()
    assert code == 0, err
    assert (run.folder / "got0").read_text() == "10 "
    run.nothing_is_left()


def test_a_rank_that_saved_by_itself_ends_the_run_restarts_or_not(start, waiting, both):
    setup = SAVE_ON.format(end="sys.exit(75)", name="SIGUSR1")
    run = start(waiting(setup), "--nproc", "2", "--max-restarts", "3")
    run.pids(*both)
    run.process.send_signal(signal.SIGUSR1)
    code, _, err = run.wait()
    assert code == 75, err
    assert run.record(0)["restart"] == 0
    run.nothing_is_left()


def test_sigkill_of_a_rank(start, waiting, both):
    run = start(waiting(), "--nproc", "2")
    pids = run.pids(*both)
    run.torchrun()
    os.kill(pids[1], signal.SIGKILL)
    code, _, err = run.wait()
    assert code == 137
    assert "dtk: rank 1 failed first: killed by SIGKILL\n" in err
    run.nothing_is_left()


def test_sigkill_of_torchrun(start, waiting, both):
    run = start(waiting(), "--nproc", "2")
    run.pids(*both)
    os.kill(run.torchrun(), signal.SIGKILL)
    code, _, err = run.wait()
    assert (code, "torchrun was killed by SIGKILL" in err) == (137, True)
    run.nothing_is_left()


def test_sigkill_of_dtk_ends_torchrun_and_the_ranks(start, waiting, both):
    run = start(waiting(), "--nproc", "2")
    run.pids(*both)
    ended = {run.torchrun(), *run.pids("rank0", "rank1")}
    run.process.kill()
    run.process.wait()
    for child in run.pids("child0", "child1"):  # a daemon of the script's own making is not a rank
        os.kill(child, signal.SIGKILL)
    run.nothing_is_left()
    assert len(ended) == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_ranks_have_started(start, waiting, until, signum):
    run = start(waiting(), "--nproc", "2")
    until(lambda: (run.folder / "runs/script/plan.json").exists(), "dtk has begun")
    time.sleep(0.2)
    run.torchrun()
    run.process.send_signal(signum)
    code, _, err = run.wait()
    assert (code, err) == (128 + signum, f"dtk: ended by {signum.name}\n")  # and no traceback of torchrun's imports
    run.nothing_is_left()


def test_what_a_finished_run_leaves_behind_is_ended(start, waiting, both):
    run = start(waiting(loop="pass"), "--nproc", "2")
    run.pids(*both)
    code, _, err = run.wait()
    assert code == 0, err
    run.nothing_is_left(timeout=0.5)
