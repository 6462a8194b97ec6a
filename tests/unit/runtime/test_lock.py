"""One program at a time in a checkpoint directory."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dist_toolkit.storage import LocalStorage, lock
from dist_toolkit.storage.start import JobStart

OTHER = """
import sys, time
from dist_toolkit.storage import LocalStorage, lock
from dist_toolkit.storage.start import JobStart
storage = LocalStorage(sys.argv[1])
print(storage.claim("the first one", 0.0), flush=True)
sys.stdin.read(1)
print(storage.taken_by(), flush=True)
storage.release()
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process that has the directory, in the first start of a job."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "None\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_later_start_of_the_same_job_takes_over_and_the_earlier_one_is_told(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM has lost sight of its node, and has started the job elsewhere; the lock is still held."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    storage = LocalStorage(tmp_path)
    assert storage.claim("the second one", 0.3) is None
    print(end="\n", file=other.stdin, flush=True)
    assert other.stdout.readline() == "the second one\n", "and it leaves the file alone when it ends"
    assert storage.taken_by() is None
    storage.release()
    assert lock.NAME in os.listdir(tmp_path), "the earlier one may still wake up"
    assert storage.claim("a third one", 0.0) is None
    storage.release()
    assert lock.NAME in os.listdir(tmp_path)


@pytest.mark.parametrize(("job", "restart"), [("13", "1"), ("12", "0"), ("", "")])
def test_nobody_else_takes_over(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, job: str, restart: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    assert LocalStorage(tmp_path).claim("the second one", 0.3) == "the first one"
    print(end="\n", file=other.stdin, flush=True)
    assert other.stdout.readline() == "None\n"


@pytest.mark.parametrize("cluster", ["", "alps"])
def test_the_start_of_a_job_is_read_as_it_was_written(cluster: str) -> None:
    def of(job: str, restart: str) -> JobStart:
        start = JobStart.from_env({"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": restart, "SLURM_CLUSTER_NAME": cluster})
        assert start is not None
        assert JobStart.read(f"somebody\n{start.line}\n01ab\n") == start
        return start

    assert of("12", "10").succeeds(of("12", ""))
    assert of("12", "10").succeeds(of("12", "9"))
    assert not of("12", "1").succeeds(of("12", "1"))
    assert not of("12", "1").succeeds(of("1", "0"))
    assert not of("12", "1").succeeds(None)
    assert JobStart.from_env({"SLURM_JOB_ID": "12x"}) is None
    assert JobStart.from_env({}) is None
    assert JobStart.read("process 7 on n1 (job 12), since then") is None


def test_a_second_program_is_told_who_has_the_directory(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert LocalStorage(tmp_path).claim("the second one", 0.0) == "the first one"


def test_a_killed_program_leaves_the_directory_free(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    storage = LocalStorage(tmp_path)
    assert storage.claim("the second one", 5.0) is None
    storage.release()
    assert list(tmp_path.iterdir()) == []


def test_one_program_may_have_two_checkpointers(tmp_path: Path) -> None:
    first, second = LocalStorage(tmp_path / "new"), LocalStorage(tmp_path / "new")
    assert first.claim("one", 0.0) is None
    assert second.claim("two", 0.0) is None
    first.release()
    assert (tmp_path / "new" / ".lock").read_text().startswith("one\n"), "still taken"
    second.release()
    second.release()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_filesystem_without_locks_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    storage = LocalStorage(tmp_path)
    assert storage.claim("one", 0.0) is None
    assert storage.taken_by() is None
    with monkeypatch.context() as another_process:
        another_process.setattr(lock, "_held", {})
        assert storage.claim("a look", 0.0, take_over=False) is None
        storage.release()
        assert storage.taken_by() is None
    assert storage.taken_by() is None
    with monkeypatch.context() as another_process:
        another_process.setattr(lock, "_held", {})
        assert storage.claim("two", 0.0) is None
        storage.release()
    assert storage.taken_by() == "two", "who comes later has it"


def test_a_directory_that_cannot_be_written_is_left_to_the_save(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert LocalStorage(tmp_path / "file" / "root").claim("one", 0.0) is None


def test_waiting_has_a_bound(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    assert LocalStorage(tmp_path).claim("the second one", 0.5) == "the first one"
    assert time.monotonic() - began < 5
    assert os.listdir(tmp_path) == [".lock"]
