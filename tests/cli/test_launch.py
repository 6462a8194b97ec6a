"""dtk launch, with real torchrun and scripts of the standard library."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

SHOW = """
import json, os, sys
import plan, launch
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "DTK_RUN_DIR", "DTK_RUN_NAME",
         "DTK_STRATEGY", "DTK_DEVICE", "MINE", "DTK_LIVE")
seen = {"argv": sys.argv, "path": sys.path[0], "theirs": [plan.mine, launch.mine]}
print("@" + json.dumps(seen | {name: os.environ.get(name) for name in names}))
print("to stderr", file=sys.stderr)
sys.stdout.write("no newline at the end")
"""
ARGS = ("--help", "--nproc", "9", "--log", "--", "-m", "--", "a 'b' \"c\"", "$HOME", "line\nbreak", "grüße 🙂")


def test_ranks_run_with_their_arguments_and_their_output_is_prefixed(start, tmp_path):
    for name in ("plan", "launch", "dtk_launch_of_mine"):
        (tmp_path / f"{name}.py").write_text("mine = True")
    run = start(SHOW, "--nproc", "2", "--env", "MINE=x y", args=ARGS, environ={"PYTHONPATH": "."})
    code, out, err = run.wait()
    assert code == 0, err
    lines = out.splitlines()
    seen = [json.loads(line.partition("@")[2]) for line in sorted(lines) if "@" in line]
    assert sorted(line[:4] for line in lines) == ["[0] "] * 2 + ["[1] "] * 2
    assert "[1] no newline at the end" in lines
    assert sorted(err.splitlines()) == ["[0] to stderr", "[1] to stderr"]
    for rank, said in enumerate(seen):
        assert said["argv"] == ["script.py", *ARGS]
        assert (said["path"], said["theirs"]) == (str(tmp_path), [True, True])
        assert [said[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == [
            str(rank),
            str(rank),
            "2",
            "2",
        ]
        assert said["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert (said["DTK_RUN_DIR"], said["DTK_RUN_NAME"]) == (str(tmp_path / "runs/script"), "script")
        assert (said["DTK_STRATEGY"], said["DTK_DEVICE"], said["MINE"]) == ("auto", "auto", "x y")
        assert said["DTK_LIVE"] is None
        assert run.record(rank)["exit"]["code"] == 0
    plan = json.loads((tmp_path / "runs/script/plan.json").read_text())
    assert plan["target"]["args"] == list(ARGS)


def test_a_dry_run_starts_nothing_and_its_text_pasted_into_bash_runs(dtk, tmp_path):
    (tmp_path / "script.py").write_text("import sys; sys.stdout.write(repr(sys.argv) + '\\n')")
    dry = dtk("launch", "--nproc", "2", "--dry-run", "script.py", *ARGS)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["script.py"]
    pasted = subprocess.run(
        ["bash"], input=dry.stdout, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    assert pasted.stdout.splitlines() == [repr(["script.py", *ARGS])] * 2
    ranks = tmp_path / "runs/script/ranks"
    assert sorted(p.name for p in ranks.iterdir()) == ["0.json", "1.json"]


def test_the_first_failure_gives_the_exit_code_and_is_named(start):
    source = (
        "import os, sys, time\nif os.environ['RANK'] == '0':\n    open('up', 'w').close()\n    time.sleep(600)\n"
        "while not os.path.exists('up'):\n    time.sleep(0.01)\nsys.exit(7)"
    )
    code, out, err = start(source, "--nproc", "2", "--json").wait()
    assert code == 7
    assert "dtk: rank 1 failed first: exit code 7\n" in err
    result = json.loads(out)
    assert (result["exit_code"], result["name"], result["failure"]["rank"]) == (7, "script", 1)
    assert [rank["rank"] for rank in result["ranks"]] == [0, 1]


def test_an_exception_is_shown_as_python_shows_it(start):
    code, _, err = start("import sys\nprint('before')\nraise ValueError('bad')", "-n", "1").wait()
    assert code == 1
    assert "[0] ValueError: bad" in err
    assert "dtk: rank 0 failed first: ValueError: bad (exit code 1)" in err
    assert "worker.py" not in err
    assert "ChildFailedError" not in err


def test_an_exception_that_cannot_be_printed_stays_itself(start):
    source = "class Odd(Exception):\n    def __str__(self):\n        raise TypeError('no words')\nraise Odd"
    code, _, err = start(source, "-n", "1").wait()
    assert (code, "rank 0 failed first: Odd (exit code 1)" in err) == (1, True), err
    assert "no words" not in err


def test_restarts_until_it_works(start):
    source = "import os, sys\nsys.exit(0 if os.environ['TORCHELASTIC_RESTART_COUNT'] == '1' else 3)"
    run = start(source, "--nproc", "2", "--max-restarts", "2")
    code, _, err = run.wait()
    assert code == 0, err
    assert run.record(0)["restart"] == 1


def test_a_module(start, tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "fit.py").write_text("import sys; print(__name__, __spec__.name, sys.argv[1:])")
    (tmp_path / "fit").mkdir()
    run = start("", "--nproc", "1", "--run-dir", "größe 1/実験", "-m", "pkg.fit", "-m")
    code, out, err = run.wait()
    assert code == 0, err
    assert out == "[0] __main__ pkg.fit ['-m', 'script.py']\n"
    assert run.record(0, "größe 1/実験")["exit"]["code"] == 0


def test_the_log_of_an_earlier_launch_is_kept_and_not_shown_again(dtk, tmp_path):
    (tmp_path / "script.py").write_text("print('now')")
    ranks = tmp_path / "runs/script/ranks"
    ranks.mkdir(parents=True)
    (ranks / "0.log").write_text("then\n")
    (ranks / "0.json").write_text('{"rank": 0, "garbage')
    (tmp_path / "runs/script/plan.json").write_text("of then")
    done = dtk("launch", "script.py")
    assert (done.returncode, done.stdout) == (0, "[0] now\n")
    assert (ranks / "0.log").read_text() == "then\nnow\n"
    assert [path.read_text() for path in (tmp_path / "runs/script/plans").iterdir()] == ["of then"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tain.py"], "did you mean script.py?"),
        (["--nproc", "0", "script.py"], "--nproc=0"),
        (["--nproc", "gpu", "--device", "cpu", "script.py"], "--device cpu was given"),
        (["--strategy", "dpd", "script.py"], "did you mean ddp?"),
        (["--max-restarts", "x", "script.py"], "--max-restarts"),
        (["--run-dir", "script.py", "script.py"], "cannot be written"),
        (["--run-dir", "/proc/none", "script.py"], "cannot be written"),
        (["--run-dir", "used", "script.py"], "used/plan.json: Is a directory"),
        (["--nodes", "2", "script.py"], "dtk submit --nodes 2"),
        ([], "SCRIPT"),
        (["--no-such-option", "script.py"], "--no-such-option"),
    ],
)
def test_bad_input_ends_with_2_before_anything_starts(dtk, tmp_path, words, said):
    (tmp_path / "script.py").write_text("print('ran')")
    (tmp_path / "used" / "plan.json").mkdir(parents=True)
    done = dtk("launch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_stray_torchrun_variable(dtk, tmp_path):
    (tmp_path / "script.py").touch()
    done = dtk("launch", "--nproc", "2", "script.py", PET_NPROC_PER_NODE="4")
    assert (done.returncode, "unset PET_NPROC_PER_NODE" in done.stderr) == (2, True)
    named = dtk("explain", "--json", "script.py", PET_LOG_DIR="/logs", DTK_STRATEGY="ddp")
    sources = {d["key"]: d["source"] for d in json.loads(named.stdout)["decisions"]}
    assert sources["PET_LOG_DIR"] == "environment PET_LOG_DIR"
    assert sources["strategy"] == "environment DTK_STRATEGY"


def test_explain_prints_a_table_and_the_command(dtk, tmp_path):
    (tmp_path / "script.py").touch()
    long = "a-value-that-is-longer-than-a-narrow-terminal" * 2
    done = dtk("explain", "--nproc", "2", "-e", f"LONG={long}", "script.py", "--help", COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("env LONG")]
    assert row.split() == ["env", "LONG", long, "flag", "--env"]  # in one line: no terminal reads it
    assert "flag --nproc" in done.stdout
    assert done.stdout.rstrip().endswith("script.py --help")
    dry = dtk("launch", "--nproc", "2", "-e", f"LONG={long}", "--dry-run", "script.py", "--help")
    assert dry.stdout.strip() in done.stdout


def test_a_fake_sbatch(dtk, tmp_path):
    (tmp_path / "script.py").touch()
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\n[ "$1" = --parsable ] || exit 0\ncp "$2" seen; echo "77;lab"\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    words = ["submit", "--nodes", "2", "--nproc", "2", "--time", "00:05:00", "--run-dir", "out"]
    dry = dtk(*words, "--dry-run", "script.py", "--help", PATH=path)
    assert (dry.returncode, (tmp_path / "out").exists()) == (0, False), dry.stderr
    done = dtk(*words, "script.py", "--help", PATH=path)
    assert done.stdout.splitlines() == ["77", f"log: {tmp_path}/out/slurm-77.out"], done.stderr
    assert (tmp_path / "seen").read_text() == dry.stdout == (tmp_path / "out/job.sbatch").read_text()
    means = "invalid partition. It means: sinfo -s lists the partitions"
    for at, code, said in (
        ("--parsable", 1, "sbatch refused the job"),
        ("--test-only", 2, "sbatch would refuse this job"),
    ):
        fake.write_text(f"#!/bin/bash\n[ $1 = {at} ] || exit 0\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
        refused = dtk(*words, "script.py", PATH=path)
        assert (refused.returncode, refused.stderr) == (code, f"dtk: error: {said}: {means}\n")


def test_ctrl_c_while_sbatch_answers_leaves_it_open_whether_there_is_a_job(dtk, tmp_path):
    (tmp_path / "script.py").touch()
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\n[ "$1" = --parsable ] || exit 0\nkill -INT $PPID; sleep 9\n')
    fake.chmod(0o755)
    done = dtk("submit", "script.py", PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "dtk: note: sbatch had not answered yet, so the job may be in the queue (squeue --me)\n"


def test_no_sbatch(dtk, tmp_path):
    (tmp_path / "script.py").touch()
    done = dtk("submit", "script.py", PATH=str(tmp_path))
    assert (done.returncode, "--dry-run" in done.stderr) == (2, True)
    for words, program in ((["status"], "squeue"), (["status", "7"], "scontrol"), (["cancel", "7"], "scontrol")):
        refused = dtk(*words, PATH=str(tmp_path))
        said = f": no {program} on PATH; run this on a login node of the cluster\n"
        assert (refused.returncode, refused.stderr.endswith(said), refused.stdout) == (1, True, ""), refused.stderr


def test_bench_hands_everything_after_the_name_on(dtk):
    listed = dtk("bench", "--help")
    for name in ("advise", "comm", "compare", "throughput"):
        assert re.search(rf"^  {name} +\w.+\.$", listed.stdout, re.MULTILINE), listed.stdout
    unknown = dtk("bench", "lunch")
    assert (unknown.returncode, "did you mean launch?" in unknown.stderr) == (2, True)
    own = dtk("bench", "launch", "--help")
    assert own.returncode == 0, own.stderr
    assert "--out" in own.stdout
    assert "--rounds" in own.stdout


def test_version_and_module_form(dtk, tmp_path):
    assert dtk("--version").stdout.startswith("dtk 0.")
    (tmp_path / "launch.py").write_text("raise SystemExit('shadowed')")
    words = [sys.executable, "-m", "dtk_launch", "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Launch, explain" in done.stdout) == (0, True)
    assert dtk("--help", PYTHONPATH=".").returncode == 0


LIVE = """
import os, sys, time
assert os.environ["DTK_LIVE"] == "1"
for text in ("step 1", "step 2"):
    with open(os.path.join(os.environ["DTK_RUN_DIR"], "ranks", "0.live"), "wb") as file:
        file.write(text.encode().ljust(199) + b"\\n")
    time.sleep(0.3)
print("a line", flush=True)
time.sleep(0.3)
"""


def test_on_a_terminal_the_progress_line_stays_at_the_bottom(tmp_path):
    (tmp_path / "script.py").write_text(LIVE)
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "dtk"), "launch", "script.py"],
        cwd=tmp_path,
        stdout=secondary,
        stderr=secondary,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"},
    )
    os.close(secondary)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when dtk is
        while data := os.read(primary, 4096):
            shown += data
    os.close(primary)
    assert process.wait(60) == 0, shown
    clear = b"\r\x1b[2K"
    line = b"\x1b[36m[0]\x1b[0m a line\r\n"
    assert shown == clear + b"step 1" + clear + b"step 2" + clear + line + clear + b"step 2" + clear
