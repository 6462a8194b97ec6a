"""The process that loads torch early, with a made-up torch: it is torchrun when it is told, and nothing before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dtk_launch import prestart

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="torch is loaded early where a process can end with its parent"
)

MAIN = """
import json, os, signal, sys
print("while loading")
def main():
    facts = {
        "argv": sys.argv, "name": os.environ.get("DTK_NAME"), "stdin": sys.stdin.read(), "beside": sys.path[0],
        "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid(),
        "ignored": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
    }
    print(json.dumps(facts), flush=True)
    return 7
"""
BESIDE = os.path.join(os.path.dirname(sys.executable), "torchrun")


@pytest.fixture
def torch_of(tmp_path, monkeypatch):
    """Make this source torch.distributed.run for processes that are started."""

    def write(source):
        folder = tmp_path / "fake" / "torch" / "distributed"
        folder.mkdir(parents=True)
        for package in (folder.parent, folder):
            (package / "__init__.py").write_text("")
        (folder / "run.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))

    yield write
    prestart.end()


def become(tmp_path, *words, environ=None):
    """Exit code and output of the early process as `torchrun WORDS`; None if there is none that fits."""
    with (tmp_path / "log").open("ab") as log:
        environ = {**os.environ, **(environ or {})}
        child = prestart.torchrun([BESIDE, *words], [BESIDE], environ, log.fileno(), [signal.SIGUSR1])
    return None if child is None else (child.wait(timeout=30), (tmp_path / "log").read_text())


def test_it_is_torchrun_with_the_words_the_environment_and_the_log(torch_of, tmp_path, monkeypatch):
    torch_of(MAIN)
    monkeypatch.chdir(tmp_path)
    prestart.begin(["launch", "x.py"])
    code, output = become(tmp_path, "--nproc-per-node", "2", "ä b.py", environ={"DTK_NAME": "it's"})
    said, facts = output.splitlines()
    assert (code, said) == (7, "while loading")
    expected = {"argv": [BESIDE, "--nproc-per-node", "2", "ä b.py"], "name": "it's", "stdin": ""}
    here = {"beside": os.path.dirname(sys.executable), "cwd": str(tmp_path), "session": True, "ignored": True}
    assert json.loads(facts) == {**expected, **here}


def test_a_large_environment_arrives(torch_of, tmp_path):
    torch_of(MAIN.replace('os.environ.get("DTK_NAME")', 'len(os.environ["DTK_NAME"])'))
    prestart.begin(["launch", "x.py"])
    code, output = become(tmp_path, environ={f"DTK_{n}": "x" * 100_000 for n in range(5)} | {"DTK_NAME": "x" * 120_000})
    assert (code, json.loads(output.splitlines()[1])["name"]) == (7, 120_000)


def test_a_torch_that_cannot_be_imported_is_torchruns_error(torch_of, tmp_path):
    torch_of("raise OSError('libtorch.so: cannot open')")
    prestart.begin(["launch", "x.py"])
    code, output = become(tmp_path)
    assert code == 1
    assert output.endswith("OSError: libtorch.so: cannot open\n")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "TORCH_LOGS", "CUDA_VISIBLE_DEVICES"])
def test_what_torch_may_read_while_it_loads_is_not_set_behind_its_back(name, torch_of, tmp_path):
    torch_of(MAIN)
    prestart.begin(["launch", "x.py"])
    child = prestart._early.child
    assert become(tmp_path, environ={name: "other"}) is None
    assert child.returncode == -signal.SIGKILL


def test_a_variable_that_is_taken_away_counts_too(torch_of, tmp_path, monkeypatch):
    torch_of(MAIN)
    monkeypatch.setenv("TORCH_LOGS", "dynamo")
    early = prestart.Prestarted()
    environ = {name: value for name, value in os.environ.items() if name != "TORCH_LOGS"}
    assert not early.fits([BESIDE], environ)
    assert early.fits([BESIDE], dict(os.environ))
    assert early.fits([sys.executable, "-m", "torch.distributed.run"], dict(os.environ))
    assert not early.fits(["/elsewhere/torchrun"], dict(os.environ))
    early.drop()


@pytest.mark.parametrize(
    "words",
    [[], ["top", "x"], ["launch", "--help"], ["launch", "--dry-run", "x.py"], ["explain", "x.py"], ["rerun", "x"]],
)
def test_only_a_launch_loads_torch(words):
    prestart.begin(words)
    assert prestart._early is None


def test_nothing_is_left_of_a_launch_that_is_refused(torch_of):
    torch_of("import time; time.sleep(60)")
    prestart.begin(["launch", "x.py"])
    child = prestart._early.child
    prestart.end()
    assert child.returncode == -signal.SIGKILL
    assert prestart._early is None


PARENT = """
import os, sys
from dtk_launch import prestart
prestart.begin(["launch", "x.py"])
print(prestart._early.child.pid, flush=True)
sys.stdin.read() if sys.argv[1] == "late" else None
os._exit(0)
"""


@pytest.mark.parametrize("when", ["at once", "late"])
def test_it_ends_with_the_dtk_that_started_it(when, torch_of):
    torch_of("import time; time.sleep(60)" if when == "late" else MAIN)
    with subprocess.Popen([sys.executable, "-c", PARENT, when], stdin=-1, stdout=-1, text=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3 if when == "late" else 0)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
