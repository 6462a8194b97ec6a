"""Ranks whose script is over and whose process stays: stacks as Python 3.10 to 3.13 wrote them, and what they mean."""

import subprocess
import sys
from pathlib import Path

import pytest
from dtk_launch.diagnose.endings import GONE, place_in, threads_of
from dtk_launch.diagnose.hang import Look, Process, RankLook, Sign, Suspicion, is_stuck, sign
from dtk_launch.diagnose.hang_words import Standing, summary
from dtk_launch.diagnose.stacks import is_complete, is_likely_complete, main_stack
from dtk_launch.diagnose.waits import Kind
from dtk_launch.resources import worker_path

CWD = Path("/p")
TEXTS = {("/p/t.py", 6): "lock.acquire()", ("/p/t.py", 3): "time.sleep(0.5)", ("/p/t.py", 9): "upload(file)"}


def dump(*threads, version="3.11"):
    """`file:line function` each, innermost first, the main thread last; files of Python by their names alone."""
    text = ""
    for number, frames in enumerate(threads, start=1):
        text += "\n" if number > 1 else ""
        text += (
            f"{'Current thread' if number == len(threads) else 'Thread'} 0x00007f{number} (most recent call first):\n"
        )
        for frame in frames:
            where, function = frame.split()
            file, line = where.split(":")
            full = file if file.startswith("/") else f"/usr/lib/python{version}/{file}"
            text += f'  File "{full}", line {line} in {function}\n'
    return text


START = ("threading.py:982 run", "threading.py:1045 _bootstrap_inner", "threading.py:1002 _bootstrap")
SHUTDOWN = ("threading.py:1590 _shutdown",)
POOL = ("concurrent/futures/thread.py:58 run", "concurrent/futures/thread.py:83 _worker", *START)
JOIN = ("threading.py:1139 _wait_for_tstate_lock", "threading.py:1119 join")
POOL_EXIT = (*JOIN, "concurrent/futures/thread.py:31 _python_exit", "threading.py:1560 _shutdown")
POOL_EXIT_3_13 = (
    "threading.py:1092 join",
    "concurrent/futures/thread.py:31 _python_exit",
    "threading.py:1505 <lambda>",
    "threading.py:1534 _shutdown",
)
MANAGER = (
    "selectors.py:415 select",
    "multiprocessing/connection.py:947 wait",
    "concurrent/futures/process.py:417 wait_result_broken_or_wakeup",
    "concurrent/futures/process.py:344 run",
    *START[1:],
)
PROCESSES_EXIT = (*JOIN, "concurrent/futures/process.py:100 _python_exit", "threading.py:1560 _shutdown")
CHILD_EXIT = (
    "multiprocessing/popen_fork.py:27 poll",
    "multiprocessing/popen_fork.py:43 wait",
    "multiprocessing/process.py:149 join",
    "multiprocessing/util.py:357 _exit_function",
)
QUEUE_EXIT = (
    *JOIN,
    "multiprocessing/queues.py:199 _finalize_join",
    "multiprocessing/util.py:224 __call__",
    "multiprocessing/util.py:300 _run_finalizers",
    "multiprocessing/util.py:360 _exit_function",
)
LOCKED, NAPS = ("/p/t.py:6 worker", *START), ("/p/t.py:3 nap", *START)
GET = ("threading.py:327 wait", "queue.py:171 get", *START)
DUMPS = {
    "thread": (dump(LOCKED, SHUTDOWN), "a thread in worker (t.py:6)"),
    "two threads": (dump(LOCKED, NAPS, SHUTDOWN), "2 threads, one of them in worker (t.py:6)"),
    "twice the same": (dump(LOCKED, LOCKED, SHUTDOWN), "a thread in worker (t.py:6)"),
    "a lock's acquire as the target": (dump(START, SHUTDOWN), "a thread"),
    "a library's thread": (dump(GET, SHUTDOWN), "a thread in wait"),
    "the main thread alone": ("Stack " + dump(SHUTDOWN).partition("0x00007f1 ")[2], "a thread"),
    "executor": (dump(("/p/t.py:6 worker", *POOL), POOL_EXIT), "a thread in worker (t.py:6)"),
    "3.13": (dump(("/p/t.py:6 worker", *POOL), POOL_EXIT_3_13, version="3.13"), "a thread in worker (t.py:6)"),
    "processes": (dump(MANAGER, PROCESSES_EXIT), "a child process"),
    "child": (dump(CHILD_EXIT), "a child process"),
    "queue": (dump(("multiprocessing/queues.py:250 _feed", *START), QUEUE_EXIT), "what it put into a queue to be read"),
}


def source(file, line):
    return TEXTS.get((file, line), "")


@pytest.mark.parametrize("name", DUMPS)
def test_what_a_rank_waits_for_that_has_ended_its_script(name):
    text, words = DUMPS[name]
    assert is_complete(text)
    assert (
        summary([Standing(1, place_in(text, source))], CWD)[0] == f"rank 1 has ended its script and waits for {words}"
    )


def test_several_ranks_and_a_rank_that_failed():
    place = place_in(DUMPS["thread"][0], source)
    assert summary([Standing(0, place), Standing(1, place)], CWD) == [
        "ranks 0 and 1 have ended their scripts and wait for a thread in worker (t.py:6)",
        "    lock.acquire()",
    ]
    failed = summary([Standing(1, place, failed="ValueError")], CWD)[0]
    assert failed == "rank 1 has failed (ValueError) and waits for a thread in worker (t.py:6)"
    gone = summary([Standing(1, GONE)], CWD)[0]
    assert gone == "rank 1 has ended its script and waits for its process to end"


