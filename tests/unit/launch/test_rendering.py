"""Batch scripts as text, and as a real bash reads them with stand-ins for srun and its like."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.jobs import build_job
from dtk_launch.options import SubmitOptions
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.slurm import Slurm, variables
from hypothesis import given
from hypothesis import strategies as st

NASTY = (
    "--help",
    'it\'s "quoted"',
    "$HOME $(id) `id`",
    "a;b&&c|d>e<f&",
    "line\nbreak",
    "grüße 漢字",
    "{{ nodes }} {% raw %}",
    "#SBATCH --nodes=9",
    "",
    "~",
    "*",
)

SCENARIOS = {
    "smallest": {},
    "full": {
        "nodes": "2",
        "nproc": "4",
        "time": "1-00:00:00",
        "partition": "gpu",
        "account": "phys",
        "device": "cuda",
        "strategy": "ddp",
        "cpus_per_task": 32,
        "mem": "64G",
        "name": "my run",
        "run_dir": "/scratch/100%/my run",
        "env": ("NCCL_DEBUG=INFO",),
        "sbatch": ("nice=100", "spread-job"),
        "max_restarts": 1,
        "args": NASTY,
    },
    "may-shrink": {"nodes": "2:4", "nproc": "8", "max_restarts": 3, "time": "12:00:00"},
    "placement": {
        "nodes": "4",
        "qos": "high",
        "constraint": "a100|h100",
        "reservation": "course day",
        "exclusive": True,
        "gpus_per_node": "a100:8",
        "mem": "0",
    },
    "after-another": {"dependency": "afterok:12:13?afterany:14"},
    "mail": {"mail_type": "end,fail, time_limit_80", "mail_user": "ada@example.org"},
    "array": {"array": "0-9,20-30:5%4", "nodes": "2", "name": "my sweep"},
    "modules": {"load": ("cuda/12.4", "python/3.11 x"), "setup": ("ulimit -c 0", 'echo "on $(hostname)"')},
    "venv": {"venv": "my env", "nodes": "2"},
    "conda": {"conda": "torch env"},
    "pyxis": {
        "container_image": "nvcr.io#nvidia/pytorch:25.01-py3",
        "container_mounts": "/data:/data:ro",
        "nodes": "2",
        "cpus_per_task": 8,
    },
    "apptainer": {"container_image": "/images/torch 2.sif", "run_dir": "/scratch/run"},
    "plain-one-node": {"plain": True, "nproc": "4", "args": NASTY, "env": ("MODE=a b",)},
    "plain-four-nodes": {"plain": True, "nodes": "4", "nproc": "gpu", "cpus_per_task": 16, "args": NASTY},
    "plain-module-in-a-venv": {
        "plain": True,
        "nodes": "2",
        "nproc": "2",
        "script": "my.trainer",
        "module": True,
        "venv": "my env",
        "max_restarts": 3,
    },
    "plain-array": {"plain": True, "array": "1-3", "nproc": "2"},
}


@pytest.fixture
def job(facts, tmp_path):
    """A job whose folders do not differ from test to test."""
    (tmp_path / "my env/bin").mkdir(parents=True)
    (tmp_path / "my env/bin/activate").touch()

    def make(**given):
        plan = build_job(SubmitOptions(**{"script": "train.py"} | given), facts(cwd=tmp_path))
        moved = {name: Path(_home(getattr(plan, name), tmp_path)) for name in ("run_dir", "output_dir", "workdir")}
        words = tuple(type(word)(_home(word, tmp_path)) for word in plan.launch)
        batch = tuple(type(word)(_home(word, tmp_path)) for word in plan.batch)
        lines = tuple(_home(line, tmp_path) for line in plan.setup)
        boxed = plan.container
        if boxed is not None:
            boxed = replace(boxed, mounts=tuple(_home(mount, tmp_path) for mount in boxed.mounts))
        return replace(plan, **moved, launch=words, batch=batch, setup=lines, container=boxed)

    return make


def _home(text, folder):
    return str(text).replace(str(folder), "/home/ada/project")


@pytest.mark.parametrize("name", SCENARIOS)
def test_rendered_scripts(job, golden, tmp_path, name):
    text = Slurm().render(job(**SCENARIOS[name]))
    golden(f"submit/{name}.sbatch", text)
    script = tmp_path / "job.sbatch"
    script.write_text(text)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (slurm/cluster/install.sh)")
def test_the_scripts_pass_shellcheck(job, tmp_path):
    for name, asked in SCENARIOS.items():
        (tmp_path / name).write_text(Slurm().render(job(**asked)))
    # SC1090, SC1091: the activation scripts of others are not there; SC2016: $ in the arguments is theirs
    command = ["shellcheck", "--exclude=SC1090,SC1091,SC2016", *(tmp_path / name for name in SCENARIOS)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


SHOW = f"""#!{sys.executable}
import json, os, sys
words = sys.argv[1:]
start = next(i for i, word in enumerate(words) if not word.startswith("-"))
if os.path.basename(words[start]) == "bash":
    os.execvp("bash", words[start:])
