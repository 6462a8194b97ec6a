"""Under the bootstrap a script is what it is under `python SCRIPT`: both are run, and compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dtk_launch.resources import worker_path

PROBE = '''"""A docstring."""
import json, multiprocessing, os, pickle, sys, threading, time
import config, plan, hostos, errors  # the user's, all named like modules of the launcher

class Sample:
    def __init__(self, x):
        self.x = x

def square(sample):
    return Sample(sample.x ** 2)

def late():
    time.sleep(0.2)
    print("a thread after the end of main")

if __name__ == "__main__":
    own = sys.modules["__main__"]
    seen = {
        "argv": sys.argv,
        "path": sys.path,
        "main": {k: repr(type(v)) for k, v in vars(own).items()},
        "file": __file__, "name": __name__, "doc": __doc__, "spec": getattr(__spec__, "name", None),
        "package": __package__, "is_main": own.Sample is Sample, "cwd": os.getcwd(),
        "pickled": pickle.loads(pickle.dumps(Sample(3))).x,
        "theirs": [config.mine, plan.mine, hostos.mine, errors.mine],
        "ours": sorted(m for m in sys.modules if "dtk" in m),
        "excepthook": sys.excepthook is sys.__excepthook__,
    }
    if not (__spec__ and __spec__.name.endswith("__main__")):  # which spawn cannot import again, in Python itself
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seen["spawned"] = pool.map(square, [Sample(4)])[0].x
    threading.Thread(target=late).start()
    print(json.dumps(seen))
'''


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "pkg" / "app").mkdir(parents=True)
    for name in ("config", "plan", "hostos", "errors", "launch"):
        (folder / f"{name}.py").write_text("mine = True\n")
    (folder / "probe.py").write_text(PROBE)
    (folder / "pkg" / "probe.py").write_text(PROBE)
    (folder / "pkg" / "__init__.py").touch()
    (folder / "pkg" / "app" / "__init__.py").touch()
    (folder / "pkg" / "app" / "__main__.py").write_text(PROBE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(folder / "probe.py")
    return tmp_path


def run(words, cwd, **environ):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DTK_")}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=clean | environ, capture_output=True, text=True, timeout=60, check=False
    )


def both(words, cwd, **environ):
    """(under python, under the bootstrap)"""
    return run(words, cwd, **environ), run([str(worker_path()), *words], cwd, RANK="0", **environ)


@pytest.mark.parametrize(
    ("words", "folder", "environ"),
    [
        (["probe.py", "--help", "a b"], "project", {}),
        (["project/probe.py"], ".", {}),
        (["elsewhere/link.py"], ".", {"PYTHONPATH": "."}),
        (["-m", "probe", "-m", "x"], "project", {}),
        (["-m", "pkg.probe"], "project", {}),
        (["-m", "pkg.app", "--", "y"], "project", {}),
        (["probe.py"], "project", {"PYTHONSAFEPATH": "1", "PYTHONPATH": "."}),
    ],
)
def test_the_script_sees_what_python_shows_it(project, words, folder, environ):
    plain, ours = both(words, project / folder, **environ)
    assert plain.returncode == 0, plain.stderr
    assert (ours.returncode, ours.stderr) == (0, "")
    first, thread = ours.stdout.splitlines()
    assert thread == "a thread after the end of main"
    assert json.loads(first) == json.loads(plain.stdout.splitlines()[0])


ENDS = {
    "exception": "def f():\n    raise ValueError('bad')\ntry:\n    1/0\nexcept ZeroDivisionError:\n    f()",
    "none": "import sys; sys.exit()",
    "number": "import sys; sys.exit(7)",
    "large": "import sys; sys.exit(257)",
    "negative": "import sys; sys.exit(-1)",
    "text": "import sys; sys.exit('gave up')",
    "interrupt": "raise KeyboardInterrupt",
    "hook": "import sys; sys.excepthook = lambda *e: print('mine', e[0].__name__, e[2].tb_lineno); raise OSError",
    "late hook": "import sys, atexit; atexit.register(print, 'bye'); raise SystemExit(3)",
    "import": "import no_such_module",
    "unprintable": "class E(Exception):\n    def __str__(self): raise TypeError\nraise E",
    "hard": "import os; os._exit(5)",
    "warning": "import warnings; warnings.warn('careful')",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_script_ends_as_under_python(tmp_path, end):
    (tmp_path / "end.py").write_text(ENDS[end])
    plain, ours = both(["end.py"], tmp_path, DTK_RUN_DIR="run")
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    record = json.loads((tmp_path / "run/ranks/0.json").read_text())
    if end == "hard":
        assert "exit" not in record
    else:
        code = plain.returncode if plain.returncode >= 0 else 128 - plain.returncode
        assert record["exit"]["code"] == code


def test_the_record_tells_what_was_raised(tmp_path):
    (tmp_path / "end.py").write_text(ENDS["exception"])
    before = time.time_ns()
    run([str(worker_path()), "end.py"], tmp_path, RANK="3", LOCAL_RANK="1", DTK_RUN_DIR="run")
    record = json.loads((tmp_path / "run/ranks/3.json").read_text())
    assert (record["rank"], record["local_rank"], record["restart"], record["supervisor"]) == (3, 1, 0, None)
    end = record["exit"]
    assert (end["code"], end["type"], end["message"]) == (1, "ValueError", "bad")
    assert "in f" in end["traceback"]
    assert "worker.py" not in end["traceback"]
    assert before < record["started_ns"] < end["time_ns"] < time.time_ns()


def test_an_exception_may_say_when_it_was_raised(tmp_path):
    (tmp_path / "t.py").write_text("class Early(SystemExit): time_ns = 5\nraise Early(75)\n")
    environ = {**os.environ, "DTK_RUN_DIR": str(tmp_path), "RANK": "0"}
    subprocess.run([sys.executable, str(worker_path()), "t.py"], cwd=tmp_path, env=environ, check=False)
    ended = json.loads((tmp_path / "ranks" / "0.json").read_text())["exit"]
    assert (ended["code"], ended["time_ns"]) == (75, 5)


def test_a_forked_child_does_not_end_the_record(tmp_path):
    (tmp_path / "fork.py").write_text(
        "import os, sys\npid = os.fork()\nif pid == 0:\n    sys.exit(9)\n"
        "os.waitpid(pid, 0)\nassert 'exit' not in open('run/ranks/0.json').read()\n"
    )
    done = run([str(worker_path()), "fork.py"], tmp_path, RANK="0", DTK_RUN_DIR="run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]["code"] == 0


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "run").write_text("a file")
    (tmp_path / "ok.py").write_text("print('ran')")
    done = run([str(worker_path()), "ok.py"], tmp_path, RANK="0", DTK_RUN_DIR="run/x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_the_rank_dies_with_its_parent(tmp_path):
    (tmp_path / "wait.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    start = "import subprocess, sys, time; subprocess.Popen([sys.executable, *sys.argv[1:]]); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(worker_path()), "wait.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        assert parent.stdout.read() == ""  # ends when the rank has, too
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_a_rank_whose_torchrun_is_gone_does_not_start(tmp_path):
    (tmp_path / "ran.py").write_text("open('ran', 'w')")
    done = run(
        [str(worker_path()), "ran.py"], tmp_path, RANK="0", DTK_RUN_DIR=str(tmp_path), DTK_SUPERVISOR=f"h:{os.getpid()}"
    )  # our child, so not a grandchild of the supervisor that it is told of
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "ran").exists()


def test_the_record_of_a_clean_end_tells_where_it_was_asked_for(tmp_path):
    (tmp_path / "end.py").write_text("import sys\ndef leave():\n    sys.exit(0)\nleave()\n")
    run([str(worker_path()), "end.py"], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    assert (end["code"], end["type"], end["where"]["line"], end["where"]["text"]) == (0, None, 3, "sys.exit(0)")


CHAINED = """
import sys
def look():
    {}["x"]
