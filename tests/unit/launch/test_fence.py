"""Which start of a SLURM job has the run directory."""

import itertools
import json
from pathlib import Path

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.fence import Fence


def fence(folder: Path, job: str = "7", restart: str = "", cluster: str = "") -> Fence:
    return Fence(folder, {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": restart, "SLURM_CLUSTER_NAME": cluster})


def test_the_later_start_overtakes(tmp_path: Path) -> None:
    first, other_node = fence(tmp_path), fence(tmp_path)
    assert (first.put(), other_node.put()) == (False, False)
    assert not first.overtaken()
    second, its_other_node = fence(tmp_path, restart="10"), fence(tmp_path, restart="10")
    assert second.put()
    first._next_look = 0.0
    assert first.overtaken()
    its_other_node.put()
    assert not second.overtaken()
    with pytest.raises(PlanError, match="restart 10"):
        fence(tmp_path, restart="9").put()


@pytest.mark.parametrize(
    ("earlier", "later"), list(itertools.permutations([("7", ""), ("8", ""), ("7", "alps"), ("", "")], 2))
)
def test_starts_of_different_jobs_do_not(tmp_path: Path, earlier: tuple[str, str], later: tuple[str, str]) -> None:
    first = fence(tmp_path, earlier[0], "", earlier[1])
    assert not first.put()
    assert not fence(tmp_path, later[0], "1", later[1]).put()
    assert not first.overtaken()


def test_what_cannot_be_read_or_written_is_nobody(tmp_path: Path) -> None:
    assert not fence(tmp_path / "none").put()
    for text in ("", "[]", '{"job": "7@"}', json.dumps({"job": "7@", "restart": None})):
        (tmp_path / "start.json").write_text(text)
        assert not fence(tmp_path).overtaken()
        assert not fence(tmp_path).put()
