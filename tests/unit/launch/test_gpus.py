"""nvidia-smi, played by a script: no answer of it, and none at all, may hold the caller up."""

import os
import time
from pathlib import Path

import pytest
from dtk_launch import gpus
from dtk_launch.gpus import GpuMemory, find_program, parse


@pytest.fixture
def smi(tmp_path):
    """A function that makes a program of a shell script, and one that looks until a question has an answer."""
    made = []

    def make(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        made.append(GpuMemory(str(path)))
        return made[-1]

    def look(memory, until):
        deadline = time.monotonic() + 20
        while not until(used := dict(memory.look())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return used

    yield make, look
    for memory in made:
        memory.close()


def test_answers_are_added_up_by_process():
    assert parse("100, 2048\n101, 512\n100, 1\n\n102, [N/A]\nNo running processes\n") == {
        100: 2049 << 20,
        101: 512 << 20,
    }


def test_what_it_says_is_known_by_a_later_look(smi, tmp_path):
    make, look = smi
    memory = make('echo "$*" > "$0.asked"; echo "41, 3"')
    assert memory.look() == {}
    assert memory.pid is not None
    assert look(memory, bool) == {41: 3 << 20}
    assert memory.pid is None
    assert dict(memory.look()) == {41: 3 << 20}  # and it is not asked again at once
    assert memory.pid is None
    asked = (tmp_path / "nvidia-smi.asked").read_text().split()
    assert asked == ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]


def test_a_failure_leaves_what_was_known(smi, monkeypatch):
    make, look = smi
    monkeypatch.setattr(gpus, "_EVERY", 0.0)
    monkeypatch.setattr(gpus, "_SHARE", 0)
    memory = make('if [ -e seen ]; then echo "1, 1"; exit 9; fi; : > seen; echo "41, 3"'.replace("seen", "$0.seen"))
    look(memory, bool)
    pids = set()
    look(memory, lambda _: pids.add(memory.pid) or len(pids - {None}) > 1)
    look(memory, lambda _: memory.pid is None)
    assert dict(memory.look()) == {41: 3 << 20}


def test_a_stuck_one_is_killed_and_none_is_started_beside_it(smi, monkeypatch):
    make, look = smi
    memory = make("exec sleep 600")
    memory.look()
    pid = memory.pid
    memory.look()
    assert memory.pid == pid
    monkeypatch.setattr(gpus, "_LONGEST", 0.0)
    look(memory, lambda _: memory.pid is None)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_without_a_driver_nothing_is_asked(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_program(tmp_path) is None
    assert GpuMemory(None).look() == {}
    Path(tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    assert find_program(tmp_path) == str(program)


def test_a_program_that_cannot_be_started_is_not_tried_again(tmp_path):
    memory = GpuMemory(str(tmp_path / "nothing"))
    assert memory.look() == {}
    assert memory.pid is None
    assert memory.look() == {}
