"""However `dtk bench` is ended, and whoever stops reading, it says one line at most, and its exit code says how."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

BENCH = [sys.executable, "-m", "dtk_launch", "bench"]
REPORTS = Path(__file__).parents[2] / "benchmarks" / "reports"

# Sends {signum} to the benchmark's own process when {module} is imported, or at its exit where that is empty.
SENDS = """
import atexit, os, sys

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {signum:d})

sys.meta_path.insert(0, Sender())
if not {module!r}:
    atexit.register(os.kill, os.getpid(), {signum:d})
"""


@pytest.fixture
def bench(tmp_path):
    """Run `dtk bench WORDS` with a signal sent to it from within."""

    def run(*words, module=None, signum=0, **more):
        if module is not None:
            (tmp_path / "sitecustomize.py").write_text(SENDS.format(module=module, signum=int(signum)))
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        env = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([*BENCH, *map(str, words)], env=env, text=True, timeout=60, check=False, **given)

    return run


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("module", ["bench_parts.machine", "argparse"])
def test_a_signal_during_the_imports_is_one_line(bench, tmp_path, module, signum, name):
    done = bench("heartbeat", "--out", tmp_path / "out", module=module, signum=signum)
    assert (done.returncode, done.stdout) == (128 + signum, "")
    assert done.stderr == f"dtk bench heartbeat: ended by {name} before anything was measured\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_when_all_is_done_changes_nothing(bench, signum):
    done = bench("compare", REPORTS / "heartbeat", REPORTS / "heartbeat", module="", signum=signum)
    assert (done.returncode, done.stderr) == (0, "")
    assert "A is " in done.stdout


def test_a_signal_that_was_ignored_stays_ignored(bench):
    """As nohup has it, and a shell of a script for what it starts with &."""
    done = bench(
        *("compare", REPORTS / "heartbeat", REPORTS / "heartbeat"), module="bench_parts.arguments",
        signum=signal.SIGHUP, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ("compare", REPORTS / "heartbeat", REPORTS / "heartbeat"),
        ("compare", REPORTS / "heartbeat", REPORTS / "heartbeat", "--fail-if-worse", "5", "--json"),
        ("comm", "--help"),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whoever_stops_reading_ends_it_quietly(bench, monkeypatch, words, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    os.close(read)
    done = bench(*words, stdout=write)
    os.close(write)
    codes = (141, 0) if "--help" in words else (141,)  # argparse takes no notice
    assert (done.returncode in codes, done.stderr) == (True, ""), done.returncode
