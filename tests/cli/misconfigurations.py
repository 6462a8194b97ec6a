"""The table of test_misconfigurations.py: what is set, and the words that the one message must hold."""

import json
from dataclasses import dataclass, field

FILES = {
    "script.py": "print(1)\n",
    "syntax.py": "import os\ndef f(:\n",
    "imports.py": '"""Docstring."""\nfrom __future__ import annotations\nimport os, no_such_package.part\n',
    "shell.sh": "#!/bin/bash\necho\n",
    "shebang": "#!/usr/bin/env bash\necho\n",
    "binary.py": b"\0\1\2",
    "notebook.ipynb": "{}",
    "pkg/__init__.py": "",
    "pkg/broken.py": "x = = 1\n",
    "folder/train.py": "",
    "ds.json": "{}",
    "half.json": "{",
    "list.json": "[]",
}
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
S = "script.py"


@dataclass(frozen=True)
class Case:
    """`dtk WORDS` in a folder with FILES and `files`, under `env`, must fail and say each of `said`."""

    words: tuple[str, ...]
    said: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join((*self.env, *self.files, *self.words))[:60].encode("ascii", "replace").decode()


def launch(*words, says, env=None, files=None):
    return Case(("launch", *words), says, env or {}, files or {})


def submit(*words, says):
    return Case(("submit", "--dry-run", *words), says)


def setting(text, *says):
    """What dtk.toml says."""
    return launch(S, says=says, files={"dtk.toml": text})


def shell(*says, words=(S,), **env):
    """What the shell has exported."""
    return launch(*words, says=says, env=env)


def step(*says, words=(S,), **env):
    """An srun step that is not as SLURM makes one."""
    return launch(*words, says=says, env=STEP | env)


def record(values, *says):
    """A plan.json that dtk rerun is to read."""
    text = values if isinstance(values, (str, bytes)) else json.dumps(RECORD | values)
    return Case(("rerun", "old"), says, {}, {"runs/old/plan.json": text})


RECORD = {
    "format": 1, "cwd": ".", "name": "old", "target": {}, "topology": {"nproc": 1, "nodes": 1}, "options": {},
    "env": {}, "environment": {}, "versions": {}, "host": {}, "script": {}, "tree": {},
}  # fmt: skip

SCRIPTS = (
    launch(says=("SCRIPT", "--help")),
    launch("", says=("SCRIPT is empty",)),
    launch("none.py", says=("none.py", "no such file")),
    launch("Script.py", says=("Script.py", "did you mean script.py?")),
    launch("nowhere/train.py", says=("nowhere/train.py", "no folder nowhere")),
    launch("script", says=("script: no such file", "add -m")),
    launch("a" * 300, says=("a" * 300, "File name too long")),
    launch("folder", says=("folder is a folder", "folder/train.py")),
    launch("syntax.py", says=("syntax.py line 2", "def f(:")),
    launch("imports.py", says=("imports.py line 3", "no_such_package", "install it")),
    launch("shell.sh", says=("shell.sh is not Python", "#!/bin/bash", "pass the Python script")),
    launch("shebang", says=("shebang is not Python", "pass the Python script")),
    launch("binary.py", says=("binary.py is a binary file", "Python scripts")),
    launch("notebook.ipynb", says=("a notebook", "nbconvert", "pass a Python script")),
    launch("ds.json", says=("ds.json", "a file of settings", "pass a Python script")),
    launch("/dev/null", says=("/dev/null", "no regular file", "pass the path")),
    launch("latin.py", says=("latin.py line 1",), files={"latin.py": "x = 'é'\n".encode("latin-1")}),
    launch("mein skript é.py", says=("mein skript é.py line 1",), files={"mein skript é.py": "x = = 2"}),
    launch("-m", "no_such_module", says=("no module 'no_such_module'", "looked for in")),
    launch("-m", "script.py", says=("not the file script.py", "drop -m")),
    launch("-m", "pkg", says=("'pkg' is a package without __main__.py", "name one of its modules")),
    launch("-m", "pkg.none", says=("no module 'pkg.none'",)),
    launch("-m", "pkg.broken", says=("broken.py line 1", "x = = 1")),
    launch("-m", "a b; ls", says=("no module 'a b; ls'",)),
    launch("-m", "sys", says=("'sys'", "needs source", "pass another")),
    launch("-m", "os.path", says=("no module 'os.path'",)),
)

