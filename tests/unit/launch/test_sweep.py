"""Which runs a sweep is, and how their arguments reach them."""

import json
import subprocess

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.jobs import build_job
from dtk_launch.options import SubmitOptions
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.schedulers.srun import shell_words
from dtk_launch.sweep import sweep_lines, sweep_tasks
from hypothesis import given
from hypothesis import strategies as st


def test_every_combination():
    assert sweep_tasks(["lr=1e-3,3e-4", "seed=-1:1"]) == (
        ("--lr=1e-3", "--seed=-1"),
        ("--lr=1e-3", "--seed=0"),
        ("--lr=3e-4", "--seed=-1"),
        ("--lr=3e-4", "--seed=0"),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["lr"], "is not NAME=VALUES"),
        (["-lr=1"], "is not NAME=VALUES"),
        (["lr="], "empty value"),
        (["lr=1,,2"], "empty value"),
        (["lr=1", "lr=2"], "swept already"),
        (["lr=1,1"], "a value twice"),
        (["seed=4:4"], "without its end"),
        (["seed=0:99999999999"], "1 to 1000"),
        (["a=0:100", "b=0:100"], "makes 10000 runs"),
        (["lr=1\n2"], "line break"),
    ],
)
def test_what_is_no_sweep(given, said):
    with pytest.raises(PlanError, match=said):
        sweep_tasks(given)


def test_an_array_is_not_asked_for_twice(facts):
    with pytest.raises(PlanError, match="drop one of the two"):
        build_job(SubmitOptions(script="train.py", sweep=("a=1",), array="0-3"), facts())


@pytest.mark.parametrize("more", [{}, {"plain": True}, {"plain": True, "nodes": "2"}])
def test_the_script_of_a_sweep(facts, more):
    text = Slurm().render(build_job(SubmitOptions(script="train.py", args=("x y",), sweep=("a=1,2",), **more), facts()))
    assert "#SBATCH --array=0-1\n" in text
    assert "1) set -- --a=2 ;;" in text
    assert text.rstrip().endswith("train.py 'x y' \"$@\"")


words = st.lists(st.text("a b$'\"\\*!;~#()`é", min_size=1), min_size=1, max_size=3)


@given(words)
def test_arguments_reach_a_task_as_they_are(values):
    lines = sweep_lines([["no"], [f"--a={value}" for value in values]])
    script = "SLURM_ARRAY_TASK_ID=1\n" + "\n".join(lines) + "\nprintf '%s\\0' \"$@\""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == [f"--a={value}" for value in values]


def test_only_a_sweep_has_arguments_of_its_tasks():
    assert shell_words(["$@"]) == "'$@'"
    assert json.dumps(sweep_lines([])) == "[]"
