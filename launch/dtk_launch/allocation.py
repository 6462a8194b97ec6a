"""The SLURM step that `dtk launch` runs in, read from its variables. Pure: no subprocess, no file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dtk_launch.errors import PlanError
from dtk_launch.given import whole

_ADVICE = "start dtk with srun, or unset the SLURM_* variables that some other program has set"
_MOST_NODES = 100_000


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
    head_address: str = ""
    """Of the first node, where its name is not known here (reach.py)."""
    own_address: str = ""
    """Of this node, where its name is not known here."""

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
        rank = _number(environ, "SLURM_NODEID", 0)
        if rank >= len(nodes):
            raise PlanError(
                f"SLURM_NODEID={rank}, but SLURM_STEP_NODELIST={environ['SLURM_STEP_NODELIST']} "
                f"has {len(nodes)} nodes; {_ADVICE}"
            )
        return cls(
            job_id=_number(environ, "SLURM_JOB_ID", 0),
            restart_count=_number(environ, "SLURM_RESTART_COUNT", 0, "0"),
            nodes=nodes,
            node_rank=rank,
            node_name=environ.get("SLURMD_NODENAME") or nodes[rank],
            tasks_per_node=environ.get("SLURM_STEP_TASKS_PER_NODE") or "1",
        )


def _number(environ: Mapping[str, str], name: str, least: int, default: str = "") -> int:
    text = environ.get(name, default)
    if not whole(text) or len(text) > 18 or int(text) < least:
        raise PlanError(f"{name}={text!r} is no number of an srun step; {_ADVICE}")
    return int(text)


def expand(nodelist: str) -> tuple[str, ...]:
    """`n[1-3,07],login` -> n1 n2 n3 n07 login. Leading zeros stay; several brackets multiply, the last fastest."""
    names = tuple(name for group in _split(nodelist) for name in _expand_group(group, nodelist))
    if not names:
        raise PlanError(f"SLURM_STEP_NODELIST={nodelist!r} names no node; {_ADVICE}")
    return names


def _split(nodelist: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [group for group in re.split(r",(?![^\[]*\])", nodelist) if group]


def _expand_group(group: str, nodelist: str) -> list[str]:
    match = re.fullmatch(r"([^\[\]]*)\[([0-9,-]+)\](.*)", group)
    if match is None:
        if "[" in group or "]" in group:
            raise _unreadable(nodelist, group)
        return [group]
    prefix, ranges, rest = match.groups()
    tails = _expand_group(rest, nodelist)
    numbers = [number for part in ranges.split(",") for number in _numbers(part, nodelist)]
    if len(numbers) * len(tails) > _MOST_NODES:
        raise _unreadable(nodelist, group)
    return [f"{prefix}{number}{tail}" for number in numbers for tail in tails]


def _numbers(part: str, nodelist: str) -> list[str]:
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
    if match is None:
        raise _unreadable(nodelist, part)
    first, last = match[1], match[2] or match[1]
    if not 0 <= int(last) - int(first) < _MOST_NODES:
        raise _unreadable(nodelist, part)
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]


def _unreadable(nodelist: str, at: str) -> PlanError:
    return PlanError(f"SLURM_STEP_NODELIST: cannot read the node list {nodelist!r} (at {at!r}); {_ADVICE}")