NUMBERS = (
    *(
        launch("--nproc", value, S, says=says)
        for value, says in {
            "0": ("--nproc=0", "pass 1 or more"),
            "-1": ("--nproc='-1'", "auto, gpu or cpu"),
            "1.5": ("--nproc='1.5'", "auto, gpu or cpu"),
            "two": ("--nproc='two'", "auto, gpu or cpu"),
            "٣": ("--nproc='٣'", "auto, gpu or cpu"),
            "99999999": ("--nproc=99999999", "4096 ranks", "pass"),
            "9" * 5000: ("4096 ranks", "pass"),
        }.items()
    ),
    *(
        launch("--nodes", value, S, says=says)
        for value, says in {
            "0": ("--nodes=0", "pass 1 or more"),
            "-2": ("--nodes=-2", "1 or more"),
            "a": ("--nodes=a", "MIN:MAX"),
            "1:": ("--nodes=1:", "MIN:MAX"),
            "3:2": ("--nodes=3:2", "MIN up to MAX"),
            "99999999999": ("--nodes=99999999999", "100000 nodes", "pass the nodes"),
        }.items()
    ),
    launch("--hang-timeout", "soon", S, says=("--hang-timeout", "soon", "auto")),
    launch("--hang-timeout", "-5", S, says=("--hang-timeout", "-5")),
    launch("--on-hang", "stop", "--hang-timeout", "off", S, says=("--on-hang=stop", "--hang-timeout=off", "drop one")),
    submit("--on-hang", "stop", "--hang-timeout", "off", S, says=("--on-hang=stop", "--hang-timeout=off")),
    launch("--hang-timeout", "5 years", S, says=("--hang-timeout=5 years", "90s or 5m")),
    launch("--on-hang", "explode", S, says=("--on-hang", "explode", "report")),
    launch("--preempt-signal", "KILL", S, says=("--preempt-signal", "KILL", "USR1")),
    launch("--grace", "soon", S, says=("--grace", "soon")),
    launch("--grace", "-3s", S, says=("--grace", "-3s")),
    launch("--preempt-test", "never", S, says=("--preempt-test", "never")),
    launch("--quiet-ranks", "5-2", "--nproc", "8", S, says=("--quiet-ranks=5-2", "pass 2-5")),
    launch("--quiet-ranks", "3", "--nproc", "2", S, says=("--quiet-ranks=3", "ranks 0 to 1", "others")),
    launch("--node-rank", "-1", S, says=("--node-rank=-1", "pass 0 or more")),
    launch("--node-rank", "x", S, says=("--node-rank", "'x'", "integer")),
    launch("--max-restarts", "-1", S, says=("--max-restarts=-1", "pass 0 or more")),
    launch("--max-restarts", "1.5", S, says=("--max-restarts", "'1.5'", "integer")),
    launch("--max-restarts", "9" * 20, S, says=("--max-restarts=9999", "pass 0 to 1000000")),
    submit("--cpus-per-task", "0", S, says=("--cpus-per-task=0", "pass 1 or more")),
    submit("--cpus-per-task", "-4", S, says=("--cpus-per-task=-4", "pass 1 or more")),
    submit("-c", "many", S, says=("--cpus-per-task", "'many'")),
    submit("--gpus-per-node", "-1", S, says=("--gpus-per-node='-1'", "TYPE:N")),
    submit("--gpus-per-node", "a100:two", S, says=("--gpus-per-node='a100:two'", "TYPE:N")),
    submit("--mem", "-4G", S, says=("--mem='-4G'", "64G")),
    submit("--mem", "lots", S, says=("--mem='lots'", "64G")),
    submit("--time", "-1", S, says=("--time='-1'", "HH:MM:SS")),
    submit("--time", "tomorrow", S, says=("--time='tomorrow'", "HH:MM:SS")),
    submit("--nodes", "0", S, says=("--nodes=0", "pass 1 or more")),
    submit("--nproc", "-8", S, says=("--nproc='-8'", "neither a number")),
)

