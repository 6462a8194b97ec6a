import shlex
import subprocess
import sys

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.resources import worker_path
from dtk_launch.torchrun import Command, check_pet, render

NASTY = (
    "--help",
    'it\'s "quoted"',
    "$HOME $(id) `id`",
    "line\nbreak",
    "tab\t\\n",
    "grüße 漢字 🙂",
    "*",
    "~",
    "!!",
    "",
    "--",
    "-",
)


def text(plan):
    return render(plan).shell_text().replace(str(worker_path()), "WORKER") + "\n"


def test_commands(plan, facts, step, golden):
    runs = {
        "one rank": plan(),
        "two ranks, arguments, variables": plan(
            nproc="2", args=("--lr", "0.1", *NASTY), env=("A=x y", "B=$HOME"), max_restarts=2
        ),
        "a module, on GPUs": plan(facts(gpus=4), module=True, script="pkg.train", strategy="ddp", device="cuda"),
        "second node of two": plan(facts(allocation=step), nproc="2", name="big", run_dir="/scratch/big"),
    }
    golden("torchrun.txt", "".join(f"# {title}\n{text(made)}" for title, made in runs.items()))


def test_the_text_survives_a_paste_into_bash():
    show = "import os, sys, json; print(json.dumps([os.environ['A'], os.environ['DTK'], *sys.argv[1:]]))"
    command = Command((sys.executable, "-c", show, *NASTY), (("A", "x 'y'\n$Z"), ("DTK", "*")))
    import json

    done = subprocess.run(["bash"], input=command.shell_text(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["x 'y'\n$Z", "*", *NASTY]
    assert shlex.split(command.shell_text())[2:] == list(command.argv)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PET_NPROC_PER_NODE": "4"}, "PET_NPROC_PER_NODE=4 contradicts --nproc-per-node 2"),
        ({"PET_NNODES": "2"}, "PET_NNODES=2 contradicts --nnodes 1"),
        ({"PET_MAX_RESTARTS": "3"}, "PET_MAX_RESTARTS=3 contradicts"),
        ({"PET_STANDALONE": "0"}, "PET_STANDALONE=0 contradicts"),
        ({"PET_NO_PYTHON": "1"}, "unset PET_NO_PYTHON"),
        ({"PET_MODULE": "1"}, "pass -m to dtk"),
        ({"PET_RUN_PATH": "1"}, "unset PET_RUN_PATH"),
    ],
)
def test_a_stray_variable_that_contradicts_the_plan(plan, environ, said):
    with pytest.raises(PlanError, match=said):
        check_pet(plan(nproc="2"), environ)


def test_variables_that_agree_and_variables_that_are_only_named(plan):
    environ = {"PET_NPROC_PER_NODE": "2", "PET_NNODES": "1:1", "PET_MODULE": "0", "PET_LOG_DIR": "/logs", "HOME": "/"}
    added = check_pet(plan(nproc="2"), environ).decisions[len(plan(nproc="2").decisions) :]
    assert [(d.key, d.value, d.source) for d in added] == [("PET_LOG_DIR", "/logs", "environment PET_LOG_DIR")]
