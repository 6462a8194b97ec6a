"""Variables that launchers give to ranks, and that the shell has already: who takes them up, and where they lead.

dtk launch and torchrun set all of them anew in their ranks; what is found here meets what is started without them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from dtk_launch.allocation import expand
from dtk_launch.doctor import pet
from dtk_launch.doctor.findings import Finding
from dtk_launch.doctor.ports import is_port
from dtk_launch.errors import PlanError
from dtk_launch.given import whole
from dtk_launch.meeting import can_bind

CHECK = "variables"
_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_NAMES = (*_RANKS, "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE")
_LAUNCHERS = {"OMPI_COMM_WORLD_RANK": "mpirun", "PMI_RANK": "mpirun", "KUBERNETES_SERVICE_HOST": "Kubernetes"}
_INTERACTIVE = "4294967290"  # the step in which salloc starts a shell: it stands for the job
_LOOKED_UP = 32  # names of nodes
_WITHOUT = "without dtk or torchrun (srun python, mp.spawn, Lightning)"
_UNLESS = "dtk launch and torchrun set their own"


@dataclass(frozen=True)
class Variables:
    """What is set of them, in the shell that dtk doctor was started from."""

    values: tuple[tuple[str, str], ...] = ()
    """Those above, and PET_*."""
    launcher: str = ""
    """That has started this process and may have set them: srun, mpirun or Kubernetes; '' for none."""
    in_job: bool = False
    """Whether this is a job of SLURM, whose script may set them for srun."""
    addresses: tuple[str, ...] = ()
    """Of MASTER_ADDR; () where that is not known here."""
    is_here: bool = False
    """Whether MASTER_ADDR leads to this machine."""
    of_job: bool | None = None
    """Whether MASTER_ADDR is a node of the job; None outside of one, and where the nodes' names are not known here."""

    def value(self, name: str) -> str:
        """Its value, '' where it is not set."""
        return dict(self.values).get(name, "")

    def has(self, name: str) -> bool:
        """Whether it is set, be it empty."""
        return name in dict(self.values)


def probe(environ: Mapping[str, str]) -> Variables:
    """Read the variables, and look MASTER_ADDR up."""
    values = tuple((name, environ[name]) for name in sorted(environ) if name in _NAMES or name.startswith("PET_"))
    master = environ.get("MASTER_ADDR", "")
    found = _look_up(master) if master else {}
    in_job = bool(environ.get("SLURM_JOB_ID"))
    return Variables(
        values, _launcher(environ), in_job, tuple(found), any(can_bind(family, at, 0) for at, family in found.items()),
        _of_job(master, found, environ.get("SLURM_JOB_NODELIST", "")) if in_job and master else None,
    )  # fmt: skip


def _launcher(environ: Mapping[str, str]) -> str:
    own = environ.get("SLURM_PROCID", "")
    in_step = "SLURM_STEP_NODELIST" in environ and environ.get("SLURM_STEP_ID") != _INTERACTIVE
    if in_step and environ.get("RANK", own) == own:
        return "srun"
    return next((who for name, who in _LAUNCHERS.items() if name in environ), "")


