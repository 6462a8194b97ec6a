"""dtk as a process: start it, signal it, and see that nothing of it is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DTK = str(Path(sys.executable).parent / "dtk")


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(question, what, timeout=60.0):
    """Poll until the question has an answer and return it."""
    deadline = time.monotonic() + timeout
    while not (answer := question()):
        assert time.monotonic() < deadline, f"after {timeout:g} s still not: {what}"
        time.sleep(0.02)
    return answer


@dataclass
class Run:
    """A dtk that was started in a folder of its own."""

    process: subprocess.Popen
    folder: Path
    seen: set[int] = field(default_factory=set)

    def wait(self, timeout=60):
        """(exit code, stdout, stderr)"""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def pids(self, *names):
        """Pids that the script wrote to files of these names, once they are all there."""
        files = [self.folder / name for name in names]
        wait_for(lambda: all(f.exists() and f.read_text() for f in files), f"the script has written {names}")
        found = [int(f.read_text()) for f in files]
        self.seen.update(found)
        return found

    def torchrun(self):
        """Pid of torchrun, dtk's only child, as soon as it is that."""

        def writes_the_log():
            return Path(f"/proc/{pid}/fd/1").readlink().name.startswith("launcher")

        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.seen.add(int(pid))
        wait_for(writes_the_log, "torch is loaded")
        return int(pid)

    def nothing_is_left(self, timeout=5.0):
        """Every process that was seen has ended."""
        wait_for(lambda: not any(map(alive, self.seen)), f"all of {self.seen} have ended", timeout)

    def record(self, rank, run="runs/script"):
        """The rank's record."""
        return json.loads((self.folder / run / "ranks" / f"{rank}.json").read_text())


@pytest.fixture
def start(tmp_path):
    """Start `dtk launch OPTIONS script.py ARGS` on the given source. What is still there at the end is killed."""
    runs = []

    def begin(source, *options, args=(), environ=None):
        (tmp_path / "script.py").write_text(source)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DTK_", "PET_", "OMP_"))}
        process = subprocess.Popen(
            [DTK, "launch", *options, "script.py", *args],
            cwd=tmp_path,
            env=clean | (environ or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        runs.append(Run(process, tmp_path))
        return runs[-1]

    yield begin
    for run in runs:
        for pid in (run.process.pid, *run.seen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.communicate()


@pytest.fixture
def dtk(tmp_path):
    """Run a dtk command that is soon over."""

    def run(*words, cwd=tmp_path, encoding=None, **environ):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DTK_", "PET_", "OMP_"))}
        return subprocess.run(
            [DTK, *words], cwd=cwd, env=clean | environ, capture_output=True, text=True, encoding=encoding, timeout=60,
            check=False,
        )  # fmt: skip

    return run


# Each rank writes its pid and that of a child in a session of its own, then waits. {setup} runs first.
WAITING = """
import os, signal, subprocess, sys, time
rank = os.environ["RANK"]
{setup}
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
for name, pid in ((f"child{{rank}}", child.pid), (f"rank{{rank}}", os.getpid())):
    with open(name + ".tmp", "w") as file:
        file.write(str(pid))
    os.rename(name + ".tmp", name)
{loop}
"""
BOTH = ("rank0", "rank1", "child0", "child1")


@pytest.fixture
def waiting():
    """Source of a script whose ranks wait to be ended."""
    return lambda setup="", loop="time.sleep(600)": WAITING.format(setup=setup, loop=loop)


@pytest.fixture
def both():
    """Names of the pid files of two waiting ranks."""
    return BOTH


@pytest.fixture
def until():
    """Poll a question."""
    return wait_for