def load():
    try:
        look()
    except KeyError as error:
        raise OSError("no x") from error
try:
    load()
except OSError:
    raise ValueError("begins" + "x" * 5000 + "ends")
"""


def test_the_record_tells_what_was_behind_an_error_and_both_ends_of_a_long_message(tmp_path):
    (tmp_path / "end.py").write_text(CHAINED)
    run([str(worker_path()), "end.py"], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    assert (end["message"][:6], end["message"][-4:], len(end["message"]) < 2100) == ("begins", "ends", True)
    behind = [(e["how"], e["type"], e["message"], e["where"]["line"]) for e in end["related"]]
    assert behind == [("while handling", "OSError", "no x", 9), ("caused by", "KeyError", "'x'", 4)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups of exceptions")
def test_the_record_names_the_members_of_a_group(tmp_path):
    source = "raise ExceptionGroup('g', [ValueError('a'), ExceptionGroup('h', [KeyError('b')]), *[OSError('c')] * 9])"
    (tmp_path / "end.py").write_text(source)
    run([str(worker_path()), "end.py"], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    members = [(e["how"], e["type"], e["message"]) for e in end["related"]]
    assert members[:3] == [("holds", "ValueError", "a"), ("holds", "KeyError", "'b'"), ("holds", "OSError", "c")]
    assert len(members) == 6


POOL = """
import concurrent.futures, multiprocessing, sys
def work(x):
    raise KeyError(x)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    try:
        if sys.argv[1] == "futures":
            list(concurrent.futures.ProcessPoolExecutor(1, mp_context=context).map(work, "x"))
        context.Pool(1).map(work, "x")
    except KeyError as error:
        if sys.argv[1] != "caught":
            raise
        raise ValueError("no") from error
