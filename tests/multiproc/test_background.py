"""Statements 23, 24, 26, 36: saves in the background are the state at the call, and their failure is everyone's."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.checkpoint import Checkpointer
from dist_toolkit.errors import CheckpointError, PeerError, Preempted
from dist_toolkit.process_group import SoloGroup
from dist_toolkit.signals import Asked
from dist_toolkit.storage import LocalStorage
from dist_toolkit.testing import run_ranks
from dist_toolkit.world import World
from tests.multiproc.saving import fill, restored, tiny, value_of, with_checkpointer

pytestmark = pytest.mark.multiproc
both = pytest.mark.parametrize("ranks", [1, 2])


class Gate:
    """Holds back fsync in this process until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened, self._fsync = threading.Event(), threading.Event(), os.fsync

    def __enter__(self) -> Gate:
        os.fsync = self._wait
        return self

    def __exit__(self, *exception: object) -> None:
        self.opened.set()
        os.fsync = self._fsync

    def _wait(self, fd: int) -> None:
        self.reached.set()
        assert self.opened.wait(60)
        self._fsync(fd)


def save_and_change(root: str) -> list[int]:
    """Save in the background, and change every tensor before a byte of it is durable."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> list[int]:
        for step in (1, 2, 3):
            fill(engine, 10.0 * step)
            with Gate() as gate:
                ckpt.save(step, wait=False)
                assert rt.world.rank > 0 or gate.reached.wait(60)  # rank 0 comes first
                fill(engine, -1.0)
                assert not (Path(root) / f"step-{step:08d}").exists(), "not committed while fsync is held back"
            ckpt.wait()
            assert ckpt.restore() == step
            assert value_of(engine) == 10.0 * step
        return sorted(memory.data_ptr() for memory in ckpt._staging._memory)

    result: list[int] = with_checkpointer(root, body)
    return result


@both
def test_what_is_saved_is_the_state_at_the_call(tmp_path: Path, ranks: int) -> None:
    run_ranks(save_and_change, ranks, str(tmp_path))


def train(root: str, until: int, **sabotage: Any) -> tuple[str, int, list[int]]:
    """A loop over the steps of one number; (how it ended, the step, the steps at which a save was under way)."""
    busy = []
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
        loader = rt.loader(torch.utils.data.TensorDataset(torch.arange(64.0)), global_batch_size=4)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader, every=4)
        seen = 0
        gate = Gate()
        try:
            for step, _ in ckpt.steps(loader, until=until):
                seen = step
                fill(engine, float(step))
                if step == 6 and "full" in sabotage:
                    ckpt.wait()
                if sabotage.get("full") == (rt.world.rank, step):
                    os.write = partial(_full, os.write)  # type: ignore[assignment]
                if step == 4 and sabotage.get("hold"):
                    gate.__enter__()
                if step == 7 and sabotage.get("hold"):
                    gate.__exit__()
                if sabotage.get("term") == (rt.world.rank, step):
                    os.kill(os.getpid(), signal.SIGTERM)
                if ckpt._background.is_busy:
                    busy.append(step)
        except PeerError as error:
            return str(error), seen, busy
        except Preempted:
            return "preempted", seen, busy
        return "", seen, busy


def _full(write: Any, fd: int, data: Any) -> int:
    if len(data) > 100:
        raise OSError(errno.ENOSPC, "No space left on device")
    count: int = write(fd, data)
    return count


@both
def test_training_goes_on_while_a_save_is_written(tmp_path: Path, ranks: int) -> None:
    for words, step, busy in run_ranks(partial(train, hold=True), ranks, str(tmp_path), 9):
        assert (words, step) == ("", 9)
        assert {5, 6, 7} <= set(busy), "steps were done between the copy and the commit"
    assert run_ranks(restored, ranks, str(tmp_path)) == [(9, 9.0)] * ranks


@both
def test_a_failure_is_raised_on_every_rank_at_the_same_step(tmp_path: Path, ranks: int) -> None:
    found = run_ranks(partial(train, full=(ranks - 1, 6)), ranks, str(tmp_path), 100)
    assert len({step for _, step, _ in found}) == 1
    for words, step, _ in found:
        assert f"rank {ranks - 1}" in words
        assert "No space left" in words
        assert 8 <= step <= 12, "the save of step 8 failed, and the next one is due at 12"
    assert run_ranks(restored, ranks, str(tmp_path)) == [(4, 4.0)] * ranks


@both
def test_a_request_to_stop_during_a_save_ends_with_one_checkpoint_more(tmp_path: Path, ranks: int) -> None:
    found = run_ranks(partial(train, term=(ranks - 1, 5)), ranks, str(tmp_path), 100)
    (step,) = {step for _, step, _ in found}
    assert {words for words, _, _ in found} == {"preempted"}
    assert 5 <= step <= 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", f"step-{step:08d}"]
    assert run_ranks(restored, ranks, str(tmp_path)) == [(step, float(step))] * ranks


class OthersTrouble:
    """All ranks hear of a failure that this one did not have."""

    def poll(self, trouble: bool = False) -> Asked:
        return Asked(stop=False, trouble=True)


def test_a_rank_whose_own_save_went_well_stops_with_the_others(tmp_path: Path) -> None:
    group = SoloGroup(World(0, 0, 1, 1), torch.device("cpu"))
    ckpt = Checkpointer(LocalStorage(tmp_path), group, [], stop=OthersTrouble())
    with pytest.raises(CheckpointError, match="failed on another rank"):
        ckpt.end_step(last=False)


def leave(root: str, error: bool) -> str:
    """Leave the `with` right after a save was begun."""
    try:
        with dtk.init(seed=0) as rt:
            engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
            fill(engine, 10.0)
            rt.checkpointer(root, engine=engine).save(1, wait=False)
            if error:
                raise KeyError("the script's own")
    except KeyError as caught:
        return str(caught)
    return ""


@both
@pytest.mark.parametrize("error", [False, True], ids=["in order", "by an error"])
def test_a_save_that_was_begun_is_ended_before_the_program(tmp_path: Path, ranks: int, error: bool) -> None:
    run_ranks(leave, ranks, str(tmp_path), error)
    assert run_ranks(restored, ranks, str(tmp_path)) == [(1, 10.0)] * ranks


def many_saves(root: str, count: int) -> tuple[int, int]:
    """Bytes of this process after a tenth of the saves and after all; files and threads are counted too."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> tuple[int, int]:
        process, early = psutil.Process(), (0, 0, 0)
        for number in range(count):
            fill(engine, float(number))
            ckpt.save(number, wait=False)
            if number == count // 10:
                ckpt.wait()
                early = process.memory_info().rss, process.num_fds(), process.num_threads()
        ckpt.wait()
        late = process.memory_info().rss, process.num_fds(), process.num_threads()
        assert late[1] <= early[1], f"open files: {early[1]}, then {late[1]}"
        assert late[2] < early[2] + 10, f"threads: {early[2]}, then {late[2]}"  # torch starts some of its own late
        return early[0], late[0]

    result: tuple[int, int] = with_checkpointer(root, body, keep_last=1)
    return result


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_saves(tmp_path: Path, count: int) -> None:
    for early, late in run_ranks(many_saves, 2, str(tmp_path), count, timeout=600.0):
        assert late - early < 8 * 2**20, f"{(late - early) / 2**20:.1f} MiB more after {count} saves"
    assert run_ranks(restored, 2, str(tmp_path)) == [(count - 1, count - 1.0)] * 2


def train_by_itself(root: str) -> list[int]:
    """The steps that `every="auto"` saves; rank 1's clock says other things than rank 0's."""
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
        loader = rt.loader(torch.utils.data.TensorDataset(torch.arange(64.0)), global_batch_size=4)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader, every="auto", failures_per_day=1e9)
        saved = []
        for step, _ in ckpt.steps(loader, until=90):
            fill(engine, float(step))
            time.sleep(0.002 * (1 + 3 * rt.world.rank))
            if ckpt._saved_step not in (None, *saved):
                saved.append(ckpt._saved_step)
        return [*saved, step]


def test_an_interval_that_is_found_is_the_same_on_every_rank(tmp_path: Path) -> None:
    first, second = run_ranks(train_by_itself, 2, str(tmp_path))
    assert first == second
    assert first[0] == 20, "which measures what a save costs"
    assert len(first) > 2, "failures this often: as often as saves can follow one another"
    assert [int(path.name[5:]) for path in sorted(tmp_path.glob("step-*"))] == first
    assert run_ranks(restored, 2, str(tmp_path)) == [(90, 90.0)] * 2
