"""The SLURM step that `dtk launch` runs in, read from its variables. Pure: no subprocess, no file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dtk_launch.errors import PlanError


@dataclass(frozen=True)
class Allocation:
    """One srun step, seen from one of its nodes. `nodes` are the names in SLURM's order; the first is the head."""

    job_id: int
    restart_count: int
    nodes: tuple[str, ...]
    node_rank: int
    node_name: str
    tasks_per_node: str
    """As SLURM writes it: `1(x2)` is one task on each of two nodes."""

    @property
    def head(self) -> str:
        """The node that holds the rendezvous."""
        return self.nodes[0]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Allocation | None:
        """The step of these variables; None outside an srun step (a batch script without srun is outside, too)."""
        if not {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NODEID"} <= environ.keys():
            return None
        nodes = expand(environ["SLURM_STEP_NODELIST"])
        rank = int(environ["SLURM_NODEID"])
        return cls(
            job_id=int(environ["SLURM_JOB_ID"]),
            restart_count=int(environ.get("SLURM_RESTART_COUNT", "0")),
            nodes=nodes,
            node_rank=rank,
            node_name=environ.get("SLURMD_NODENAME") or nodes[rank],
            tasks_per_node=environ.get("SLURM_STEP_TASKS_PER_NODE", "1"),
        )


def expand(nodelist: str) -> tuple[str, ...]:
    """`n[1-3,07],login` -> n1 n2 n3 n07 login. Leading zeros stay; several brackets multiply, the last fastest."""
    return tuple(name for group in _split(nodelist) for name in _expand_group(group, nodelist))


def _split(nodelist: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [group for group in re.split(r",(?![^\[]*\])", nodelist) if group]


def _expand_group(group: str, nodelist: str) -> list[str]:
    match = re.fullmatch(r"([^\[\]]*)\[([0-9,-]+)\](.*)", group)
    if match is None:
        if "[" in group or "]" in group:
            raise PlanError(f"cannot read the node list {nodelist!r} that SLURM gave (at {group!r})")
        return [group]
    prefix, ranges, rest = match.groups()
    tails = _expand_group(rest, nodelist)
    return [f"{prefix}{number}{tail}" for part in ranges.split(",") for number in _numbers(part) for tail in tails]


def _numbers(part: str) -> list[str]:
    first, _, last = part.partition("-")
    return [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
