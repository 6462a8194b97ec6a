"""Statement 23 on real ranks: a refusal at any operation of one rank, a disk that is full, one that is read-only."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.checkpoint.tool.app import main
from dist_toolkit.errors import PeerError
from dist_toolkit.storage import LocalStorage
from dist_toolkit.testing import run_ranks
from tests.faults.program import Program
from tests.faults.storage import Fault, FaultyStorage

pytestmark = pytest.mark.multiproc

NUMBERS = (errno.ENOSPC, errno.EACCES)


def refuse_everywhere(root: str) -> list[list[str]]:
    """What each refusal was told as: a row (where, failures) for every operation of a save on every rank."""
    told = []
    with dtk.init(seed=0) as rt:
        for number, failing in [(number, rank) for number in NUMBERS for rank in range(rt.world.world_size)]:
            fired, at = True, 0
            while fired:
                storage = FaultyStorage(LocalStorage(root))
                program = Program(storage, rt.group)
                program.save(1, 10.0)
                if rt.world.rank == failing:
                    storage.fault = Fault(len(storage.visited) + at, "half", number)
                words = ""
                try:
                    program.save(2, 20.0)
                except PeerError as error:
                    words, named = str(error), set(error.failures)
                    assert named == {failing}, words
                    assert os.strerror(number) in words
                    found = program.restore()
                    assert found in ((1, 10.0), (2, 20.0))
                    assert found == (1, 10.0) or "committing" in words
                    program.save(3, 30.0)
                    assert program.restore() == (3, 30.0)
                fired = any(rt.group.all_gather_json(storage.fired))
                if fired:
                    where = rt.group.all_gather_json(storage.visited[storage.fault.at] if storage.fault else "")
                    told.append([f"rank {failing}, {os.strerror(number)}: {where[failing]}", words])
                storage.fault = None
                program.ckpt.close()
                if rt.world.is_main:
                    shutil.rmtree(root)
                rt.group.barrier()
                at += 1
    return told


def test_a_refusal_on_one_rank_is_told_to_all_and_the_next_save_works(tmp_path: Path) -> None:
    first, second = run_ranks(refuse_everywhere, 2, str(tmp_path / "ckpt"))
    assert first == second, "every rank hears the same"
    assert len(first) > 30
    said = dict(first)
    data = "rank 1, Permission denied: write step-00000002.tmp/rank-00001.safetensors"
    assert said[data].startswith("writing checkpoint 2 failed on 1 rank(s): rank 1: PermissionError: ")
    assert len([where for where in said if where.startswith("rank 0")]) > 20


class Ballast:
    """State of any size."""

    def __init__(self) -> None:
        self.tensor = torch.zeros(10)

    def state_dict(self) -> dict[str, Any]:
        return {"tensor": self.tensor}

    def load_state_dict(self, state: Any) -> None:
        self.tensor = state["tensor"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs here (root only): {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill_up(path: str) -> None:
    """Until not one byte is left."""
    with open(path, "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def fill_the_disk(root: str) -> list[Any]:
    """A save that does not fit, between two that do; then a disk on which not one byte is left."""
    said: list[Any] = []
    with dtk.init(seed=0) as rt:
        ballast = Ballast()
        ckpt = rt.checkpointer(root, state={"ballast": ballast})
        ckpt.save(1)
        for step, size in ((2, 10**6), (3, 20)):
            ballast.tensor = torch.full((size,), float(step))
            try:
                ckpt.save(step)
            except PeerError as error:
                said.append(str(error))
            rt.group.barrier()
            said.append(sorted(path.name for path in Path(root).glob("step-*")))
            said.append(ckpt.restore())
        ckpt.close()
        if rt.world.is_main:
            fill_up(f"{root}/filler")
        rt.group.barrier()
        with pytest.raises(PeerError, match="No space left on device"):
            rt.checkpointer(root, state={"ballast": ballast}).save(4)
        said.append(ckpt.restore())
        return said


def test_a_full_disk_is_an_error_on_all_ranks_and_is_not_full_afterwards(small_disk: Path) -> None:
    for words, after, found, *rest in run_ranks(fill_the_disk, 2, str(small_disk)):
        assert "No space left on device" in words
        assert (after, found) == (["step-00000001"], 1), "what was written of it is gone, and the old one whole"
        assert rest == [["step-00000001", "step-00000003"], 3, 3]


def on_a_read_only_disk(root: str, other: str) -> list[Any]:
    """Save; make the disk read-only; restore, and try to save and to train. Then: writable for rank 0 alone."""
    said: list[Any] = []

    def mount(*words: str) -> None:
        rt.group.barrier()
        if rt.world.is_main:
            subprocess.run(["mount", *words], check=True)
        rt.group.barrier()

    with dtk.init(seed=0) as rt:
        ballast = Ballast()
        ckpt = rt.checkpointer(root, state={"ballast": ballast})
        ckpt.save(1)
        ckpt.close()
        mount("-o", "remount,ro", root)
        for place in (root, f"{root}/not/there/yet"):
            ckpt = rt.checkpointer(place, state={"ballast": ballast})
            said.append(ckpt.restore())
            for attempt in (lambda ckpt=ckpt: ckpt.save(2), lambda ckpt=ckpt: next(ckpt.steps([0] * 5, until=2))):
                with pytest.raises(PeerError) as caught:
                    attempt()
                said.append(str(caught.value))
        mount("-o", "remount,rw", root)
        mount("--bind", root, other)
        mount("-o", "remount,bind,ro", other)
        ckpt = rt.checkpointer(other if rt.world.rank else root, state={"ballast": ballast})
        with pytest.raises(PeerError) as caught:
            next(ckpt.steps([0] * 5, until=2))
        said.append(caught.value.failures)
        return said


def test_a_run_that_cannot_save_says_so_before_it_trains(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    try:
        for restored, *told, restored_none, saved, trained, failures in run_ranks(
            on_a_read_only_disk, 2, str(small_disk), str(other)
        ):
            assert (restored, restored_none) == (1, None), "an archive can be restored from"
            for words in (*told, saved, trained):
                assert str(small_disk) in words
                assert "Read-only file system" in words
            assert list(failures) == [1]
            assert "Read-only file system" in failures[1]
        for command in ("ls", "verify", "show"):
            assert main([command, str(other)]) == 0
        assert "committed" in capsys.readouterr().out
    finally:
        subprocess.run(["umount", other], check=False)
