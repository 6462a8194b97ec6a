"""Statement 26: a signal at any time, to anybody, loses no work, and what follows is the same run."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

from dist_toolkit.testing import run_ranks
from tests.multiproc.preemption import Target, train

pytestmark = pytest.mark.multiproc
RANKS, WORKERS = 2, 2


def bombard(shots: int, seed: int) -> list[str]:
    """Signal runs at random times until so many have been hit; what happened to each. Every run must end the same."""
    draw = random.Random(seed)
    expected = run_ranks(train, RANKS, mkdtemp(prefix="dtk-whole-"), 0)[0]
    done: list[str] = []
    while len(done) < shots:
        target = Target(Path(mkdtemp(prefix="dtk-shot-")), RANKS, WORKERS)
        while len(done) < shots:
            shot = target.shoot(draw)
            if shot is None:
                break
            done.append(str(shot))
            print(shot)
            if target.check(shot):
                break
        assert run_ranks(train, RANKS, str(target.root), WORKERS) == [expected] * RANKS
        assert target.newest() == expected["step"]
        shutil.rmtree(target.root)
    return done


def test_signals_at_random_times() -> None:
    bombard(8, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_signals_at_random_times() -> None:
    bombard(200, seed=random.randrange(1 << 30))
