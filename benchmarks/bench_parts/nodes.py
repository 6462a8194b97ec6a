"""Ranks on several nodes: the allocation of SLURM that they need, and the srun that starts a `dtk launch` on each."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.allocation import expand
from dtk_launch.errors import PlanError

from .arguments import UsageError
from .elsewhere import is_elsewhere

DRIVER_HOST = "BENCHMARK_HOST"
"""Where the driver is, whose socket no other host can reach."""

_INTERFACES = ("GLOO_", "NCCL_", "TP_SOCKET_IFNAME", "UCX_")


def check_nodes(nodes: int, benchmark: str, environ: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError where `nodes` are not at hand, or this is not the first of them."""
    if nodes == 1 or is_elsewhere(environ):
        return
    there = environ.get("SLURM_JOB_NODELIST", "")
    if not there or "SLURM_JOB_ID" not in environ:
        raise UsageError(
            f"--nodes {nodes}, but this is no allocation of SLURM; add --slurm to submit it: dtk bench {benchmark} "
            f"--nodes {nodes} --slurm"
        )
    try:
        names = expand(there)
    except PlanError as error:
        raise UsageError(str(error)) from None
    if len(names) < nodes:
        raise UsageError(
            f"--nodes {nodes}, but the allocation has {len(names)} (SLURM_JOB_NODELIST={there}); pass --nodes "
            f"{len(names)}, or ask SLURM for more"
        )
    here = environ.get("SLURMD_NODENAME", "")
    if here not in names:
        raise UsageError(
            f"--nodes {nodes}: the benchmark has to run on a node of the allocation ({there}), and this is "
            f"{here or 'none'}; add --slurm, or start it there with srun --nodes=1 --ntasks=1 --overlap"
        )


def srun_words(nodes: int, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What starts one process on each of the nodes, this one among them; nothing for one node."""
    if nodes == 1:
        return []
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    if len(expand(environ["SLURM_JOB_NODELIST"])) > nodes:
        words.append(f"--nodelist={environ['SLURMD_NODENAME']}")  # the others are SLURM's choice
    if "SLURM_STEP_ID" in environ:
        words.append("--overlap")  # the step of the driver holds what the ranks are to have
    if cores := environ.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={cores}")  # SLURM 22.05 to 23.11 do not hand it to srun
    return words


def reports(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this rank is the one that reports to the driver: the first of the driver's own host.

    That need not be rank 0: torchrun orders nodes by their names as text, n10 before n9 (pytorch#99684).
    """
    return environ["LOCAL_RANK"] == "0" and environ.get(DRIVER_HOST, "") in ("", socket.gethostname())


def boot_number(file: Path = Path("/proc/sys/kernel/random/boot_id")) -> int:
    """48 bits that differ from one running kernel to another, and which nodes on the same one share; 0 off Linux."""
    try:
        return int(file.read_text().replace("-", "")[:12], 16)
    except (OSError, ValueError):
        return 0


def interfaces(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that say how the backends communicate, for the records."""
    return {name: value for name, value in sorted(environ.items()) if name.startswith(_INTERFACES)}