CONFLICTS = (
    launch("--strategy", "dpp", S, says=("--strategy=dpp", "did you mean ddp?")),
    launch("--device", "gpu", S, says=("--device=gpu", "auto, cpu, cuda")),
    launch("--cpu-bind", "numa", S, says=("--cpu-bind=numa", "known: auto, none")),
    launch("--env", "DTK_CPUS=0", S, says=("--env DTK_CPUS", "pass --cpu-bind")),
    launch("--precision", "fp8", S, says=("--precision=fp8", "bf16")),
    launch("--offload", "disk", S, says=("--offload=disk", "known: cpu, none")),
    launch("--strategy", "single", "-n", "2", S, says=("--strategy single", "2 ranks", "pass --nproc 1")),
    launch("--strategy", "ddp", "--zero-stage", "2", S, says=("--zero-stage=2", "is ddp", "--strategy deepspeed")),
    launch("--strategy", "deepspeed", "--zero-stage", "5", S, says=("--zero-stage=5", "0, 1, 2, 3")),
    launch("--strategy", "fsdp", "--offload", "cpu", "--device", "cpu", S, says=("--offload=cpu", "fsdp", "GPU")),
    launch("--fsdp-wrap", "auto", S, says=("--fsdp-wrap=auto", "is auto", "pass --strategy fsdp")),
    launch("--strategy", "fsdp", "--fsdp-wrap", "A,,B", S, says=("--fsdp-wrap='A,,B'", "class names")),
    launch("--strategy", "fsdp", "--fsdp-wrap", "-5", S, says=("--fsdp-wrap='-5'", "number of parameters")),
    launch("--strategy", "fsdp", "--fsdp-reshard", "yes", S, says=("--fsdp-reshard=yes", "false, true")),
    launch(
        *("--strategy", "fsdp", "--fsdp-activation-checkpointing", "1", S),
        says=("--fsdp-activation-checkpointing=1", "false, true"),
    ),
    launch("--strategy", "fsdp", "--fsdp-state-dict", "half", S, says=("--fsdp-state-dict=half", "full, sharded")),
    launch("--strategy", "ddp", "--fsdp-state-dict", "full", S, says=("--fsdp-state-dict=full", "is ddp", "drop it")),
    launch("--deepspeed-config", "ds.json", S, says=("--deepspeed-config=ds.json", "deepspeed", "drop it")),
    launch("--nproc", "gpu", "--device", "cpu", S, says=("--nproc gpu", "--device cpu was given", "pass")),
    launch("--nodes", "2", S, says=("--nodes=2", "--rdzv HOST", "dtk submit --nodes 2")),
    launch("--rdzv", "localhost", S, says=("--rdzv", "launch on one", "pass --nodes N")),
    launch("--node-rank", "0", S, says=("--node-rank", "launch on one", "drop it")),
    launch("--nodes", "2", "--rdzv", "localhost", "--node-rank", "2", S, says=("--node-rank=2", "ranks 0 to 1")),
    launch("--nodes", "1:2", "--rdzv", "localhost", S, says=("--nodes=1:2", "--max-restarts is 0", "--max-restarts 3")),
    *(
        launch("--nodes", "2", "--rdzv", value, S, says=(f"--rdzv={value}" if plain else f"--rdzv={value!r}", advice))
        for value, plain, advice in (
            ("localhost:99999", True, "29400 is the usual one"),
            ("localhost:80", True, "29400 is the usual one"),
            ("localhost:x", False, "HOST:PORT"),
            (":29400", False, "HOST:PORT"),
            ("$(touch owned)", False, "HOST:PORT"),
            ("fe80::1", False, "in brackets"),
            ("http://h:1", False, "is a URL"),
            ("tcp://[::1]:29400", False, "pass HOST or HOST:PORT"),
            ("a..b", True, "pass its address"),
            ("a" * 80, True, "pass its address"),
        )
    ),
    launch("--name", "a/b", S, says=("--name='a/b'", "--run-dir")),
    launch("--name", "..", S, says=("--name='..'", "--run-dir")),
    launch("--name", "a\nb", S, says=("--name='a\\nb'", "pass one")),
    launch("--name", "é" * 200, S, says=("--name=", "255 bytes", "pass a shorter one")),
    launch("--run-dir", "~no_such_user/x", S, says=("--run-dir=~no_such_user/x", "no such user", "./~NAME")),
    launch("--run-dir", "script.py/x", S, says=("script.py/x", "cannot be written", "--run-dir")),
    launch("--run-dir", "/proc/none", S, says=("/proc/none", "cannot be written", "--run-dir")),
    launch("--run-dir", "/", S, says=("the run directory / is no run", "not empty", "new or empty")),
    launch("--run-dir", ".", S, says=("is no run of dtk", "it holds", "--run-dir")),
    launch(
        "--dry-run", "--run-dir", "folder", S, says=("folder is no run of dtk", "it holds train.py", "folder/dtk-run")
    ),
    launch(
        *("--run-dir", "theirs", S),
        says=("theirs is no run of dtk", "it holds plan.json", "--run-dir"),
        files={"theirs/plan.json": '{"goals": []}'},
    ),
    launch("--name", "tb", S, says=("runs/tb is no run of dtk", "events.out.1"), files={"runs/tb/events.out.1": ""}),
    launch("--run-dir", "a" * 300, S, says=("File name too long", "pass another --run-dir")),
    launch("--profile", "big", S, says=("unknown profile 'big'", "dtk.toml")),
    launch("--env", "FOO", S, says=("--env 'FOO'", "NAME=VALUE")),
    launch("--env", "A B=1", S, says=("--env 'A B=1'", "NAME=VALUE")),
    launch("-e", "$(touch owned)=1", S, says=("NAME=VALUE",)),
    *(
        launch("--env", f"{name}=1", S, says=(f"--env {name}", advice))
        for name, advice in {
            "RANK": "leave it out",
            "WORLD_SIZE": "pass --nproc",
            "TORCHELASTIC_RUN_ID": "leave it out",
            "DTK_VITALS": "leave it out",
            "DTK_FAULTS": "leave it out",
            "DTK_RUN_DIR": "pass --run-dir",
            "DTK_ZERO_STAGE": "pass --zero-stage",
        }.items()
    ),
    launch("--env", "OMP_NUM_THREADS=all", S, says=("OMP_NUM_THREADS='all'", "--env", "pass 1 or more")),
    launch("--env", "PET_NNODES=2", S, says=("PET_NNODES=2", "--nnodes 1", "unset PET_NNODES")),
    launch("--env", "PYTHON_EXEC=/no/python", S, says=("PYTHON_EXEC='/no/python'", "path of a Python")),
    launch("--nproc", "1", "--nproc", "2", S, says=("--nproc=1 and --nproc=2", "keep one")),
    launch("--json", "--name", "a", "--name", "b", S, says=("--name=a and --name=b", "keep one")),
    launch("--env", "A=1", "--env", "A=2", S, says=("--env A=1 and --env A=2", "keep one")),
    launch("--dry-run", "--nproc", "0", S, says=("--nproc=0", "pass 1 or more")),
    launch("--nprocs", "2", S, says=("--nprocs", "--nproc")),
    launch("--nproc", says=("--nproc", "argument")),
    Case(("explain", "--strategy", "single", "--nproc", "4", S), ("--strategy single", "4 ranks", "pass --nproc 1")),
    Case(("lunch", S), ("lunch", "launch")),
    submit("--nodes", "1:2", S, says=("--nodes=1:2", "--max-restarts is 0", "--max-restarts 3")),
    submit("--nodes", "1:2", "--plain", S, says=("--plain", "--nodes=1:2", "drop one")),
    submit("--nodes", "2", "--rdzv", "n1", S, says=("--rdzv", "drop them")),
    submit("--partition", "a\nb", S, says=("--partition='a\\nb'", "line break")),
    submit("--run-dir", "folder", S, says=("folder is no run of dtk", "it holds train.py", "--run-dir")),
    submit("--account", "a\tb", S, says=("--account='a\\tb'", "control character")),
    submit("--output-dir", "a\nb", S, says=("a\\nb", "line break")),
    submit("--sbatch", "=x", S, says=("--sbatch '=x'", "nice=100")),
    submit("--sbatch", "array=1-4", S, says=("--sbatch array", "pass --array")),
    submit("--sbatch", "ntasks=4", S, says=("--sbatch ntasks", "pass --nodes")),
    submit("--constraint", "a", "--sbatch", "constraint=b", S, says=("--sbatch constraint=b", "--constraint is given")),
    submit("--qos", "a\nb", S, says=("--qos='a\\nb'", "line break")),
    submit("--reservation", "a\nb", S, says=("--reservation='a\\nb'", "line break")),
    submit("--dependency", "a\nb", S, says=("--dependency='a\\nb'", "line break")),
    submit("--exclusive", "--sbatch", "exclusive=user", S, says=("--sbatch exclusive=user", "--exclusive is given")),
    submit("--load", " ", S, says=("--load", "leave it out")),
    submit("--array", "one", S, says=("--array='one'", "0-99%4")),
    Case(
        ("submit", "--dry-run", "--snapshot", "-m", "kept.job"),
        ("--snapshot would not hold kept.job", "drop --snapshot"),
        files={"kept/job.py": "", ".gitignore": "kept/\n"},
    ),
    submit("--sweep", "lr", S, says=("--sweep 'lr' is not NAME=VALUES", "seed=0:4")),
    submit("--sweep", "lr=1,1", S, says=("--sweep 'lr=1,1' has a value twice",)),
    submit("--sweep", "lr=1,2", "--sweep", "lr=3", S, says=("--sweep 'lr=3'", "swept already")),
    submit("--sweep", "lr=1,2", "--array", "0-1", S, says=("--array=0-1", "--sweep makes the array", "drop one")),
    submit("--sweep", "seed=4:4", S, says=("--sweep 'seed=4:4'", "without its end")),
    submit("--mail-type", "SOON", S, says=("--mail-type=SOON", "unknown event 'SOON'")),
    submit("--mail-user", "ada", S, says=("--mail-user=ada", "--mail-type")),
    submit("--venv", "nowhere", S, says=("--venv=nowhere", "bin/activate is not there")),
    submit("--venv", "a", "--conda", "b", S, says=("--venv=a", "--conda=b", "keep one")),
    submit("--setup", "a\nb", S, says=("--setup='a\\nb'", "its own --setup")),
    submit("--container-mounts", "/a:/b", S, says=("--container-mounts=/a:/b", "pass --container-image")),
    submit("--container-image", "i", "--container-runtime", "docker", S, says=("--container-runtime=docker", "pyxis")),
    submit("--container-image", "i", "--container-mounts", "/a", S, says=("'/a'", "/data:/data")),
    submit("--template", "nowhere.j2", S, says=("nowhere.j2", "cannot be read", "--template")),
    submit("--plain", "--strategy", "fsdp", S, says=("--plain", "--strategy=fsdp", "drop one")),
    submit("--no-requeue", "--max-stalls", "5", S, says=("--no-requeue", "--max-stalls=5", "drop one")),
    submit("--max-stalls", "0", S, says=("--max-stalls=0", "pass 1 or more")),
    submit("--time", "5", "--grace", "5m", S, says=("--grace=5m", "--time=5", "longer")),
    submit("--sbatch", "signal=TERM@9", S, says=("signal=TERM@9", "--grace=30s", "signal=TERM@60")),
    submit("--sbatch", "signal=B:USR1@90", S, says=("signal=B:USR1@90", "leave out the B:")),
    submit("--sbatch", "time=5", S, says=("--sbatch time=5", "pass --time")),
    submit("--sbatch", "wrap=ls", S, says=("--sbatch wrap=ls", "pass a script")),
    submit("--sbatch", "qos=a", "--sbatch", "qos=b", S, says=("qos=a", "qos=b", "keep one")),
)

