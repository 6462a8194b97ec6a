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

from dist_toolkit.storage import LocalStorage

OTHER = """
import sys, time
from dist_toolkit.storage import LocalStorage
print(LocalStorage(sys.argv[1]).claim("the first one", 0.0), flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path):
    """Another process that has the directory."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "None\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


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
    assert (tmp_path / "new" / ".lock").read_text() == "one", "still taken"
    second.release()
    second.release()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_filesystem_without_locks_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert LocalStorage(tmp_path).claim("one", 0.0) is None


def test_a_directory_that_cannot_be_written_is_left_to_the_save(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert LocalStorage(tmp_path / "file" / "root").claim("one", 0.0) is None


def test_waiting_has_a_bound(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    assert LocalStorage(tmp_path).claim("the second one", 0.5) == "the first one"
    assert time.monotonic() - began < 5
    assert os.listdir(tmp_path) == [".lock"]