kept = {{k: v for k, v in os.environ.items() if k in ("OMP_NUM_THREADS", "MODE", "SLURM_EXPORT_ENV")}}
print(json.dumps([os.path.basename(sys.argv[0]), words, kept]))
"""

SCONTROL = """#!/bin/sh
case "$*" in
  'show hostnames n[1-4]') printf 'n1\\nn2\\nn3\\nn4\\n' ;;
  'show node n1') printf 'NodeName=n1 Arch=x86_64\\n   NodeAddr=10.0.0.1 NodeHostName=n1 Version=22.05\\n' ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs a batch script with programs that print how they were called."""
    stand_ins = tmp_path / "stand-ins"
    stand_ins.mkdir()
    for name in ("srun", "torchrun"):
        (stand_ins / name).write_text(SHOW)
    (stand_ins / "getent").write_text('#!/bin/sh\n[ "$1" = ahosts ] && [ "$2" != "$UNKNOWN" ]\n')
    (stand_ins / "scontrol").write_text(SCONTROL)
    (stand_ins / "module").write_text('#!/bin/sh\n[ "$2" != missing ]\n')
    for file in stand_ins.iterdir():
        file.chmod(0o755)

    def start(plan, **environ):
        if plan.plain is not None:
            plan = replace(plan, launch=tuple(type(w)(w.replace("/env/bin/torchrun", "torchrun")) for w in plan.launch))
        known = {"PATH": f"{stand_ins}:/usr/bin:/bin", "SLURM_JOB_ID": "70123", "SLURM_JOB_NODELIST": "n[1-4]"}
        known |= {"SLURM_NODEID": "0", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "16", "SLURM_EXPORT_ENV": "NONE"}
        return subprocess.run(
            ["bash"], input=Slurm().render(plan), env=known | environ, capture_output=True, text=True, check=False
        )

    return start


def said(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_arguments_arrive_through_a_real_bash(job, run):
    program, words, environ = said(run(job(nodes="2", args=NASTY)))
    assert program == "srun"
    assert words[:4] == ["--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "/env/bin/dtk"]
    assert words[-len(NASTY) - 1 :] == ["train.py", *NASTY]
    assert "SLURM_EXPORT_ENV" not in environ


def test_the_launch_is_started_by_what_requeues_it_where_that_is_there(job, run):
    done = run(job())  # /env/bin/dtk is not
    assert said(done)[1][:2] == ["--nodes=1", "--ntasks-per-node=1"]
    assert done.stderr.startswith("no dtk on ")
    assert done.stderr.endswith(": the job will not be requeued\n")
    done = run(replace(job(args=NASTY), batch=("torchrun", "batch-step", "--run-dir", "a b", "--")))
    program, words, _ = said(done)
    assert (program, done.stderr) == ("torchrun", "")
    assert words[:6] == ["batch-step", "--run-dir", "a b", "--", "srun", "--nodes=1"]
    assert tuple(words[-len(NASTY) :]) == NASTY


@given(
    args=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8), max_size=3)
)
def test_any_argument_arrives(args):
    plan = JobPlan(("dtk", "launch", "t.py", *args), 1, "n", Path("/r"), Path("/r"), Path("/w"))
    last = Slurm().render(plan).partition("--kill-on-bad-exit=1")[2]
    show = 'for word in "$@"; do printf "%s\\0" "$word"; done'
    done = subprocess.run(["bash", "-c", f"set -- {last}\n{show}"], capture_output=True, check=True)
    assert [word.decode() for word in done.stdout.split(b"\0")[:-1]] == ["dtk", "launch", "t.py", *args]


@pytest.mark.parametrize(("node", "is_host"), [("0", "1"), ("3", "0")])
def test_plain_torchrun_of_several_nodes_knows_where_to_meet(job, run, node, is_host):
    plan = job(plain=True, nodes="4", nproc="2", args=NASTY)
    program, words, environ = said(run(plan, SLURM_NODEID=node, SLURMD_NODENAME=f"n{int(node) + 1}"))
    assert program == "torchrun"
    values = dict(itertools.pairwise(words))
    assert (values["--nnodes"], values["--nproc-per-node"]) == ("4", "2")
    assert values["--rdzv-endpoint"] == f"n1:{20000 + 70123 % 12000}"
    assert values["--rdzv-id"] == "70123-0"
    assert values["--rdzv-conf"] == f"is_host={is_host},read_timeout=600,join_timeout=900"
    assert values["--local-addr"] == f"n{int(node) + 1}"
    assert words[words.index("--") :] == ["--", "train.py", *NASTY]
    assert environ["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(
    ("unknown", "meet", "own"), [("n1", "10.0.0.1", "n4"), ("n4", "n1", "n4")], ids=["slurm knows it", "nobody does"]
)
def test_plain_torchrun_asks_slurm_for_the_address_of_a_name_that_is_not_known(job, run, unknown, meet, own):
    done = run(job(plain=True, nodes="4"), SLURM_NODEID="3", SLURMD_NODENAME="n4", UNKNOWN=unknown)
    _, words, _ = said(done)
    values = dict(itertools.pairwise(words))
    assert values["--rdzv-endpoint"] == f"{meet}:{20000 + 70123 % 12000}"
    assert values["--local-addr"] == own


def test_plain_torchrun_of_one_node(job, run):
    program, words, environ = said(run(job(plain=True, nproc="32", env=("MODE=a 'b'",), module=True, script="a.b")))
    assert program == "srun"
    assert words[3:] == ["torchrun", "--standalone", "--nproc-per-node", "32", "--max-restarts", "0", "-m", "--", "a.b"]
    assert environ == {"OMP_NUM_THREADS": "1", "MODE": "a 'b'"}


def test_each_task_of_an_array_has_a_run_of_its_own(job, run):
    _, words, _ = said(run(job(array="0-3", name="my sweep"), SLURM_ARRAY_TASK_ID="3"))
    values = dict(itertools.pairwise(words))
    assert (values["--name"], values["--run-dir"]) == ("my sweep-3", "/home/ada/project/runs/my sweep/task-3")


@pytest.mark.parametrize(("module", "code"), [("there", 0), ("missing", 1)])
def test_a_module_that_is_missing_ends_the_job(job, run, module, code):
    assert run(job(load=(module,))).returncode == code


def test_a_template_of_ones_own(job, tmp_path):
    own = tmp_path / "site.j2"
    own.write_text("#!/bin/bash -l\n{% for key, value in directives %}# {{ key }}\n{% endfor %}{{ launch | words }}\n")
    text = Slurm().render(job(template=str(own), args=("a b",)))
    assert text.startswith("#!/bin/bash -l\n# job-name\n# nodes\n")
    assert text.endswith("train.py 'a b'\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("#!/bin/sh\n{{ partition }}", "'partition' is undefined; the variables are directives, nodes, name"),
        ("#!/bin/sh\n\n{% for %}", "line 3"),
        ("#!/bin/sh\n{{ name | nosuch }}", "nosuch"),
        ("srun {{ name }}", "begins with #!"),
    ],
)
def test_a_template_that_is_none(job, tmp_path, text, words):
    own = tmp_path / "site.j2"
    if text is not None:
        own.write_text(text)
    with pytest.raises(PlanError, match="--template=") as caught:
        Slurm().render(job(template=str(own)))
    assert words in str(caught.value)


def test_the_variables_of_a_template_are_documented(job):
    page = (Path(__file__).parents[3] / "slurm" / "README.md").read_text()
    assert [name for name in variables(job()) if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"array": "1-"}, "--array='1-' is no list of numbers"),
        ({"array": "0-9%0"}, "--array"),
        ({"mail_type": "END,SOMETIMES"}, "unknown event 'SOMETIMES'"),
        ({"mail_user": "ada"}, "--mail-type"),
        ({"constraint": "a", "sbatch": ("constraint=b",)}, "--constraint is given too"),
        ({"sbatch": ("array=1",)}, "pass --array"),
        ({"venv": "my env", "conda": "x"}, "keep one"),
        ({"venv": "nowhere"}, "is not there"),
        ({"setup": ("a\nb",)}, "line break"),
        ({"container_mounts": "/a:/b"}, "there is no container"),
        ({"container_image": "x", "container_runtime": "docker"}, "unknown runtime 'docker'"),
        ({"container_image": "x", "container_mounts": "/a"}, "'/a' is not SOURCE:TARGET"),
        ({"container_image": "x", "run_dir": "/a,b"}, "rename it"),
        ({"plain": True, "strategy": "fsdp"}, "--plain leaves the nodes to torchrun, but --strategy=fsdp"),
        ({"plain": True, "grace": "90s"}, "--grace=90s"),
    ],
)
def test_what_cannot_be(job, given, words):
    with pytest.raises(PlanError) as caught:
        job(**given)
    assert words in str(caught.value)


def test_folders_are_there_for_templates(job):
    known = variables(job())
    assert (known["run_dir"], known["workdir"]) == ("/home/ada/project/runs/train", "/home/ada/project")
    assert os.fspath(job().output_dir) == known["run_dir"]
