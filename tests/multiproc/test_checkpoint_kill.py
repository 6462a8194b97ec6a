"""Statements 19, 21, 22: SIGKILL before every call that changes the filesystem, on real ranks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.saving import restored, restored_each, save_values, save_with_saboteur

pytestmark = pytest.mark.multiproc

SECOND = {"next step": (2, 20.0), "same step again": (1, 20.0)}


@pytest.mark.parametrize(
    ("second", "ranks"),
    [
        pytest.param(SECOND["next step"], 1, id="next step-1"),
        pytest.param(SECOND["next step"], 2, id="next step-2", marks=pytest.mark.slow),
        pytest.param(SECOND["same step again"], 1, id="same step again-1"),
        pytest.param(SECOND["same step again"], 2, id="same step again-2", marks=pytest.mark.slow),
    ],
)
def test_kill_at_every_boundary_of_a_save(tmp_path: Path, ranks: int, second: tuple[int, float]) -> None:
    """What is left is the old checkpoint or the new one, whole, and then the next save works and cleans up."""
    counts = run_ranks(save_with_saboteur, ranks, str(tmp_path / "count"), (1, 10.0), second, 0, None, False)
    assert counts[0] > 10
    roots = []
    for rank, count in enumerate(counts):
        assert count >= 3  # create, write, fsync of its own file
        for at in range(count):
            roots.append(root := str(tmp_path / f"{rank}-{at}"))
            with pytest.raises(RanksFailed) as failure:
                run_ranks(save_with_saboteur, ranks, root, (1, 10.0), second, rank, at, at % 2 == 0)
            assert failure.value.outcomes[rank].exitcode == -signal.SIGKILL
    everywhere = run_ranks(restored_each, ranks, roots)
    for root, *found in zip(roots, *everywhere, strict=True):
        assert set(found) in ({(1, 10.0)}, {second}), f"killed at {Path(root).name}: rank-call"
    assert set(everywhere[0]) == {(1, 10.0), second}, "some kills came before the commit and some after"
    for at in (3, counts[0] // 2, counts[0] - 2):
        root = str(tmp_path / f"0-{at}")
        run_ranks(save_values, ranks, root, [(3, 30.0)], {"keep_last": 1})
        assert run_ranks(restored, ranks, root) == [(3, 30.0)] * ranks
        assert [path.name for path in Path(root).iterdir()] == ["step-00000003"], "a save clears what kills have left"
