"""What is probably not meant gets a line, and nothing else does."""

import re
from pathlib import Path

import pytest
from dtk_launch.hints import _OURS_ALONE, hints, known_variables
from dtk_launch.meeting import Meeting
from dtk_launch.options import LaunchOptions, option_fields

WIRE = Path(__file__).parents[3] / "docs/wire.md"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("DTK_NRPOC", "DTK_NPROC"), ("DTK_NPROCS", "DTK_NPROC"), ("DTK_STRATGY", "DTK_STRATEGY"),
     ("DTK_NODE", "DTK_NODES"),
     ("DTK_DESYNC_GARD", "DTK_DESYNC_GUARD"), ("DTK_RUNNAME", "DTK_RUN_NAME"), ("DTK_PARTITON", "DTK_PARTITION")],
)  # fmt: skip
def test_a_variable_that_resembles_a_known_one(plan, variable, meant):
    (line,) = hints(plan(), {variable: "1"}, "")
    assert line == f"{variable} is not known, and nothing of dtk reads it; did you mean {meant}?"


def test_variables_of_the_users_own(plan):
    mine = ("DTK_SEED", "DTK_LR", "DTK_DEBUG", "DTK_DATA_ROOT", "DTK_MY_MODEL", "DTK_CLUSTER_DIR", "DTK_", "dtk_nrpoc")
    assert hints(plan(), dict.fromkeys((*mine, "NRPOC", *known_variables()), "1"), "") == ()


def test_every_variable_of_the_wire_is_known():
    named = set(re.findall(r"`(DTK_[A-Z_]*[A-Z])`", WIRE.read_text(encoding="utf-8")))
    assert named <= known_variables()


def test_the_options_named_are_options():
    assert set(_OURS_ALONE) <= {f.name for f in option_fields(LaunchOptions)}


def test_an_option_of_dtk_behind_the_script(plan):
    for args in (("--nproc", "2"), ("x", "--nproc=2"), ("--nodes", "2", "--nproc", "2")):
        (line,) = hints(plan(args=args), {}, "print(1)")
        assert line.startswith("--nproc stands after train.py")
        assert line.endswith("dtk launch --nproc ... train.py")


@pytest.mark.parametrize(
    ("args", "source"),
    [
        (("--nproc", "2"), "parser.add_argument('--nproc')"),
        (("--nproc", "2"), "def main(nproc): ...  # for fire"),
        (("--name", "x", "--device", "cpu"), ""),
        (("nproc", "--nprocs", "-n"), ""),
        (("--nproc", "2"), None),
    ],
)
def test_what_may_well_be_the_scripts(plan, args, source):
    assert hints(plan(args=args), {}, source) == ()


def test_one_that_dtk_was_given_too(plan):
    assert hints(plan(nproc="2", args=("--nproc", "9")), {}, "") == ()


def test_a_port_that_any_program_may_be_given(plan, facts):
    here = Meeting(("10.0.0.1",), True, "10.0.0.1", ephemeral=(30000, 40000))
    (line,) = hints(plan(facts(meeting=here), nodes="2", rdzv="n1:40000"), {}, "")
    assert line.startswith("--rdzv n1:40000: port 40000 is one that this system gives to any program")
    assert hints(plan(facts(meeting=here), nodes="2", rdzv="n1:40001"), {}, "") == ()