"""


@pytest.mark.parametrize(
    ("how", "behind"),
    [
        ("pool", [("raised in a worker process", "KeyError", 4)]),
        ("futures", [("raised in a worker process", "KeyError", 4)]),
        ("caught", [("first raised in a worker process", "KeyError", 4), ("caused by", "KeyError", 10)]),
    ],
)
def test_an_error_of_a_pools_worker_has_its_place_there(tmp_path, how, behind):
    (tmp_path / "end.py").write_text(POOL)
    run([str(worker_path()), "end.py", how], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    assert [(e["how"], e["type"], e["where"]["line"]) for e in end["related"]] == behind


LOADER = """
import multiprocessing, os, sys, time
def end_late():
    time.sleep(0.1)
    os._exit(6)
class MultiProcessingDataLoaderIter:
    def __init__(self):
        context = multiprocessing.get_context("fork")
        self._workers = [context.Process(target=time.sleep, args=(60,), daemon=True) for _ in range(2)]
        self._workers[1] = context.Process(target=end_late)
        for worker in self._workers:
            worker.start()
    def __next__(self):
        if len(sys.argv) > 1:
            self._workers[1].join()
            raise OSError(sys.argv[1])
        raise EOFError
    __iter__ = lambda self: self
for batch in MultiProcessingDataLoaderIter():
    pass
"""


@pytest.mark.parametrize(
    ("words", "named"), [((), True), (("gone",), True), (("DataLoader worker (pid 1) is killed by signal: x",), False)]
)
def test_a_worker_of_a_loader_that_had_ended_is_in_the_record(tmp_path, words, named):
    (tmp_path / "end.py").write_text(LOADER)
    run([str(worker_path()), "end.py", *words], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    said = [(e["how"], e["type"], e["message"].partition(")")[2]) for e in end["related"]]
    assert said == ([("before it", "DataLoaderWorkerExit", " had ended with exit code 6")] if named else [])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_of_torchs_loader_that_had_ended_is_in_the_record(tmp_path, method):
    """By torch's own words, where its handler of SIGCHLD was there first."""
    source = """
import os, sys, torch
from torch.utils.data import DataLoader, Dataset
class Data(Dataset):
    __len__ = lambda self: 100
    def __getitem__(self, i):
        return torch.ones(2) if i < 10 else os._exit(6)
if __name__ == "__main__":
    list(DataLoader(Data(), num_workers=1, multiprocessing_context=sys.argv[1]))
"""
    (tmp_path / "end.py").write_text(source)
    run([str(worker_path()), "end.py", method], tmp_path, RANK="0", DTK_RUN_DIR="run")
    end = json.loads((tmp_path / "run/ranks/0.json").read_text())["exit"]
    assert "exit code 6" in " ".join((end["message"], *(other["message"] for other in end["related"])))
