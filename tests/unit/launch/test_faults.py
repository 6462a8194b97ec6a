"""What Python says on a fatal signal, through the pipes of a node: of real processes, and its moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from dtk_launch.faults import Fault, Faults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="opens the pipe of another process by /proc")

RANK = """
import ctypes, faulthandler, os, signal, sys, threading, time
file = open(os.environ["DTK_FAULTS"].split(",")[int(sys.argv[1])], "wb", buffering=0)
file.write(b"\\0%d\\n" % os.getpid())
faulthandler.enable(file)
"""


@pytest.fixture
def faults():
    """The pipes of a node of two ranks."""
    faults = Faults(2)
    yield faults
    faults.close()
    faults.close()


def ended(faults, local_rank, code):
    """A process under faulthandler as the bootstrap enables it: pid, exit code."""
    environ = {**os.environ, "DTK_FAULTS": faults.paths}
    with subprocess.Popen([sys.executable, "-c", RANK + code, str(local_rank)], env=environ) as process:
        pass
    return process.pid, process.returncode


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
def test_each_fatal_signal_is_told_with_its_moment(name, faults):
    before = time.monotonic_ns()
    pid, code = ended(faults, 1, f"os.kill(os.getpid(), signal.{name})")
    found = faults.of(1, pid)
    assert code == -getattr(signal, name)
    assert found.signal == name
    assert before < found.time_ns < time.monotonic_ns()
    assert "Current thread" in found.text
    assert faults.of(0, pid) is None


def test_the_attempts_of_a_rank_are_told_apart_and_the_last_word_of_each_counts(faults):
    children = "import subprocess\nif os.fork() == 0: os.abort()\nos.wait()\n"
    first, _ = ended(faults, 0, children + "ctypes.string_at(0)")
    second, _ = ended(faults, 0, "os.abort()")
    well, code = ended(faults, 0, "")
    assert (faults.of(0, first).signal, faults.of(0, second).signal, faults.of(0, well), code) == (
        "SIGSEGV",
        "SIGABRT",
        None,
        0,
    )
    assert faults.of(0, first).time_ns < faults.of(0, second).time_ns


def test_a_long_dump_does_not_block_the_rank(faults):
    threads = "for _ in range(150): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    deep = "def down(n): down(n - 1) if n else ctypes.string_at(0)\n"
    pid, code = ended(faults, 0, threads + deep + "down(500)")
    assert code == -signal.SIGSEGV
    faults.close()
    assert faults.of(0, pid).text.count("File ") > 100


def test_an_error_of_the_interpreters_own_has_no_signal():
    assert Fault("Fatal Python error: none_dealloc: deallocating None\n", 0).signal is None


def test_what_is_kept_of_a_rank_is_bounded_and_nothing_of_it_blocks(faults):
    talk = "for _ in range(64): file.write(b'x' * (1 << 16))\n"
    pid, code = ended(faults, 0, talk + "os.abort()")
    faults.close()
    assert code == -signal.SIGABRT
    assert faults.of(0, pid) is None
    (kept, _), (moments, _) = faults._said.values(), faults._moments.values()
    assert len(kept) < 3 << 19
    assert all(offset < 1 << 20 for offset, _ in moments)
