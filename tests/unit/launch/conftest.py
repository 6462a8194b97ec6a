"""A machine made up for the planner's tests."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.allocation import Allocation
from dtk_launch.config import resolve
from dtk_launch.facts import Count, HostFacts
from dtk_launch.options import LaunchOptions
from dtk_launch.plan import build_plan

from tests import git_tree

FACTS = HostFacts(
    cwd=Path("/home/ada/project"),
    cores=Count(8, "cores in this process's affinity"),
    gpus=Count(0, "no NVIDIA driver and no nvidia-smi"),
    torch_version="2.14.1",
    torchrun=("/env/bin/torchrun",),
    dtk=("/env/bin/dtk",),
)
STEP = Allocation(job_id=4711, restart_count=1, nodes=("n1", "n2"), node_rank=1, node_name="n2", tasks_per_node="1(x2)")


@pytest.fixture
def facts():
    """The made-up machine: 8 cores, no GPU; keywords change it."""

    def make(gpus=0, cores=8, **changes):
        changed = {"gpus": Count(gpus, "made up"), "cores": Count(cores, "made up")} | changes
        return replace(FACTS, **changed)

    return make


@pytest.fixture
def step():
    """An srun step of two nodes, seen from the second."""
    return STEP


@pytest.fixture
def plan(facts):
    """Plan a launch of train.py from the options given on the command line."""

    def make(on=None, **given):
        on = on or facts()
        return build_plan(resolve(LaunchOptions, {"script": "train.py"} | given, dict(on.environ), on.cwd), on)

    return make


@pytest.fixture
def own_git(monkeypatch):
    """No configuration of this machine's user, for git and for what starts it."""
    for name, value in git_tree.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
