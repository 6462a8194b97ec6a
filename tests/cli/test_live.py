"""A run that is watched while it lives: dtk top, dtk logs, dtk runs, --quiet-ranks. Two runs for all of it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from dtk_launch import vitals
from dtk_launch.tables import RANK_COLUMNS

pytestmark = [pytest.mark.cli, pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")]

DTK = str(Path(sys.executable).parent / "dtk")
PAGE = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")

# Ranks that make steps, rank 1 three times slower than the others, on the page that each shares with its supervisor.
# The first attempt ends when `restart` is there; in the second, rank 1 fails when `fail` is there.
STEPS = """
import importlib.util, json, os, sys, time
spec = importlib.util.spec_from_file_location("vitals", sys.argv[1])
vitals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vitals)
rank, folder, restart = os.environ["RANK"], os.environ["DTK_RUN_DIR"], os.environ["TORCHELASTIC_RESTART_COUNT"]
record = json.load(open(f"{folder}/ranks/{rank}.json"))
descriptors = f"/proc/{record['supervisor'].rpartition(':')[2]}/fd/"
found = next(d for d in os.listdir(descriptors) if "dtk-vitals" in os.readlink(descriptors + d))
page = vitals.Page(os.open(descriptors + found, os.O_RDWR), record["vitals"])
print(f"attempt {restart} of {rank} begins", flush=True)
print(f"a word of {rank}", file=sys.stderr, flush=True)
step = 0
while True:
    time.sleep(0.06 if rank == "1" else 0.02)
    page.beat()
    step += 1
    if rank == "0" and step == 10:
        with open(f"{folder}/metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": 1000 + step, "time": time.time(), "loss": 0.25}) + "\\n")
    if rank == "2" and restart == "0" and os.path.exists("restart"):
        sys.exit(3)
    if rank == "1" and restart == "1" and os.path.exists("fail"):
        raise ValueError("bad batch")
