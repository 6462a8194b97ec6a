"""`dtk explain` names the source of every value: nothing may reach a run that it does not show."""

from dataclasses import fields

import pytest
from dtk_launch.config import resolve
from dtk_launch.meeting import Meeting
from dtk_launch.options import STRATEGIES, LaunchOptions
from dtk_launch.plan import build_plan
from dtk_launch.sources import complete
from dtk_launch.torchrun import check_pet, render

SHELL = (("DTK_STRATEGY", "ddp"), ("DTK_TIME", "5"), ("DTK_NPROCS", "4"), ("PET_LOG_DIR", "/l"), ("PYTHON_EXEC", "p"))


@pytest.fixture
def explained(facts):
    def make(on=None, **given):
        on = on or facts()
        environ = dict(on.environ)
        settings = resolve(LaunchOptions, {"script": "train.py"} | given, environ, on.cwd)
        plan = complete(check_pet(build_plan(settings, on), environ), settings, environ)
        return plan, {decision.key: decision for decision in plan.decisions}

    return make


EVERYTHING = {
    "nproc": "2", "max_restarts": 1, "name": "n", "run_dir": "d", "env": ("A=1", "OMP_NUM_THREADS=7"),
    "module": True, "args": ("--x", "y"),
}  # fmt: skip


@pytest.mark.parametrize("given", [{}, EVERYTHING, *({"strategy": name} for name in STRATEGIES)])
@pytest.mark.parametrize("nodes", ["one", "step", "by hand", "second by hand", "elastic"])
@pytest.mark.parametrize("shell", [(), SHELL])
def test_every_option_variable_and_flag_has_a_row_with_a_source(explained, facts, step, given, nodes, shell):
    if nodes != "one" and given.get("strategy") in ("single", "data_parallel"):
        return  # one process
    there = {} if nodes in ("one", "step") else {"nodes": "1:2" if nodes == "elastic" else "2", "rdzv": "n1"}
    there |= {"node_rank": 1} if nodes == "second by hand" else {"max_restarts": 1} if nodes == "elastic" else {}
    meeting = Meeting(("10.0.0.1",), nodes != "second by hand", "10.0.0.1") if there else None
    on = facts(allocation=step if nodes == "step" else None, meeting=meeting, environ=shell)
    plan, rows = explained(on, **there, **{name: value for name, value in given.items() if name not in there})
    assert len(rows) == len(plan.decisions)
    assert all(row.source for row in rows.values())
    options = {f.name for f in fields(LaunchOptions)} - ({"env"} if given.get("env") else set())
    assert options <= set(rows)
    command = render(plan)
    for name, value in command.env:
        (row,) = [rows[key] for key in (name, f"env {name}") if key in rows]
        assert row.value == value
    words = command.argv[len(plan.torchrun) : command.argv.index("--")]
    for flag, value in zip(words, (*words[1:], ""), strict=True):
        if flag.startswith("--"):
            assert rows[flag].value == ("" if value.startswith("--") else value)
    shown = {key.removeprefix("shell ") for key in rows} | {
        row.source.removeprefix("environment ") for row in rows.values()
    }
    assert {name for name, _ in shell} <= shown


def test_what_of_the_shell_is_not_taken_is_said(explained, facts):
    _, rows = explained(facts(environ=SHELL), strategy="single")
    assert "strategy is from flag --strategy" in rows["shell DTK_STRATEGY"].why
    assert "dtk submit" in rows["shell DTK_TIME"].why
    assert "no option of dtk" in rows["shell DTK_NPROCS"].why
    assert "shell DTK_STRATEGY" not in explained(facts(environ=SHELL))[1]


def test_a_variable_or_flag_takes_the_source_of_what_it_follows_from(explained):
    _, rows = explained(nproc="2", name="n", env=("OMP_NUM_THREADS=7",))
    assert rows["--nproc-per-node"].source == rows["nproc"].source == "flag --nproc"
    assert rows["DTK_RUN_NAME"].source == "flag --name"
    assert (rows["env OMP_NUM_THREADS"].source, "OMP_NUM_THREADS" in rows) == ("flag --env", False)
    assert (rows["script"].source, rows["args"].source) == ("command line", "command line")
