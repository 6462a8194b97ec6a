"""Statement 26: a signal at any time, to anybody, loses no work, and what follows is the same run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

import dist_toolkit as dtk
from dist_toolkit.testing import run_ranks
from tests.multiproc.preemption import Target, train

pytestmark = pytest.mark.multiproc
WORKERS = 2


def bombard(shots: int, seed: int, ranks: int = 2, strategy: str = "ddp") -> list[str]:
    """Signal runs at random times until so many have been hit; what happened to each. Every run must end the same."""
    draw = random.Random(seed)
    expected = run_ranks(train, ranks, mkdtemp(prefix="dtk-whole-"), 0, strategy)[0]
    done: list[str] = []
    while len(done) < shots:
        target = Target(Path(mkdtemp(prefix="dtk-shot-")), ranks, WORKERS, strategy)
        while len(done) < shots:
            shot = target.shoot(draw)
            if shot is None:
                break
            done.append(str(shot))
            print(shot)
            if target.check(shot):
                break
        assert run_ranks(train, ranks, str(target.root), WORKERS, strategy) == [expected] * ranks
        assert target.newest() == expected["step"]
        shutil.rmtree(target.root)
    return done


def test_signals_at_random_times() -> None:
    bombard(4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("shots", "ranks", "strategy"), [(140, 2, "ddp"), (30, 1, "single"), (30, 2, "fsdp")])
def test_two_hundred_signals_at_random_times(shots: int, ranks: int, strategy: str) -> None:
    bombard(shots, random.randrange(1 << 30), ranks, strategy)


class Hanging(list):
    """Sample 5 never comes."""

    def __getitem__(self, index: int) -> int:
        if index == 5:
            time.sleep(600)
        return index


def leave_with_hanging_workers(folder: str, method: str) -> None:
    """Signal all workers, which must not mind, and leave without closing anything while one of them hangs."""
    rt = dtk.init()
    data = Hanging(range(64))
    batches = iter(
        rt.loader(
            data, global_batch_size=1, shuffle=False, num_workers=2, prefetch_factor=4, multiprocessing_context=method
        )
    )
    seen = [next(batches) for _ in range(2)]
    workers = psutil.Process().children(recursive=True)
    for number in (signal.SIGTERM, signal.SIGUSR1) * 5:
        for worker in workers:
            if "resource_tracker" not in " ".join(worker.cmdline()):
                worker.send_signal(number)
    time.sleep(0.3)
    seen += [next(batches) for _ in range(2)]
    assert [int(batch) for batch in seen] == [0, 1, 2, 3]
    Path(folder, "workers").write_text(" ".join(str(worker.pid) for worker in workers))
    kept.append(batches)  # until the interpreter ends


kept: list[object] = []


@pytest.mark.parametrize(("way", "method"), [("rank", "fork"), pytest.param("script", "spawn", marks=pytest.mark.slow)])
def test_workers_deaf_to_signals_end_with_their_rank(way: str, method: str, tmp_path: Path) -> None:
    if way == "rank":
        run_ranks(leave_with_hanging_workers, 1, str(tmp_path), method, timeout=60.0)
    else:
        call = f"leave_with_hanging_workers({str(tmp_path)!r}, {method!r})"
        text = f"from {__name__} import *\nif __name__ == '__main__':\n    {call}\n"
        (tmp_path / "script.py").write_text(text)
        root = Path(__file__).parents[2]
        env = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run([sys.executable, tmp_path / "script.py"], env=env, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
    pids = [int(pid) for pid in (tmp_path / "workers").read_text().split()]
    deadline = time.monotonic() + 10.0
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) >= 2
    assert not any(map(psutil.pid_exists, pids))
