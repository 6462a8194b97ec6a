"""docs/guide/5-slurm.md, typed on a cluster: the job goes as it is shown."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.slurm_guide import commands

pytestmark = pytest.mark.slurm
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "5-slurm.md"
NUMBER = r"\d+([.:]\d+)*"


@pytest.fixture
def two_nodes(make_cluster):
    """Nodes of a core each."""
    with make_cluster(NODES=2, CPUS=1) as cluster:
        yield cluster


@pytest.mark.slow
def test_the_page_on_slurm(two_nodes, tmp_path):
    env = {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    two_nodes.run(["dtk", "init", "first"], cwd=tmp_path, env=env)
    said = {}
    for command, printed in commands(PAGE.read_text(encoding="utf-8")):
        done = two_nodes.run(["bash", "-c", command], cwd=tmp_path / "first", env=env, timeout=120)
        said[command] = done.stdout
        if printed:
            shown = printed.replace("/home/ada", str(tmp_path))
            kept = [line for line in done.stdout.splitlines(keepends=True) if not re.search(r"dtk: note|\[W\d", line)]
            seen = "".join(kept)
            assert re.sub(NUMBER, "N", seen) == re.sub(NUMBER, "N", shown), done.stdout + done.stderr
    assert [len(said), next(iter(said.values())).splitlines()[0]] == [5, "#!/bin/bash"]
    assert re.search(r"^job \d+: (running|waits)", said["dtk status train"])
    assert re.search(r"^\d+ +train +(running|completing|completed) ", said["dtk status"], re.MULTILINE)
