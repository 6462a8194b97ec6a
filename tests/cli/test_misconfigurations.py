"""Whatever is set wrongly ends with exit code 2 and one message, before anything starts or is written."""

import contextlib
import io
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dtk_launch.cli import main
from dtk_launch.options import SubmitOptions, flag_of, option_fields

from tests.cli.misconfigurations import CASES, CONFLICTS, FILES, SCRIPTS, SETTINGS, STEP, STEPS, S

pytestmark = pytest.mark.cli

_OURS = ("DTK_", "PET_", "OMP_", "SLURM_", "CUDA_", "ACCELERATE_", "FSDP_", "LT_", "PYTHON_EXEC", "RANK", "WORLD_SIZE")
_started: list[str] = []  # programs, by any test of this process


def _audit(event, arguments):
    # programs that dtk asks about the machine and the source are not what it was to start
    if event == "subprocess.Popen" and Path(str(arguments[0])).name not in ("git", "nvidia-smi"):
        _started.append(str(arguments[0]))


sys.addaudithook(_audit)


def lay_out(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def listing(folder):
    return {path: (os.lstat(path).st_mtime_ns, os.lstat(path).st_size) for path in folder.rglob("*")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with FILES as the current one, and a shell with nothing set."""
    lay_out(tmp_path, FILES)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def typed(monkeypatch):
    """Run `dtk WORDS` in this process: exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dtk", *words])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, out.getvalue(), err.getvalue()

    return run


def is_one_message(err):
    """Whether it is one of dtk's own, in one line, or a usage and one error of click's."""
    own, usage = err.count("dtk: error: "), err.startswith(("Usage: ", "Error: "))
    return "Traceback" not in err and ((own == 1 and err.startswith("dtk: error: ")) or (usage and own == 0))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_refused_in_one_message_before_anything_starts(case, here, typed, monkeypatch):
    lay_out(here, case.files)
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    before, started = listing(here), len(_started)
    code, out, err = typed(*case.words)
    assert (code, out) == (2, ""), err
    assert is_one_message(err), err
    for words in case.said:
        assert words in err
    assert listing(here) == before
    assert _started[started:] == []


def test_the_table_has_sixty_rows_and_every_option():
    assert len({(case.words, *case.env.items(), *case.files.items()) for case in CASES}) == len(CASES) >= 60
    typed = {word for case in CASES for word in case.words}
    for option in option_fields(SubmitOptions):
        flags = option.metadata.get("flags") or (flag_of(option.name),)
        assert typed & set(flags), f"no row has {flags}"


@pytest.mark.parametrize("case", [*SCRIPTS[::8], *CONFLICTS[::20], STEPS[0], SETTINGS[1]], ids=str)
def test_some_as_a_process(case, dtk, tmp_path):
    lay_out(tmp_path, FILES | case.files)
    before = listing(tmp_path)
    done = dtk(*case.words, **case.env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert is_one_message(done.stderr), done.stderr
    for words in case.said:
        assert words in done.stderr
    assert listing(tmp_path) == before


def test_a_port_that_is_taken(here, typed):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = typed("launch", "--nodes", "2", "--rdzv", f"127.0.0.1:{port}", S)
    assert code == 2
    assert f"port {port} of this machine is taken" in err
    assert "pass another port" in err


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cu117"])
def test_a_torch_that_is_too_old(here, typed, tmp_path_factory, monkeypatch, version):
    old = tmp_path_factory.mktemp("old")
    (old / f"torch-{version}.dist-info").mkdir()
    monkeypatch.syspath_prepend(old)
    code, _, err = typed("launch", S)
    assert (code, f"torch {version} is installed" in err, "pip install 'torch>=2.10'" in err) == (2, True, True)


def test_gpus_that_are_not_there(here, typed, tmp_path_factory, monkeypatch):
    cpu = tmp_path_factory.mktemp("cpu")
    (cpu / "torch-2.14.0+cpu.dist-info").mkdir()
    monkeypatch.syspath_prepend(cpu)
    for words in (("--nproc", "gpu"), ("--device", "cuda")):
        code, _, err = typed("launch", *words, S)
        assert (code, " ".join(words) in err, "built without CUDA" in err, "pass --" in err) == (2, True, True, True)


@pytest.fixture
def mounted(tmp_path_factory):
    """A tmpfs of 64 KiB with these options; skipped where this user may not mount."""
    places = []

    def mount(options):
        place = tmp_path_factory.mktemp("disk")
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_full_disk(here, typed, mounted, resumed):
    disk = mounted("size=64k")
    if resumed:
        (disk / "run/ranks").mkdir(parents=True)
        (disk / "run/plan.json").write_text("the record of the first launch")
    with contextlib.suppress(OSError), open(disk / "full", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    before = listing(disk)
    code, out, err = typed("launch", "--run-dir", str(disk / "run"), S)
    assert (code, out) == (2, "")
    assert is_one_message(err)
    assert f"the run directory {disk / 'run'} cannot be written" in err
    assert "(No space left on device)" in err
    assert "pass another --run-dir" in err
    assert {path.name for path in listing(disk)} - {path.name for path in before} <= {"launcher.log"}
    assert not resumed or (disk / "run/plan.json").read_text() == "the record of the first launch"


FILLS = """import os
if os.environ["RANK"] == "1":
    open(os.environ["DTK_RUN_DIR"] + "/data", "wb", buffering=0).write(bytes(1 << 20))
    raise ValueError("after it was full")
import time; time.sleep(60)
"""


def test_a_disk_that_fills_during_the_run(dtk, tmp_path, mounted):
    disk = mounted("size=100k")
    (tmp_path / "fills.py").write_text(FILLS)
    done = dtk("launch", "--nproc", "2", "--run-dir", disk / "run", "fills.py")
    assert done.returncode == 1
    assert "dtk: rank 1 failed first: ValueError: after it was full (exit code 1)\n" in done.stderr
    assert "the run directory could not be written (No space left on device)" in done.stderr
    verdict = json.loads((disk / "run/verdict.json").read_text())  # in the room that dtk has kept
    assert (verdict["culprit"]["message"], verdict["unwritten"]) == ("after it was full", "No space left on device")
    assert not [path for path in disk.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".")]
    assert "failed (1)" in dtk("runs", disk).stdout


def test_a_disk_that_is_read_only(here, typed, mounted):
    disk = mounted("size=64k,ro")
    for words in (("launch", "--run-dir", str(disk / "run"), S), ("init", str(disk / "new"))):
        code, out, err = typed(*words)
        assert (code, out, is_one_message(err)) == (2, "", True)
        assert "Read-only file system" in err
        assert "pass another" in err


HOSTILE = "a; touch owned $(touch owned) `touch owned` \" ' \\ * & | > < # ! ~ {x,y} é 🙂"
_SAY = "import json, os, sys\nprint(json.dumps([sys.argv, dict(os.environ)]))"


@pytest.fixture
def said_to(tmp_path_factory):
    """A program that prints what it was given."""
    program = tmp_path_factory.mktemp("bin") / "srun"
    program.write_text(f"#!{sys.executable}\n{_SAY}")
    program.chmod(0o755)
    return program


def in_bash(text, folder, path=""):
    environ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash"], input=text, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(folder.rglob("owned"))
    return json.loads(done.stdout)


def test_what_a_shell_would_obey_arrives_as_data(here, typed, said_to):
    script = f"{HOSTILE}.py"
    (here / script).touch()
    words = ("--name", HOSTILE, "--run-dir", f"runs/{HOSTILE}", "--env", f"MINE={HOSTILE}\n{HOSTILE}")
    code, text, err = typed("launch", "--dry-run", *words, script, HOSTILE, f"--x={HOSTILE}\n")
    assert code == 0, err
    torchrun = str(Path(sys.executable).parent / "torchrun")
    assert text.count(torchrun) == 1
    argv, environ = in_bash(text.replace(torchrun, str(said_to)), here)
    assert argv[-3:] == [script, HOSTILE, f"--x={HOSTILE}\n"]
    assert environ["DTK_RUN_NAME"] == HOSTILE
    assert environ["DTK_RUN_DIR"] == f"{here}/runs/{HOSTILE}"
    assert environ["MINE"] == f"{HOSTILE}\n{HOSTILE}"


def test_what_a_shell_would_obey_arrives_in_a_batch_job(here, typed, said_to):
    own = ("--partition", "--account", "--output-dir")
    words = [word for flag in own for word in (flag, HOSTILE)] + ["--sbatch", f"comment={HOSTILE}"]
    words += ["--name", HOSTILE, "--env", f"MINE={HOSTILE}"]
    code, text, err = typed("submit", "--dry-run", *words, S, HOSTILE)
    assert code == 0, err
    argv, _ = in_bash(text, here, said_to.parent)
    for word in (HOSTILE, f"MINE={HOSTILE}", str(here / "runs" / HOSTILE)):
        assert word in argv
    told = dict(line[10:].partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH --"))
    assert {shlex.split(told[key])[0] for key in ("job-name", "partition", "account", "comment")} == {HOSTILE}


@pytest.mark.parametrize("option", option_fields(SubmitOptions), ids=lambda option: option.name)
def test_no_option_is_obeyed_by_a_shell(here, typed, option):
    """Refused, or in the dry run as data: never run, and never cut."""
    if isinstance(option.default, bool) or option.name == "setup":  # which is a line of bash by its meaning
        return
    flag = flag_of(option.name)
    value = f"KEY={HOSTILE}" if option.name == "env" else f"key={HOSTILE}" if option.name == "sbatch" else HOSTILE
    strategy = "deepspeed" if option.name in ("zero_stage", "deepspeed_config", "offload") else "fsdp"
    chosen = () if option.name == "strategy" else ("--strategy", strategy)
    code, out, err = typed("submit", "--dry-run", *chosen, flag, value, S)
    assert not (here / "owned").exists()
    if code == 0:
        assert value in [word for line in out.replace(" \\\n", " ").splitlines() for word in _words(line)]
    else:
        assert (code, out, is_one_message(err)) == (2, "", True)
        assert flag in err


def _words(line):
    """The words of a line as bash reads it, and of each option its value, and of each path its last part."""
    try:
        words = [word.removeprefix("--") for word in shlex.split(line.removeprefix("#SBATCH "))]
    except ValueError:
        return []
    values = [word.partition("=")[2].removesuffix("/slurm-%j.out") for word in words]
    return [part for word in (*words, *values) for part in (word, word.rpartition("/")[2])]


def test_an_empty_variable_is_one_that_is_not_set(here, typed, monkeypatch):
    for name in ("DTK_NPROC", "DTK_RUN_NAME", "DTK_STRATEGY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    code, text, err = typed("launch", "--dry-run", S)
    assert (code, err) == (0, "")
    assert "DTK_RUN_NAME=script" in text
    assert "OMP_NUM_THREADS=" in text


def test_a_script_that_is_a_link_to_nothing(here, typed):
    (here / "link.py").symlink_to("gone/train.py")
    code, out, err = typed("launch", "link.py")
    assert (code, out, "link.py is a link to gone/train.py, which is not there" in err) == (2, "", True)
    assert "did you mean" not in err


def test_what_is_probably_not_meant_is_said(here, typed, monkeypatch):
    monkeypatch.setenv("DTK_NRPOC", "2")
    for words in (("launch", "--dry-run"), ("explain",), ("submit", "--dry-run")):
        code, _, err = typed(*words, S)
        said = "dtk: warning: DTK_NRPOC is not known, and nothing of dtk reads it; did you mean DTK_NPROC?\n"
        assert (code, err) == (0, said)
    monkeypatch.delenv("DTK_NRPOC")
    code, text, err = typed("launch", "--dry-run", S, "--nproc", "2", "--nodes=3")
    assert (code, text.endswith(f"{S} --nproc 2 --nodes=3\n"), err.count("\n")) == (0, True, 1)
    assert err.startswith("dtk: warning: --nproc stands after script.py and so is handed to it")
    code, text, err = typed("submit", "--dry-run", S, "--dry-run")
    assert (code, text[:2]) == (0, "#!")
    assert err.startswith("dtk: warning: --dry-run stands after script.py and so is handed to it")


def test_a_zero_that_was_given_is_not_what_was_left_out(here, typed):
    (here / "dtk.toml").write_text("max-restarts = 3\n")
    _, text, _ = typed("launch", "--dry-run", "--max-restarts", "0", S)
    assert "--max-restarts 0" in text


def test_the_same_value_twice_is_no_contradiction(here, typed):
    code, text, _ = typed("launch", "--dry-run", "--nproc", "2", "--nproc", "2", "-e", "A=1", "-e", "A=1", S)
    assert (code, "--nproc-per-node 2" in text) == (0, True)


def test_slurm_of_a_healthy_step_is_taken(here, typed, monkeypatch):
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    code, text, err = typed("launch", "--dry-run", S)
    assert (code, "--nnodes 2" in text) == (0, True), err


INTERRUPTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.parametrize("moment", ["import", "facts"])
def test_ctrl_c_before_anything_has_started(tmp_path, moment):
    (tmp_path / S).touch()
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    early = tmp_path / "early"
    if moment == "import":
        lay_out(early, {"click/__init__.py": INTERRUPTED})
    else:  # while nvidia-smi is asked for the GPUs
        lay_out(
            early, {"nvidia-smi": "#!/bin/sh\nkill -INT $PPID\nsleep 60 <&- >&- 2>&-\n", "torch-2.14.0.dist-info/x": ""}
        )
        (early / "nvidia-smi").chmod(0o755)
        if Path("/proc/driver/nvidia/gpus").is_dir():
            pytest.skip("nvidia-smi is not asked where the driver is")
    environ["PATH"] = f"{early}:{environ['PATH']}"
    environ["PYTHONPATH"] = os.pathsep.join((str(early), *filter(None, [environ.get("PYTHONPATH")])))
    words = [sys.executable, "-m", "dtk_launch", "launch", S]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "runs").exists()