def test_a_script_that_still_runs_has_not_ended():
    joins = (*JOIN, "/p/t.py:6 <module>")
    assert place_in(dump(LOCKED, joins), source).kind is Kind.LOCK
    assert threads_of(dump(LOCKED, joins), source) == ()


def test_a_function_of_atexit_may_end_a_dump():
    text = dump(("/p/t.py:3 clean",))
    assert (is_complete(text), is_likely_complete(text)) == (False, True)
    assert not is_likely_complete(text[:-1])
    assert not is_likely_complete(dump(LOCKED, SHUTDOWN).partition("Current")[0])  # the main thread is still to come
    assert (place_in(text, source).kind, place_in(text, source).user.line) == (Kind.SLEEP, 3)


def rank(text, cpu=0.0, stored=0, workers=()):
    main = Process(place_in(text, source), cpu, stack=main_stack(text), threads=threads_of(text, source))
    children = {number: Process(place_in(worker, source), 0.0) for number, worker in enumerate(workers)}
    return RankLook(main, children, bytes_before=stored, bytes_after=stored)


UPLOAD = ("ssl.py:1210 send", "/p/t.py:9 upload", *START)
IN_C = ("/p/t.py:9 upload", *START)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (rank(dump(LOCKED, SHUTDOWN)), rank(dump(LOCKED, SHUTDOWN)), Sign.STILL),
        (rank(dump(START, SHUTDOWN)), rank(dump(START, SHUTDOWN)), Sign.STILL),
        (rank(dump(NAPS, SHUTDOWN)), rank(dump(NAPS, SHUTDOWN)), Sign.STILL),
        (rank(dump(NAPS, SHUTDOWN)), rank(dump(LOCKED, SHUTDOWN)), Sign.MOVING),
        (rank(dump(NAPS, LOCKED, SHUTDOWN)), rank(dump(LOCKED, SHUTDOWN)), Sign.MOVING),
        (rank(dump(NAPS, SHUTDOWN)), rank(dump(NAPS, SHUTDOWN), stored=1 << 20), Sign.MOVING),
        (rank(dump(LOCKED, SHUTDOWN)), rank(dump(LOCKED, SHUTDOWN), cpu=1.0), Sign.DOUBTFUL),
        (rank(dump(UPLOAD, SHUTDOWN)), rank(dump(UPLOAD, SHUTDOWN)), Sign.DOUBTFUL),
        (rank(dump(IN_C, SHUTDOWN)), rank(dump(IN_C, SHUTDOWN)), Sign.DOUBTFUL),
        (rank(dump(CHILD_EXIT)), rank(dump(CHILD_EXIT)), Sign.DOUBTFUL),
        (rank(dump(QUEUE_EXIT)), rank(dump(QUEUE_EXIT)), Sign.STILL),
        (RankLook(Process(GONE, 0.0)), RankLook(Process(GONE, 0.0)), Sign.DOUBTFUL),
        *(
            (rank(dump(CHILD_EXIT), workers=[dump(one)]), rank(dump(CHILD_EXIT), workers=[dump(other)]), expected)
            for one, other, expected in (
                (("/p/t.py:6 worker",), ("/p/t.py:6 worker",), Sign.STILL),
                (("/p/t.py:6 worker",), ("/p/t.py:3 nap",), Sign.MOVING),
            )
        ),
    ],
)
def test_what_shows_that_python_s_end_gets_somewhere(before, after, expected):
    assert sign(before, after, 1.0) is expected


def verdict(silent, *texts):
    suspicion = Suspicion()
    for moment in range(silent):
        suspicion.add(Look(moment, {number: rank(text) for number, text in enumerate(texts)}))
    return is_stuck([suspicion.state()], silent, 5.0, 30.0)


def test_ranks_that_stay_though_the_script_is_over_are_found():
    locked, naps = (dump(thread, SHUTDOWN) for thread in (LOCKED, NAPS))
    assert verdict(8, locked)
    assert verdict(8, locked, naps)
    assert not verdict(20, naps)
    assert verdict(35, naps)
    assert not verdict(200, dump(UPLOAD, SHUTDOWN), dump(UPLOAD, SHUTDOWN))


STAYS = """
import importlib.util, os, signal, sys, threading, time
spec = importlib.util.spec_from_file_location("stackfile", sys.argv[1])
stackfile = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stackfile)
stacks = stackfile.register("stacks")["stacks"]

def worker():
    while threading.main_thread().is_alive():  # until the main thread waits for this one
        time.sleep(0.05)
    for _ in range(40):
        signal.pthread_kill(threading.main_thread().ident, stacks["gentle"])
        time.sleep(0.05)
        if os.path.getsize("stacks"):
            return

threading.Thread(target=worker).start()
stackfile.script_ended()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs real-time signals")
def test_a_rank_answers_while_python_waits_for_threads(tmp_path):
    (tmp_path / "stays.py").write_text(STAYS)
    command = [sys.executable, "stays.py", worker_path().with_name("stackfile.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "stacks").read_text()
    assert is_complete(text)
    assert "for a thread in worker (" in summary([Standing(0, place_in(text, source))], tmp_path)[0]
