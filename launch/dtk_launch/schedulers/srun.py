"""The srun line of a job: one launcher on each node, in a container or not. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from dtk_launch.schedulers.base import Container, JobPlan, PerTask, TaskArguments, Torchrun

_FIRST_PORT, _PORTS = 20000, 12000  # below the ports that the system gives away; by the job's id
_ADDRESS = (  # srun hands the function on to the nodes
    "address() { # of a node: its name where that is known here, else what SLURM has for it",
    "  local found=$1",
    """  getent ahosts "$1" >/dev/null || found=$(scontrol show node "$1" | grep -o 'NodeAddr=[^ ]*') || found=$1""",
    '  echo "${found#NodeAddr=}"',
    "}",
    "export -f address",
)


def shell_words(words: Iterable[str]) -> str:
    """The words as bash reads them back."""
    return " ".join(_shell_word(word) for word in words)


def _shell_word(word: str) -> str:
    if isinstance(word, TaskArguments):
        return '"$@"'
    return shlex.quote(word) + ('"$SLURM_ARRAY_TASK_ID"' if isinstance(word, PerTask) else "")


def srun_words(plan: JobPlan) -> tuple[str, ...]:
    """srun and its options, and what it starts the launcher with."""
    # --kill-on-bad-exit: torchrun on the other nodes does not notice a failed one (pytorch#146371).
    # --cpus-per-task: SLURM 22.05 to 23.11 do not hand it to srun, and 24 refuses one that differs.
    cpus = (f"--cpus-per-task={plan.cpus_per_task}",) if plan.cpus_per_task else ()
    # Elastic: as many nodes as there are, and a lost one ends neither the step nor those that are left.
    nodes = ("--no-kill",) if plan.elastic else (f"--nodes={plan.nodes}",)
    words = ("srun", *nodes, "--ntasks-per-node=1", f"--kill-on-bad-exit={int(not plan.elastic)}", *cpus)
    return (*words, *_contained(plan.container, str(plan.workdir))) if plan.container is not None else words


def _contained(container: Container, workdir: str) -> tuple[str, ...]:
    mounts = ",".join(container.mounts)
    if container.runtime == "pyxis":
        return (
            f"--container-image={container.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={workdir}",
        )
    return ("apptainer", "exec", "--nv", "--bind", mounts, "--pwd", workdir, container.image)


def meeting_lines(plan: JobPlan) -> tuple[str, ...]:
    """What the batch script of plain torchrun sets for its nodes: where they meet, and threads for each rank."""
    torchrun = plan.plain
    if torchrun is None:
        return ()
    lines = [f"export {key}={shlex.quote(value)}" for key, value in plan.env]
    if torchrun.nproc.isdecimal():  # torchrun would set 1
        lines += [
            f"threads=$((${{SLURM_CPUS_ON_NODE:-1}} / {torchrun.nproc}))",
            'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"',
        ]
    if plan.nodes > 1:
        lines += [
            *_ADDRESS,
            'mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
            'head=$(address "${hosts[0]}")',
            f'export MEET_AT="$head:$(({_FIRST_PORT} + SLURM_JOB_ID % {_PORTS}))"',
            'export MEET_AS="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"',
        ]
    return tuple(lines)


def torchrun_words(torchrun: Torchrun, nodes: int, target: tuple[str, ...]) -> tuple[str, ...]:
    """torchrun for each node. What differs between the nodes is filled in there, by a shell."""
    common = ("--nproc-per-node", torchrun.nproc, "--max-restarts", str(torchrun.max_restarts))
    if nodes == 1:
        return (*torchrun.program, "--standalone", *common, *target)
    words = shlex.join((*torchrun.program, "--nnodes", str(nodes), *common, "--rdzv-backend", "c10d"))
    # is_host: the match by host name has false negatives (pytorch#73656). The timeouts are for a late head node.
    there = (
        '--rdzv-endpoint "$MEET_AT" --rdzv-id "$MEET_AS" --local-addr "$(address "$SLURMD_NODENAME")" '
        '--rdzv-conf "is_host=$((SLURM_NODEID == 0)),read_timeout=600,join_timeout=900"'
    )
    return ("bash", "-c", f'exec {words} {there} "$@"', "torchrun", *target)