EMPTY = (
    *(
        launch(flag, "", S, says=(f"{flag} is empty", "leave it out"))
        for flag in (
            *("--nproc", "--device", "--strategy", "--precision", "--offload", "--zero-stage", "--deepspeed-config"),
            *("--fsdp-wrap", "--fsdp-reshard", "--fsdp-activation-checkpointing", "--fsdp-state-dict", "--nodes"),
            *("--rdzv", "--name", "--run-dir", "--profile"),
        )
    ),
    *(
        submit(flag, " ", S, says=(f"{flag} is empty", "leave it out"))
        for flag in ("--time", "--partition", "--account", "--gpus-per-node", "--mem", "--output-dir")
    ),
    launch("--env", "", S, says=("--env ''", "NAME=VALUE")),
    launch("--node-rank", "", S, says=("--node-rank", "''")),
    submit("--sbatch", "", S, says=("--sbatch ''", "KEY=VALUE")),
    Case(("rerun", ""), ("RUN is empty",)),
    Case(("rerun", "--restore", "", "old"), ("--restore is empty", "leave it out")),
    Case(("init", ""), ("DIR is empty",)),
    Case(("doctor", "--nproc", "0"), ("--nproc=0", "at least one rank", "pass 1 or more")),
    Case(("doctor", "--nproc", "two"), ("--nproc='two'", "neither a number")),
    Case(("doctor", "--timeout", "soon"), ("--timeout='soon'", "no length of time", "for example 500ms, 20s")),
    Case(("doctor", "--run-dir", ""), ("--run-dir is empty", "leave it out for its default")),
    Case(("doctor", "--run-dir", S), ("--run-dir=", "script.py is a file", "pass a folder")),
    Case(("doctor", "--run-dir", S + "/runs"), ("--run-dir=", "script.py is a file", "pass a folder")),
    Case(("doctor", "--nodes", "2"), ("No such option", "--nodes")),
    Case(
        ("doctor",),
        ("SLURM_JOB_NODELIST", "cannot read the node list 'n[1-'"),
        {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-"},
    ),
    *(
        launch(flag, "a\0b", S, says=(flag, "NUL", "leave it out"))
        for flag in ("--name", "--run-dir", "--rdzv", "--deepspeed-config", "--env")
    ),
    launch(S, "a\0b", says=("argument of the script", "NUL")),
    launch("a\0b", says=("SCRIPT", "NUL")),
    Case(("init", "a\0b"), ("DIR", "NUL")),
)

SHELL = (
    shell("DTK_NPROC", "'x'", "auto, gpu or cpu", DTK_NPROC="x"),
    shell("DTK_MAX_RESTARTS", "'x'", "whole number", DTK_MAX_RESTARTS="x"),
    shell("DTK_MAX_RESTARTS", "'--3'", "whole number", DTK_MAX_RESTARTS="--3"),
    shell("DTK_MAX_RESTARTS", "'²'", "whole number", DTK_MAX_RESTARTS="²"),
    shell("DTK_NODE_RANK", "-2", "0 or more", DTK_NODE_RANK="-2"),
    shell("DTK_STRATEGY", "dpp", "did you mean ddp?", DTK_STRATEGY="dpp"),
    shell("DTK_ZERO_STAGE", "--zero-stage=1", "pass --strategy deepspeed", DTK_ZERO_STAGE="1"),
    shell("DTK_PROFILE", "unknown profile 'big'", DTK_PROFILE="big"),
    shell("DTK_RUN_NAME", "'a/b'", "--run-dir", DTK_RUN_NAME="a/b"),
    shell("/proc/none", "cannot be written", "--run-dir", DTK_RUN_DIR="/proc/none"),
    shell("folder is no run of dtk", "--run-dir is from environment DTK_RUN_DIR", DTK_RUN_DIR="folder"),
    shell("--rdzv", "launch on one", "drop it", DTK_RDZV="n1"),
    shell("PET_NPROC_PER_NODE=4", "--nproc-per-node 1", "unset PET_NPROC_PER_NODE", PET_NPROC_PER_NODE="4"),
    shell("PET_MODULE=1", "pass -m", "unset PET_MODULE", PET_MODULE="1"),
    shell("PET_NO_PYTHON=1", "unset PET_NO_PYTHON", PET_NO_PYTHON="1"),
    shell("PET_MAX_RESTARTS=3", "--max-restarts 0", "unset PET_MAX_RESTARTS", PET_MAX_RESTARTS="3"),
    shell("PET_MONITOR_INTERVAL='often'", "unset PET_MONITOR_INTERVAL", PET_MONITOR_INTERVAL="often"),
    shell("PET_START_METHOD='magic'", "unset PET_START_METHOD", PET_START_METHOD="magic"),
    shell("PET_TEE='9'", "unset PET_TEE", PET_TEE="9"),
    shell("PYTHON_EXEC='/no/python'", "unset PYTHON_EXEC", PYTHON_EXEC="/no/python"),
    shell("PYTHON_EXEC=''", "unset PYTHON_EXEC", PYTHON_EXEC=""),
    shell("OMP_NUM_THREADS='all'", "environment OMP_NUM_THREADS", "pass 1 or more", OMP_NUM_THREADS="all"),
    shell("OMP_NUM_THREADS='0'", "pass 1 or more", OMP_NUM_THREADS="0"),
    shell(
        *("ACCELERATE_MIXED_PRECISION=fp8", "--precision bf16", "unset ACCELERATE_MIXED_PRECISION"),
        words=("--precision", "bf16", S),
        ACCELERATE_MIXED_PRECISION="fp8",
    ),
)

STEPS = (
    *(
        step("SLURM_STEP_NODELIST", repr(text), "unset the SLURM_", SLURM_STEP_NODELIST=text)
        for text in ("", ",", "n[1-", "n[a-b]", "n[1-2]]", "n[-]", "n[,]", "n[1-2-3]", "n[3-1]", "n[1-99999999999]")
    ),
    step("SLURM_STEP_NODELIST", "cannot read", SLURM_STEP_NODELIST="n[1-999][1-999]"),
    step("SLURM_NODEID='x'", "unset the SLURM_", SLURM_NODEID="x"),
    step("SLURM_NODEID='-1'", "unset the SLURM_", SLURM_NODEID="-1"),
    step("SLURM_NODEID=7", "has 2 nodes", "unset the SLURM_", SLURM_NODEID="7"),
    step("SLURM_JOB_ID=''", "unset the SLURM_", SLURM_JOB_ID=""),
    step("SLURM_JOB_ID='1_2'", "unset the SLURM_", SLURM_JOB_ID="1_2"),
    step("SLURM_RESTART_COUNT='x'", "unset the SLURM_", SLURM_RESTART_COUNT="x"),
    step("2(x2)", "--ntasks-per-node=1", SLURM_STEP_TASKS_PER_NODE="2(x2)"),
    step("--nodes=3", "has 2", "pass --nodes 2", words=("--nodes", "3", S)),
    step("--nodes=1:2", "--max-restarts 3", words=("--nodes", "1:2", S)),
    step("--nodes=3:4", "has 2", "pass --nodes 2", words=("--nodes", "3:4", "--max-restarts", "3", S)),
    step("--rdzv=n1", "SLURM_STEP_NODELIST", "drop it", words=("--rdzv", "n1", S)),
    step("--node-rank=0", "SLURM_STEP_NODELIST", "drop it", words=("--node-rank", "0", S)),
)

SETTINGS = (
    setting("x = ", "dtk.toml", "not TOML"),
    setting(b"\xff\xfe", "dtk.toml", "not TOML"),
    setting("nprocs = 2\n", "dtk.toml:1", "'nprocs'", "did you mean nproc?"),
    setting("script = 'x'\n", "dtk.toml:1", "'script'", "command line"),
    setting("\ndry-run = true\n", "dtk.toml:2", "'dry-run'", "command line", "pass --dry-run"),
    setting("preempt-test = '20s'\n", "dtk.toml:1", "'preempt-test'", "command line", "pass --preempt-test"),
    setting("nproc = 2.0\n", "dtk.toml:1", "nproc = 2.0", "whole number", "write nproc = 2"),
    setting("hang-timeout = 1.5\n", "dtk.toml:1", "hang-timeout = 1.5", "write hang-timeout = '1.5'"),
    setting("nproc = [1]\n", "dtk.toml:1", "nproc = [1]", "neither text nor a whole number"),
    setting("\nnproc = true\n", "dtk.toml:2", "nproc = True"),
    setting("name = ''\n", "--name is empty", "dtk.toml:1", "leave it out"),
    setting('name = "a\\u0000b"\n', "--name", "dtk.toml:1", "NUL"),
    setting("max-restarts = 'x'\n", "dtk.toml:1", "'x'", "whole number"),
    setting("max-restarts = -1\n", "--max-restarts=-1", "dtk.toml:1", "0 or more"),
    setting("max-restarts = 1\nmax_restarts = 2\n", "dtk.toml:2", "twice", "keep one"),
    setting("env = 'A=1'\n", "dtk.toml:1", "env = {K = 'V'}"),
    setting("env = {A = 1.5}\n", "env.A = 1.5", "write A = 'text'"),
    setting("env = {A = {B = 1}}\n", "env.A", "write A = 'text'"),
    setting("env = {RANK = '1'}\n", "dtk.toml:1: env RANK", "leave it out"),
    setting("[env]\nGOOD = '1'\n'A B' = '1'\n", "dtk.toml:3: env 'A B=1'", "NAME=VALUE"),
    setting("profile = {}\nenv = ['FOO']\n", "dtk.toml:2: env 'FOO'", "NAME=VALUE"),
    setting("profile = 1\n", "dtk.toml:1", "[profile.NAME]"),
    setting("[profile]\nnproc = 2\n", "dtk.toml:2", "nproc = 2", "[profile.NAME]"),
    launch("--profile", "b", S, says=("'b'", "known: a"), files={"dtk.toml": "[profile.a]\nnproc = 1\n"}),
    launch("--profile", "ü x", S, says=("ü x", "'y'"), files={"dtk.toml": "[profile.'ü x']\nmax-restarts = 'y'\n"}),
    launch(S, says=("both", "keep one"), files={"dtk.toml": "nproc = 1", "pyproject.toml": "[tool.dtk]\nnproc = 1\n"}),
    launch(S, says=("pyproject.toml", "tool.dtk = 1", "write [tool.dtk]"), files={"pyproject.toml": "tool.dtk = 1"}),
    launch(S, says=("pyproject.toml", "not TOML"), files={"pyproject.toml": "[tool.dtk\n"}),
    launch(S, says=("dtk.toml is no file", "move it away"), files={"dtk.toml/x": ""}),
)

OTHERS = (
    Case(("rerun", "none"), ("no run 'none'", "none"), {}, {}),
    Case(("rerun", "odl"), ("did you mean old?",), {}, {"runs/old/plan.json": "{}"}),
    record("{", "plan.json", "cannot be read"),
    record("[]", "plan.json", "lacks", "by hand"),
    record({"format": 99}, "format 99", "use the dtk that wrote it"),
    record({"cwd": 3}, "plan.json", "its cwd", "by hand"),
    record({"topology": {"nproc": "x"}}, "plan.json", "its topology", "by hand"),
    record({"cwd": "/no/such/folder"}, "/no/such/folder", "cannot be entered"),
    Case(("init", "."), ("train.py", "--force"), {}, {"train.py": "mine"}),
    Case(("init", "script.py"), ("script.py", "pass another folder")),
    Case(("init", "/proc/none"), ("/proc/none", "pass another folder")),
    Case(("init", "."), ("[tool.dtk]", "pass another folder"), {}, {"pyproject.toml": "[tool.dtk]\nnproc = 1\n"}),
    Case(
        ("logs", "r", "--rank", "9"),
        ("--rank=9", "ranks 0 to 1"),
        {},
        {"runs/r/ranks/0.log": "", "runs/r/ranks/1.log": ""},
    ),
    Case(("logs", "r", "-r", "1-7"), ("--rank=1-7", "rank 0 alone"), {}, {"runs/r/ranks/0.log": ""}),
    Case(("bench", "lunch"), ("'lunch'", "did you mean launch?")),
    Case(("bench", "comm", "--slurm", "--nodes", "1:2"), ("--nodes=1:2", "pass --nodes 2")),
    Case(("bench", "comm", "--slurm", "--time", "soon"), ("--time='soon'", "HH:MM:SS")),
    Case(("bench", "comm", "--slurm", "--array", "1-3"), ("--array", "one job", "drop it")),
    Case(("bench", "comm", "--slurm", "--time"), ("--time", "requires an argument")),
    Case(("bench", "compare", "--slurm"), ("measures nothing", "drop --slurm")),
    Case(("bench", "--slurm"), ("name of a benchmark is missing before --slurm", "known: advise, ")),
    Case(("bench", "--nproc", "2"), ("name of a benchmark is missing before --nproc", "throughput")),
    Case(("bench", "advise", "--slurm", "--array", "1-3", S, "--nodes", "2"), ("--array", "one job", "drop it")),
    Case(("completion", "tcsh"), ("tcsh", "zsh")),
)

CASES = (*SCRIPTS, *NUMBERS, *CONFLICTS, *EMPTY, *SHELL, *STEPS, *SETTINGS, *OTHERS)
