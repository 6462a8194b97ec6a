"""docs/wire.md, plan -> environment -> World, and the names on both sides of the wire."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.allocation import Allocation
from dtk_launch.config import resolve
from dtk_launch.cpus import Cpu
from dtk_launch.facts import Count, HostFacts
from dtk_launch.options import DEVICES, PRECISIONS, STRATEGIES, LaunchOptions
from dtk_launch.plan import build_plan
from dtk_launch.resources import worker_path
from dtk_launch.torchrun import render

from dist_toolkit.world import World

ROOT = Path(__file__).parents[2]
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


def table(heading):
    """Rows of the table below a heading, each a list of cells."""
    lines = WIRE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def torchrun_environments(argv, node):
    """What torchrun gives the ranks of the node that joins as this one, read from the flags it is given."""
    flags = argv[: argv.index("--")]
    value = lambda flag, default: int(flags[flags.index(flag) + 1]) if flag in flags else default  # noqa: E731
    nproc, nodes = value("--nproc-per-node", 1), value("--nnodes", 1)
    for local in range(nproc):
        yield {
            "RANK": str(node * nproc + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(nodes * nproc),
            "LOCAL_WORLD_SIZE": str(nproc),
            "GROUP_RANK": str(node),
            "GROUP_WORLD_SIZE": str(nodes),
            "TORCHELASTIC_RESTART_COUNT": "0",
        }


@pytest.mark.parametrize(("nodes", "nproc"), [(1, 1), (1, 3), (2, 2), (3, 1)])
def test_a_plan_becomes_the_same_world_in_every_rank(nodes, nproc):
    names = tuple(f"n{number}" for number in range(nodes))
    seen = set()
    for node, name in enumerate(names):
        step = Allocation(1, 0, names, node, name, f"1(x{nodes})") if nodes > 1 else None
        facts = HostFacts(Path("/w"), Count(8, ""), Count(0, ""), "2.14.1", ("torchrun",), ("dtk",), (), step)
        plan = build_plan(resolve(LaunchOptions, {"script": "t.py", "nproc": str(nproc)}, {}, facts.cwd), facts)
        for environ in torchrun_environments(render(plan).argv, node):
            world = World.from_env(dict(plan.env) | environ)
            assert (world.world_size, world.num_nodes, world.local_world_size) == (nodes * nproc, nodes, nproc)
            assert (world.node_rank, world.launched) == (plan.topology.node_rank, True)
            assert world.rank == world.node_rank * nproc + world.local_rank
            seen.add(world.rank)
    assert seen == set(range(nodes * nproc))


def test_what_the_plan_sets_is_in_the_table_and_the_other_way_round():
    facts = HostFacts(Path("/w"), Count(8, ""), Count(2, ""), "2.14.1", ("torchrun",), ("dtk",))
    facts = replace(facts, cpus=(Cpu(0, 0, 0), Cpu(1, 1, 0)))
    switches = {"fsdp_wrap": "auto", "fsdp_reshard": "true", "fsdp_activation_checkpointing": "true"}
    launches = (
        {"max_restarts": 1, "strategy": "fsdp", "precision": "bf16", "cpu_bind": "auto", **switches},
        {"strategy": "deepspeed", "zero_stage": "2", "offload": "cpu"},
        {"strategy": "deepspeed", "deepspeed_config": "ds.json"},
    )
    set_by_a_plan = set()
    for given in launches:
        plan = build_plan(resolve(LaunchOptions, {"script": "t.py"} | given, {}, facts.cwd), facts)
        set_by_a_plan |= set(dict(plan.env))
    nodes = replace(facts, allocation=Allocation(1, 0, ("a", "b"), 0, "a", "1(x2)"), gloo_interface="eth0")
    set_by_a_plan |= set(dict(build_plan(resolve(LaunchOptions, {"script": "t.py"}, {}, facts.cwd), nodes).env))
    others = ("ACCELERATE_", "FSDP_", "LT_", "PL_")  # which docs/other-libraries.md lists
    set_by_a_plan = {name for name in set_by_a_plan if not name.startswith(others)}
    by_dtk = {name for row in table("Environment of a rank") for name in names(row[0]) if row[1].startswith("dtk")}
    assert set_by_a_plan | {"DTK_SUPERVISOR", "DTK_LIVE", "DTK_VITALS", "DTK_FAULTS"} == by_dtk


@pytest.mark.parametrize("side", ["launch/dtk_launch", "dist_toolkit"])
def test_no_other_variable_crosses(side):
    known = {name for row in table("Environment of a rank") for name in names(row[0])}
    used = set()
    for file in (ROOT / side).rglob("*.py"):
        if file.name not in ("config.py",):  # which names the variables that stand for options
            used |= set(re.findall(r"""["'](DTK_[A-Z_]*[A-Z])["']""", file.read_text(encoding="utf-8")))
    assert used - {"DTK_PROFILE"} <= known


def test_values_in_the_table():
    rows = {name: row for row in table("Environment of a rank") for name in names(row[0])}
    assert tuple(names(rows["DTK_STRATEGY"][2])) == STRATEGIES
    assert tuple(names(rows["DTK_DEVICE"][2])) == DEVICES
    assert tuple(names(rows["DTK_PRECISION"][2])) == PRECISIONS


def test_the_record_has_the_fields_of_the_table(tmp_path):
    import json
    import subprocess

    (tmp_path / "t.py").write_text("")
    environ = {"DTK_RUN_DIR": str(tmp_path / "run"), "RANK": "0"}
    subprocess.run([sys.executable, str(worker_path()), "t.py"], cwd=tmp_path, env=environ, check=True)
    record = json.loads((tmp_path / "run/ranks/0.json").read_text())
    (row,) = [row for row in table("Run directory") if row[0] == "`ranks/<rank>.json`"]
    fields, _, ends = row[2].partition("at the end")
    assert names(fields)[0].split() == [key for key in record if key != "exit"]
    assert names(ends)[0] == "exit"
    assert names(ends.partition("While")[0])[1:] == list(record["exit"])


def test_exit_codes_in_the_table():
    from dtk_launch.diagnose.evidence import PREEMPTED
    from dtk_launch.errors import PlanError
    from dtk_launch.outcome import HUNG
    from dtk_launch.outcome import LOST as NODE_LOST
    from dtk_launch.preempt_report import LOST

    codes = [row[0] for row in table("Exit codes of `dtk launch`")]
    known = ["0", str(PlanError.exit_code), str(NODE_LOST), str(LOST), str(PREEMPTED), str(HUNG), "128 + n", "other"]
    assert codes == known
