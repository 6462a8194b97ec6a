"""What the bootstrap adds to a rank for the hang verdict: the heartbeat's hook, and stacks on a signal."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dtk_launch import processes
from dtk_launch.diagnose.stacks import main_stack
from dtk_launch.dumps import Dumper
from dtk_launch.errors import PlanError
from dtk_launch.hanging import parse_timeout
from dtk_launch.rank_files import RankRecord
from dtk_launch.resources import worker_path
from dtk_launch.vitals import Page, create_file, path_of

# As much of torch as the hook sees; loaded lazily, and by a name that is not the module's.
OPTIMIZER = """
hooks = {}
class Handle:
    def remove(self): hooks.clear()
def register_optimizer_step_post_hook(hook):
    hooks[0] = hook
    return Handle()
def step():
    for hook in hooks.values(): hook(None, (), {})
"""
SCRIPT = """
import json, os, sys, time
seen = {"before": [repr(finder) for finder in sys.meta_path]}
import torch.optim
from torch.optim.optimizer import hooks, step
import torch.optim.optimizer as module
seen["after"] = [repr(finder) for finder in sys.meta_path]
seen["loader"] = sorted(vars(module.__loader__))
seen["ours"] = sorted(name for name in sys.modules if "dtk" in name or "pulse" in name)
for _ in range(3): step()
pid = os.fork()
if pid == 0:
    step()
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(seen), flush=True)
def wait():
    time.sleep(60)
wait()
"""
# A loop in Python, on one line; and one in C, with a forked child in the other.
LOOP = "    while True: pass"
CALL = f"""    import itertools
    if os.fork() == 0:
    {LOOP}
    sum(itertools.repeat(0))"""

# Frames that are made and left all the time, in the main thread and in two more.
FRAMES = """
    import threading
    def numbers(n):
        for i in range(n): yield (lambda x: x + i)(i)
    def down(k): return sum(down(k - 1) for _ in range(2)) if k else 1
    def work():
        while True: [x for x in numbers(50)]; {a: b for a, b in zip(numbers(20), numbers(20))}; down(6)
    for _ in range(2): threading.Thread(target=work, daemon=True).start()
    work()"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a file in memory and /proc")


@pytest.fixture
def rank(tmp_path, request):
    """A rank under the bootstrap, as dtk starts it, which now waits: process, what the script saw, page, record."""
    (tmp_path / "torch/optim").mkdir(parents=True)
    (tmp_path / "torch/__init__.py").touch()
    (tmp_path / "torch/optim/__init__.py").write_text("from . import optimizer as _\n")
    (tmp_path / "torch/optim/optimizer.py").write_text(OPTIMIZER)
    (tmp_path / "train.py").write_text(
        SCRIPT.replace("    time.sleep(60)", getattr(request, "param", "    time.sleep(60)"))
    )
    pages = create_file(1)
    environ = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "0"}
    supervisor = f"h:{processes.look(os.getpid()).parent}"  # this process stands for torchrun
    environ |= {"DTK_RUN_DIR": str(tmp_path), "DTK_SUPERVISOR": supervisor, "DTK_VITALS": path_of(pages)}
    process = subprocess.Popen([sys.executable, str(worker_path()), "train.py"], cwd=tmp_path, env=os.environ | environ)
    log, deadline = tmp_path / "ranks/0.log", time.monotonic() + 20
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        assert process.poll() is None, (tmp_path / "ranks/0.err").read_text()
        time.sleep(0.02)
    yield process, json.loads(log.read_text()), Page(pages, 0), RankRecord.read(tmp_path / "ranks/0.json")
    process.kill()
    process.wait()
    os.close(pages)


def test_steps_beat_and_the_dump_names_the_line_and_nothing_of_it_is_seen(rank, tmp_path):
    process, seen, page, record = rank
    assert page.heartbeat()[0] == 3  # and none by the forked child
    assert [line for line in seen["before"] if line not in seen["after"]] == seen["before"][:1]
    assert (seen["ours"], seen["loader"]) == ([], ["name", "path"])
    number = SCRIPT.splitlines().index("    time.sleep(60)") + 1
    for _ in range(2):
        (dump,) = Dumper(tmp_path / "ranks").dump([record], processes.look_at_all()).values()
        assert [(frame.line, frame.function) for frame in main_stack(dump.main)][:1] == [(number, "wait")]
    assert process.poll() is None