"""


def top_on_a_terminal(folder, words, until):
    """What `dtk top` draws until `until` is in it; then q, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen([DTK, "top", *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    seen, deadline = b"", time.monotonic() + 30
    try:
        while until not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(ours, 4096)
        os.write(ours, b"q")
        while process.poll() is None:
            assert time.monotonic() < deadline, seen
            with contextlib.suppress(OSError):
                os.set_blocking(ours, False)
                seen += os.read(ours, 4096)
            time.sleep(0.01)
        return seen.decode(), process.returncode
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_a_run_is_watched(start, dtk, until, tmp_path):
    run = start(
        STEPS, "--nproc", "3", "--device", "cpu", "--max-restarts", "1", "--quiet-ranks", "others",
        args=[vitals.__file__],
    )  # fmt: skip
    state = lambda: json.loads(dtk("top", "script", "--json").stdout)  # noqa: E731
    ranks = tmp_path / "runs/script/ranks"
    until(lambda: (ranks / "1.err").exists(), "rank 1 has started")
    following = subprocess.Popen(
        [DTK, "logs", "script", "--follow", "--out", "--tail", "5"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        (tmp_path / "restart").touch()
        seen = until(lambda: (now := state())["restarts"] and now["ranks"][1]["slower"] and now, "a straggler")
        assert (seen["state"], seen["restarts"], seen["step"], seen["metric"]) == ("running", 1, 1010, {"loss": 0.25})
        assert [rank["state"] for rank in seen["ranks"]] == ["running"] * 3
        assert all(rank["rss"] > 1 << 20 and rank["pid"] > 1 for rank in seen["ranks"])
        assert seen["ranks"][1]["mark"].startswith("straggler ")
        assert seen["ranks"][1]["steps"] < seen["ranks"][0]["steps"]
        (tmp_path / "runs/script/checkpoints/step-00000500").mkdir(parents=True)
        (tmp_path / "runs/script/checkpoints/step-00000500/manifest.json").touch()

        table = dtk("top", "runs/script")
        assert (table.returncode, table.stderr) == (0, "")
        first, facts, columns, *rows = table.stdout.splitlines()
        assert first == "script: running"
        assert facts.endswith(", 1 restart, last checkpoint: step 500")
        assert columns.split() == [name for name in RANK_COLUMNS if name]
        assert [row.split()[0] for row in rows] == ["0", "1", "2"]
        steps = [int(row.split()[3]) for row in rows]  # the ranks here do not wait for each other
        assert steps[1] < steps[0] <= max(steps) == 1010
        assert [("straggler" in row) for row in rows] == [False, True, False]

        drawn, code = top_on_a_terminal(tmp_path, ["script", "--interval", "0.2"], b"straggler")
        assert code == 0, drawn
        assert "script: running" in drawn
        assert "q leaves" in drawn

        assert dtk("logs", "script", "--rank", "1", "--err", "--no-prefix").stdout == "a word of 1\n" * 2
        assert dtk("logs", "script", "-r", "0", "-r", "2", "--tail", "1", "--out").stdout == (
            "[0] attempt 1 of 0 begins\n[2] attempt 1 of 2 begins\n"
        )
        assert dtk("runs").stdout.splitlines()[1].split()[:2] == ["script", "running"]

        repeated = subprocess.Popen(
            [DTK, "top", "script", "--json", "--interval", "0.1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        assert json.loads(repeated.stdout.readline())["state"] == "running"
        (tmp_path / "fail").touch()
        code, out, err = run.wait()
        followed, _ = following.communicate(timeout=30)
        lines, _ = repeated.communicate(timeout=30)
    finally:
        following.kill()
        following.wait()
    assert code == 1
    assert out == "[0] attempt 0 of 0 begins\n[0] attempt 1 of 0 begins\n"
    assert "[0] a word of 0" in err
    assert "a word of 2" not in err
    assert "[1] ValueError: bad batch\ndtk: rank 1 failed first: ValueError: bad batch (exit code 1)\n" in err
    assert sorted(followed.splitlines()) == sorted(f"[{r}] attempt {a} of {r} begins" for r in range(3) for a in (0, 1))
    assert following.returncode == repeated.returncode == 0
    assert json.loads(lines.splitlines()[-1])["state"] == "failed"
    after = state()
    assert (after["state"], after["code"]) == ("failed", 1)
    assert after["why"] == "rank 1: ValueError: bad batch (exit code 1)"
    assert [(rank["state"], rank["code"]) for rank in after["ranks"]] == [
        ("killed", None),
        ("ended", 1),
        ("killed", None),
    ]
    assert min(rank["steps"] for rank in after["ranks"]) > 0
    (listed,) = json.loads(dtk("runs", "--json").stdout)
    assert (listed["state"], listed["checkpoint"], listed["step"]) == ("failed", 500, 1010)
    for line in re.findall(r"^dtk (.*?)(?: +\| cat)?(?: +#.*)?$", PAGE, re.MULTILINE):
        done = dtk(*line.replace("demo", "script").split())
        assert (done.returncode, bool(done.stdout), done.stderr) == (0, True, ""), line


@pytest.mark.slow
def test_a_dtk_that_was_killed_leaves_a_dead_run(start, dtk, waiting, until, tmp_path):
    run = start(waiting(), "--nproc", "1")
    run.pids("rank0", "child0")
    run.torchrun()
    entry = tmp_path / "runs/script/nodes/0.json"
    assert json.loads(entry.read_text())["state"] == "running"
    os.kill(run.process.pid, signal.SIGKILL)
    run.wait()
    os.utime(entry, (time.time() - 20,) * 2)
    assert dtk("runs").stdout.splitlines()[1].split()[:2] == ["script", "dead"]
    shown = dtk("logs", "script", "-f")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_mistakes_and_a_reader_that_goes_away(dtk, tmp_path):
    (tmp_path / "runs/digits/ranks").mkdir(parents=True)
    (tmp_path / "runs/digits/ranks/0.log").write_bytes(b"a line\n" * 200_000)
    for words, said in (
        (["top", "digist"], "did you mean digits?"),
        (["logs", "runs"], "runs is no run directory: it has neither plan.json nor ranks/"),
        (["logs", "digits", "--rank", "x"], "--rank=x: 'x' is no rank"),
        (["runs", "nowhere"], "nowhere is no folder"),
        (
            ["launch", "--nproc", "2", "--quiet-ranks", "1-2", "s.py"],
            "there is no rank 2, this launch has ranks 0 to 1",
        ),
    ):
        (tmp_path / "s.py").touch()
        done = dtk(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert said in done.stderr, words
    piped = subprocess.run(
        ["bash", "-c", '"$0" logs digits | head -n 1; echo "${PIPESTATUS[0]}"', DTK],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (piped.stdout, piped.stderr) == ("[0] a line\n0\n", "")
