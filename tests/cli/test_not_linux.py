"""How dtk does where Linux's own calls are missing: everything works but what only Linux can."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

HOSTOS = Path(__file__).parents[2] / "launch" / "dtk_launch" / "hostos.py"

# Makes Python look as on macOS in dtk and in the ranks, but not in torchrun between them.
MACOS = """
import builtins, os, sys
argv = sys.orig_argv
if argv[1:2] and (argv[1].endswith("/dtk") or (argv[1] == "-u" and argv[2].endswith("worker.py"))):
    sys.platform = "darwin"
    del os.pidfd_open, os.sched_getaffinity
    real_open, real_listdir = builtins.open, os.listdir
    def open(path, *args, **kwargs):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real_open(path, *args, **kwargs)
    def listdir(path="."):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real_listdir(path)
    builtins.open, os.listdir = open, listdir
"""


def test_without_linux_each_call_says_that_it_did_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    spec = importlib.util.spec_from_file_location("hostos_elsewhere", HOSTOS)
    assert spec is not None
    assert spec.loader is not None
    hostos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostos)
    assert hostos.die_with_parent() is False
    assert hostos.become_subreaper() is False
    assert hostos.open_pidfd(os.getpid()) is None
    assert hostos.descendants_of(os.getpid()) == []


def test_only_four_modules_call_what_only_linux_has() -> None:
    for file in HOSTOS.parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.name not in ("hostos.py", "processes.py", "stackfile.py", "vitals.py"):
            for word in ("ctypes", "prctl", "pidfd_open", '"/proc/{'):
                assert word not in text, f"{file.name}: {word}"


def test_a_run_without_linux(start, tmp_path: Path) -> None:
    """Ranks run, their output is prefixed, the code comes back, and a Ctrl-C ends them; only orphans are not found."""
    (tmp_path / "sitecustomize.py").write_text(MACOS)
    source = """
import os, sys, time
rank = int(os.environ["RANK"])
print(sys.platform, rank, flush=True)
open(f"up{rank}", "w").close()
while not os.path.exists(f"up{1 - rank}"):  # torchrun ends the other one as soon as one has failed
    time.sleep(0.01)
sys.exit(rank * 5)
"""
    code, out, err = start(source, "--nproc", "2", environ={"PYTHONPATH": str(tmp_path)}).wait()
    assert sorted(out.splitlines()) == ["[0] darwin 0", "[1] darwin 1"], err
    assert code == 5


def test_a_ctrl_c_without_linux(start, waiting, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MACOS)
    run = start(waiting(), "--nproc", "2", environ={"PYTHONPATH": str(tmp_path)})
    ranks = run.pids("rank0", "rank1")
    run.torchrun()
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait()[0] == 130
    run.seen &= {*ranks, run.process.pid}
    run.nothing_is_left()
    run.seen |= {int((tmp_path / f"child{rank}").read_text()) for rank in (0, 1)}  # ended by the fixture