@pytest.mark.parametrize(("rank", "children"), [(LOOP, 0), (CALL, 1)], indirect=["rank"])
def test_a_rank_in_one_call_of_c_is_told_from_one_in_a_loop_of_python(rank, children, tmp_path):
    process, _, page, record = rank
    dumper = Dumper(tmp_path / "ranks")
    deadline = time.monotonic() + 20
    while (dump := dumper.dump([record], processes.look_at_all())[0]) and len(dump.workers) < children:
        assert time.monotonic() < deadline
    for _ in range(3):
        asked = time.monotonic_ns()
        dump = dumper.dump([record], processes.look_at_all())[0]
        assert main_stack(dump.main)[0].function == "wait"
        assert [main_stack(text)[0].function for text in dump.workers.values()] == ["wait"] * children
        assert (process.pid in dumper.in_python) == (children == 0)
        assert page.turned_at() < asked
    assert process.poll() is None
    for seen in processes.descendants(process.pid, processes.look_at_all()):
        os.kill(seen.pid, signal.SIGKILL)


@pytest.mark.parametrize("rank", [FRAMES], indirect=True)
def test_looks_do_no_harm_to_a_rank_that_makes_and_leaves_frames(rank, tmp_path):
    process, _, _, record = rank
    dumper = Dumper(tmp_path / "ranks")
    dumps = [dumper.dump([record], processes.look_at_all())[0].main for _ in range(150)]
    assert process.poll() is None
    told = [dump for dump in dumps if dump]
    assert len(told) > 50
    assert all(main_stack(dump)[-1].function == "<module>" for dump in told)
    assert any(dump.count("most recent call first") == 3 for dump in told)


def test_a_process_that_would_die_of_the_signal_is_not_asked(rank, tmp_path):
    _, _, _, record = rank
    dumper = Dumper(tmp_path / "ranks")
    assert dumper.will_answer(record, record.pid)
    other = subprocess.Popen(["sleep", "60"])
    try:
        assert not dumper.will_answer(record, other.pid)
        (tmp_path / "ranks/0.stacks").rename(tmp_path / "ranks/moved")
        (tmp_path / "ranks/0.stacks").touch()  # not the file that the rank has open
        assert not dumper.will_answer(record, record.pid)
    finally:
        other.kill()
        other.wait()


def test_a_rank_without_dtk_has_neither(tmp_path):
    (tmp_path / "show.py").write_text(
        "import signal, sys; print(len(sys.meta_path), signal.getsignal(signal.SIGRTMIN + 8) == signal.SIG_DFL)"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DTK_")}
    plain, ours = (
        subprocess.check_output([sys.executable, *words, "show.py"], cwd=tmp_path, env=environ, text=True)
        for words in ([], [str(worker_path())])
    )
    assert plain == ours
    assert "True" in ours


def test_a_signal_that_the_script_has_taken_is_left_alone(tmp_path):
    spec = importlib.util.spec_from_file_location("stackfile", worker_path().with_name("stackfile.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    number = signal.SIGRTMIN + 8
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert module.register(str(Path(tmp_path) / "0.stacks")) == {}
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("asked", ["0", "-1", "soon", "nan", "inf", ""])
def test_a_timeout_that_is_none(asked):
    with pytest.raises(PlanError, match="pass auto, off or a length of time"):
        parse_timeout(asked)


def test_what_is_asked_for_is_explained(plan):
    made = plan(hang_timeout="300.0", on_hang="stop")
    assert (made.hang.timeout, made.hang.seconds, made.hang.action) == ("300", 300.0, "stop")
    assert {d.key: d.value for d in made.decisions if "hang" in d.key} == {"hang_timeout": "300", "on_hang": "stop"}
    assert (plan().hang.watched, plan().hang.seconds, plan(hang_timeout="off").hang.watched) == (True, None, False)
    assert [plan(hang_timeout=text).hang.seconds for text in ("5m", "90s", "500ms")] == [300.0, 90.0, 0.5]
    with pytest.raises(PlanError, match=r"--on-hang=halt.*known: report, stop"):
        plan(on_hang="halt")
