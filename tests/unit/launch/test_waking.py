"""The moment at which a thread was woken, and not the one at which it got a core."""

import os
import subprocess
import sys
import threading
import time

import pytest
from dtk_launch.waking import Waking, awake_at_once


def test_what_the_thread_waited_for_a_core_is_taken_off(monkeypatch):
    waking = Waking()
    counts = iter([5_000, 5_000 + 3_000_000_000])
    monkeypatch.setattr(waking, "_waited_ns", lambda: next(counts))
    waking.going_to_sleep()
    before = time.monotonic_ns()
    assert before - 3_000_000_000 <= waking.moment_ns() < before - 2_000_000_000
    waking.close()


def test_without_the_count_it_is_now(monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    waking = Waking()
    waking.going_to_sleep()
    before = time.monotonic_ns()
    assert before <= waking.moment_ns() <= time.monotonic_ns()
    waking.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of Linux")
def test_a_thread_that_had_to_share_its_core_knows_when_it_was_woken():
    read, write = os.pipe()
    found, ready = [], threading.Event()

    def sleeper():
        os.sched_setaffinity(0, {core})
        waking = Waking()
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # or root would not have to wait
        waking.going_to_sleep()
        ready.set()
        os.read(read, 1)
        found.append((waking.moment_ns(), time.monotonic_ns()))
        waking.close()

    core = min(os.sched_getaffinity(0))
    hog = f"import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", hog], stdout=subprocess.PIPE) as busy:
        try:
            busy.stdout.readline()
            thread = threading.Thread(target=sleeper)
            thread.start()
            ready.wait()
            time.sleep(0.05)
            woken = time.monotonic_ns()
            os.write(write, b"x")
            thread.join()
        finally:
            busy.kill()
            os.close(read)
            os.close(write)
    moment, ran = found[0]
    # what it waited before it slept is not counted, and what it waited after is
    assert moment <= ran
    assert abs(moment - woken) <= max(ran - woken, 1_000_000)


def test_the_interpreter_is_as_it_was_afterwards():
    before = sys.getswitchinterval()
    with awake_at_once():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
