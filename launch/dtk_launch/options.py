"""The options of `dtk launch`, `dtk explain` and `dtk submit`: one field each, whose docstring is its --help text."""

from __future__ import annotations

import ast
import functools
import itertools
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

STRATEGIES = ("auto", "single", "data_parallel", "ddp", "fsdp", "deepspeed")

ONE_PROCESS = ("single", "data_parallel")
"""Strategies that are one rank; data_parallel drives all GPUs from it."""
DEVICES = ("auto", "cpu", "cuda")
CPU_BINDS = ("auto", "none")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SWITCH = ("true", "false")
ON_HANG = ("report", "stop")
RUNTIMES = ("pyxis", "apptainer")
PREEMPT_SIGNALS = ("TERM", "USR1", "USR2", "INT")


def _option(default: Any, *flags: str, metavar: str | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A field whose flag is not just --its-name, or that has a metavar or known values."""
    return field(default=default, metadata={"flags": flags, "metavar": metavar, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a user can ask of a launch. A default here is the default of the command line."""

    script: str
    """The Python script to run in every rank (with -m: the module)."""
    args: tuple[str, ...] = ()
    """Arguments of the script: everything after SCRIPT, --help included."""
    nproc: str = _option("auto", "--nproc", "-n", metavar="N|auto|gpu|cpu")
    """Ranks on each node. auto: one per GPU, or one rank without GPUs; gpu: one per GPU; cpu: one per core."""
    device: str = _option("auto", choices=DEVICES)
    """Where the ranks compute: auto, cpu or cuda. auto takes the GPUs if there are any."""
    strategy: str = _option("auto", choices=STRATEGIES)
    """How the model is spread over the ranks: auto, single, data_parallel, ddp, fsdp or deepspeed."""
    precision: str = _option("auto", choices=PRECISIONS)
    """What the model computes in: auto, fp32, bf16 or fp16. auto leaves it to the script."""
    offload: str = _option("none", choices=("none", "cpu"))
    """fsdp, deepspeed: what is kept in CPU memory: none, or cpu: optimizer state, and weights where they are split."""
    zero_stage: str = _option("", metavar="0|1|2|3", choices=("0", "1", "2", "3"))
    """deepspeed: what is split: 1 optimizer state, 2 gradients too, 3 weights too. Default: the script's, else 2."""
    deepspeed_config: str = _option("", metavar="FILE")
    """deepspeed: an existing ds_config (JSON); it says the stage and the offload."""
    fsdp_wrap: str = _option("", metavar="auto|none|N|CLASS,...")
    """fsdp: what is gathered as one: the model's blocks, all, N parameters or more, or modules of these classes."""
    fsdp_reshard: str = _option("", metavar="true|false", choices=SWITCH)
    """fsdp: free the gathered weights after forward. Default: true."""
    fsdp_activation_checkpointing: str = _option("", metavar="true|false", choices=SWITCH)
    """fsdp: compute activations again in backward instead of keeping them. Default: false."""
    fsdp_state_dict: str = _option("", metavar="sharded|full", choices=("sharded", "full"))
    """fsdp with Accelerate: what it saves: each rank its part, or rank 0 the whole. Default: sharded."""
    cpu_bind: str = _option("none", choices=CPU_BINDS)
    """auto: bind each rank to its share of the whole cores, near its GPU, where that is sound. Default: none."""
    nodes: str = _option("", metavar="N|MIN:MAX")
    """Nodes. Without SLURM, start it on each, with --rdzv. MIN:MAX: they come and go. Default: SLURM's, or 1."""
    node_rank: int = _option(-1, metavar="K")
    """Number of this node, from 0, the one of --rdzv. Default: found out; needed for two nodes on one machine."""
    rdzv: str = _option("", metavar="HOST[:PORT]")
    """The node where all nodes of a launch without SLURM meet; the same on each of them. Default port: 29400."""
    max_restarts: int = _option(0, metavar="N")
    """Start all ranks again after a failure, at most this often."""
    hang_timeout: str = _option("auto", metavar="auto|TIME|off")
    """Without a step for so long, see whether the ranks are stuck, and where. auto learns from the steps' times."""
    on_hang: str = _option("report", choices=ON_HANG)
    """When ranks are stuck: report says which and where and goes on, stop ends the run with exit code 124."""
    preempt_signal: str = _option("", metavar="TERM|USR1|USR2|INT", choices=PREEMPT_SIGNALS)
    """What the ranks get for SIGTERM, SIGUSR1 or SIGUSR2. Default: the same, and SIGUSR1/2 are no deadline."""
    grace: str = _option("30s", metavar="TIME")
    """How long the ranks may take after the notice or Ctrl-C before they are killed."""
    preempt_test: str = _option("", metavar="TIME")
    """This time (20s, 2m) after the start end the run as a scheduler would, start it again, and say what was lost."""
    name: str = ""
    """Name of the run. Default: the script's name; the same name resumes the same run."""
    run_dir: str = _option("", metavar="DIR")
    """Where the run keeps its plan, logs and checkpoints. Default: runs/<name>."""
    env: tuple[str, ...] = _option((), "--env", "-e", metavar="K=V")
    """Set an environment variable for every rank. Repeatable."""
    profile: str = ""
    """Take defaults from this profile of dtk.toml, or of [tool.dtk] in pyproject.toml."""
    quiet_ranks: str = _option("", metavar="RANKS")
    """Ranks whose output goes to their files alone, such as 1-7 or 0,2,4-6; others: all but rank 0; or all."""
    module: bool = _option(False, "--module", "-m")
    """SCRIPT is a module name, run as with python -m."""
    dry_run: bool = False
    """Print what would be run, ready to paste, and stop."""
    json: bool = False
    """Print JSON: the plan in a dry run, else the result when the run has ended."""


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(LaunchOptions):
    """What a user can ask of a submitted job: the launch, and what the scheduler is to provide for it."""

    time: str = _option("", "--time", "-t", metavar="[D-]HH:MM:SS")
    """Time limit, as in sbatch --time. Default: the partition's."""
    partition: str = _option("", "--partition", "-p")
    """Partition. Default: the cluster's."""
    account: str = _option("", "--account", "-A")
    """Account to charge."""
    gpus_per_node: str = _option("", metavar="[TYPE:]N")
    """GPUs on each node. Default: --nproc with --device cuda, else none."""
    cpus_per_task: int = _option(0, "--cpus-per-task", "-c", metavar="N")
    """Cores on each node, for all of its ranks together. Default: the cluster's."""
    mem: str = _option("", metavar="SIZE")
    """Memory of each node, as in sbatch --mem."""
    output_dir: str = _option("", metavar="DIR")
    """Where the job's own log goes. Default: the run directory."""
    qos: str = _option("", "--qos", "-q")
    """Quality of service."""
    constraint: str = _option("", "--constraint", "-C", metavar="FEATURES")
    """Features that the nodes must have, as in sbatch --constraint: a100, or 'a100|h100'."""
    reservation: str = ""
    """Reservation to run in."""
    exclusive: bool = False
    """Share the nodes with no other job."""
    dependency: str = _option("", "--dependency", "-d", metavar="TYPE:JOB")
    """Begin after other jobs, such as afterok:123. If that can never be, the job is cancelled, not left waiting."""
    array: str = _option("", "--array", "-a", metavar="LIST")
    """Run it once for each number of 0-9, 1,3,5 or 0-99%4 (4 at once), with a run directory each (task-N)."""
    sweep: tuple[str, ...] = _option((), "--sweep", metavar="NAME=VALUES")
    """Run it once with --NAME=VALUE for each value of lr=1e-3,3e-4 or seed=0:4. Repeatable: all combinations."""
    mail_type: str = _option("", metavar="END,FAIL,...")
    """When SLURM sends mail: BEGIN, END, FAIL, REQUEUE, TIME_LIMIT, ALL."""
    mail_user: str = _option("", metavar="ADDRESS")
    """Who gets that mail. Default: the user."""
    sbatch: tuple[str, ...] = _option((), "--sbatch", metavar="KEY=VALUE")
    """Any other sbatch option, for example --sbatch nice=100. Repeatable."""
    load: tuple[str, ...] = _option((), "--load", metavar="MODULE")
    """Load this environment module (module load) before the ranks start. Repeatable."""
    venv: str = _option("", metavar="DIR")
    """Activate this virtual environment. Default: the environment that dtk submit runs in."""
    conda: str = _option("", metavar="ENV")
    """Activate this conda environment, a name or a folder."""
    setup: tuple[str, ...] = _option((), "--setup", metavar="LINE")
    """A line of bash to run before the ranks start, on the first node. Repeatable."""
    container_image: str = _option("", metavar="IMAGE")
    """Run in this container; dtk must be in it. Its runtime is enroot's pyxis, or apptainer for a .sif file."""
    container_runtime: str = _option("", metavar="pyxis|apptainer", choices=RUNTIMES)
    """What starts the container. Default: apptainer for a .sif file, else pyxis."""
    container_mounts: str = _option("", metavar="SRC:DST,...")
    """Further folders to mount; those of the script and of the run are mounted as they are."""
    template: str = _option("", metavar="FILE")
    """A site's own template of the batch script; slurm/README.md names its variables."""
    snapshot: bool = False
    """Keep the code as it is now in the run directory, and run from there: edits after this do not reach the job."""
    no_requeue: bool = False
    """Do not start the job again when it was preempted, lost a node, or saved at its time limit to go on later."""
    max_stalls: int = _option(3, "--max-stalls", metavar="N")
    """Requeue a job until this many starts in a row have saved no new checkpoint."""
    plain: bool = False
    """Write torchrun itself into the batch script, so that the nodes need no dtk: no verdict, no preemption."""


def option_fields(options: type) -> list[Any]:
    """The fields that are options, that is all but SCRIPT and its arguments, in the order of --help."""
    return [f for f in fields(options) if f.name not in ("script", "args")]


def flag_of(name: str) -> str:
    """`max_restarts` -> `--max-restarts`."""
    return "--" + name.replace("_", "-")


@functools.cache
def field_docs() -> dict[str, str]:
    """Field -> its docstring, read from this file's source (Python keeps no docstring of a field)."""
    docs: dict[str, str] = {}
    for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for statement, after in itertools.pairwise(node.body):
                match statement, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        docs[name] = text
    return docs