def _look_up(name: str) -> dict[str, int]:
    """Address -> its family."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return {}
    return {str(entry[4][0]): int(entry[0]) for entry in found}


def _of_job(master: str, addresses: Collection[str], listed: str) -> bool | None:
    nodes: tuple[str, ...] = ()
    with contextlib.suppress(PlanError):  # `dtk doctor` has told of it
        nodes = expand(listed)
    if master.partition(".")[0].lower() in {node.partition(".")[0].lower() for node in nodes}:
        return True
    if not nodes or len(nodes) > _LOOKED_UP:
        return None
    known = [_look_up(node) for node in nodes]
    if any(address in of_node for of_node in known for address in addresses):
        return True
    return False if all(known) else None


def judge(facts: Variables, of_nodes: Collection[str] = (), nodes: int = 1, nproc: int = 1) -> Iterator[Finding]:
    """`of_nodes`: addresses that the `nodes` examined are seen to have; `nproc`: ranks on each, of a launch."""
    found = [*_judge_numbers(facts), *_judge_ranks(facts), *_judge_address(facts, of_nodes), *_judge_port(facts)]
    refused = list(pet.judge(dict(facts.values), nodes, nproc))
    if not found and all(finding.level == "note" for finding in refused):
        shown = " ".join(f"{name}={value}" for name, value in facts.values if not name.startswith("PET_"))
        by = f" (under {facts.launcher})" if facts.launcher else ""
        found.append(Finding(CHECK, "ok", f"{shown}{by}" if shown else "no RANK, WORLD_SIZE or MASTER_ADDR is set"))
    yield from (*found, *refused)


def _judge_numbers(facts: Variables) -> Iterator[Finding]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        if facts.has(name) and not whole(facts.value(name)):
            yield Finding(
                CHECK, "warning", f"{name}={facts.value(name)!r} is no number",
                f"python train.py fails where it reads that; {_UNLESS}", _fix(facts),
            )  # fmt: skip


def _judge_ranks(facts: Variables) -> Iterator[Finding]:
    """What stands in a shell in which no launcher has put it."""
    rank, world = facts.value("RANK"), facts.value("WORLD_SIZE")
    if facts.launcher or any(_judge_numbers(facts)):
        return
    where = "in the shell, and no launcher has started it"
    if facts.has("RANK") and facts.in_job:
        yield Finding(
            CHECK, "warning", f"RANK={rank} is set for the whole job",
            f"each task of srun python train.py takes itself for rank {rank}; {_UNLESS}", _fix(facts),
        )  # fmt: skip
    elif facts.has("RANK") and facts.has("WORLD_SIZE"):
        yield from _judge_both(facts, int(rank), int(world), where)
    elif facts.has("RANK") or (facts.has("WORLD_SIZE") and not facts.in_job):
        one, other = ("RANK", "WORLD_SIZE") if facts.has("RANK") else ("WORLD_SIZE", "RANK")
        yield Finding(
            CHECK, "warning", f"{one}={facts.value(one)} is {where}; {other} is not",
            f"python train.py fails where it asks for its rank: {other} is expected; {_UNLESS}", _fix(facts),
        )  # fmt: skip
    elif facts.has("LOCAL_RANK"):
        yield Finding(
            CHECK, "warning", f"LOCAL_RANK={facts.value('LOCAL_RANK')} is {where}",
            f"python train.py with Accelerate or Trainer expects RANK and MASTER_ADDR, too, and fails; {_UNLESS}",
            _fix(facts),
        )  # fmt: skip


def _judge_both(facts: Variables, rank: int, world: int, where: str) -> Iterator[Finding]:
    set_ = f"RANK={rank} and WORLD_SIZE={world} are {where}"
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not facts.value(name)]
    if rank >= world:
        why = f"python train.py cannot join: the ranks of {world} are 0 to {world - 1}"
    elif missing:
        why = f"python train.py takes itself for rank {rank} of {world}, and fails: no {' and no '.join(missing)}"
    elif facts.value("TORCHELASTIC_USE_AGENT_STORE") == "True":
        why = f"python train.py takes itself for rank {rank} of {world} of a torchrun, and waits for that"
    elif world > 1:
        why = f"python train.py takes itself for rank {rank} of {world}, and waits for the others until a timeout"
    else:
        yield Finding(CHECK, "note", set_, f"python train.py takes itself for launched, alone; {_UNLESS}", _fix(facts))
        return
    yield Finding(CHECK, "warning", set_, f"{why}; {_UNLESS}", _fix(facts))


def _judge_address(facts: Variables, of_nodes: Collection[str]) -> Iterator[Finding]:
    master = facts.value("MASTER_ADDR")
    leads = f"{master} ({', '.join(facts.addresses)})" if (master,) != facts.addresses else master
    if not master:
        return
    if not facts.addresses:
        yield Finding(
            CHECK, "warning", f"MASTER_ADDR={master} is not known on this machine",
            f"ranks that are started {_WITHOUT} wait for it until a timeout; {_UNLESS}",
            "unset MASTER_ADDR, or name a machine that is known here",
        )  # fmt: skip
    elif facts.is_here or facts.launcher:
        return
    elif facts.in_job:
        if facts.of_job is False and not set(facts.addresses) & set(of_nodes):
            yield Finding(
                CHECK, "warning", f"MASTER_ADDR={leads} is no node of this job",
                f"ranks that are started {_WITHOUT} wait for it until a timeout; {_UNLESS}",
                "unset MASTER_ADDR; of a job, it is the first of scontrol show hostnames",
            )  # fmt: skip
    elif facts.value("RANK") in ("", "0"):
        yield Finding(
            CHECK, "warning", f"MASTER_ADDR={leads} is another machine, and no launcher is here",
            f"a rank 0 that is started here {_WITHOUT} listens on this machine, and looks for itself on that one until "
            f"a timeout; {_UNLESS}",
            "unset MASTER_ADDR; for ranks on several machines: dtk launch --nodes N --rdzv HOST on each",
        )  # fmt: skip


def _judge_port(facts: Variables) -> Iterator[Finding]:
    port = facts.value("MASTER_PORT")
    if port and not is_port(port):
        yield Finding(
            CHECK, "warning", f"MASTER_PORT={port!r} is no port",
            f"ranks that are started {_WITHOUT} fail at once; {_UNLESS}", "unset MASTER_PORT",
        )  # fmt: skip


def _fix(facts: Variables) -> str:
    there = [name for name in _NAMES if facts.has(name) and not (facts.in_job and name.startswith("MASTER_"))]
    return f"unset {' '.join(there)}"
