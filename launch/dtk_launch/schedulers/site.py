"""What a SLURM cluster has, as sinfo tells it, and what of a job could never start there. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dtk_launch.errors import unknown
from dtk_launch.schedulers.base import JobPlan

SINFO = ("sinfo", "--noheader", "--all", "--exact", "--format=%P|%a|%D|%c|%m|%l|%G|%f|%t")
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_GONE = ("down", "drain", "drng", "fail", "maint", "unk", "no_resp", "inval")
_GPUS = re.compile(r"gpu:(?:([\w.-]+):)?(\d+)")


@dataclass(frozen=True)
class Group:
    """Nodes of one partition that are alike. `memory` in MB, `limit` in minutes, None without one; GPUs by type."""

    partition: str
    default: bool
    up: bool
    nodes: int
    cores: int
    memory: int
    limit: float | None
    gpus: tuple[tuple[str, int], ...]
    features: frozenset[str]
    state: str

    @property
    def usable(self) -> bool:
        """Whether its nodes take jobs now."""
        return not self.state.startswith(_GONE) and not self.state.endswith("*")


def parse_sinfo(text: str) -> list[Group]:
    """The groups in what SINFO prints; lines that are not understood are left out."""
    found = []
    for line in text.splitlines():
        parts = line.split("|")
        counts = [count(part) for part in parts[2:5]]
        if len(parts) != 9 or None in counts:
            continue
        name, up, _, _, _, limit, gres, features, state = parts
        gpus = tuple((kind, int(many)) for kind, many in _GPUS.findall(gres))
        known = frozenset(features.split(",")) - {"(null)"}
        nodes, cores, memory = (known or 0 for known in counts)
        found.append(
            Group(
                partition=name.rstrip("*"),
                default=name.endswith("*"),
                up=up == "up",
                nodes=nodes,
                cores=cores,
                memory=memory,
                limit=minutes(limit),
                gpus=gpus,
                features=known,
                state=state,
            )
        )
    return found


def count(text: str) -> int | None:
    """A number as SLURM writes it: `12`, `1K` for 1024, `64+` or `2-4` for the least of several; else None."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:\+|-\d.*)?", text)
    return round(float(match[1]) * 1024 ** " KMGT".index(match[2] or " ")) if match else None


def minutes(text: str) -> float | None:
    """A length of time as SLURM writes it; None for no limit, or where it cannot be read."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *rest = (int(part) if part else 0 for part in match.groups())
    if match[1] is not None:  # D-HH[:MM[:SS]]
        return days * 1440 + rest[0] * 60 + rest[1] + rest[2] / 60
    if match[4] is not None:  # HH:MM:SS
        return rest[0] * 60 + rest[1] + rest[2] / 60
    return rest[0] + rest[1] / 60  # MM[:SS]


def megabytes(text: str) -> float:
    """`64G` in MB; without a unit it is in MB already. Of a text that --mem can be."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.upper())
    return int(match[1]) * _UNITS[match[2] or "M"] if match else 0


def refusals(plan: JobPlan, groups: Sequence[Group]) -> list[str]:
    """Why this job could never start, with the numbers; empty if it can, or if nothing is known of the cluster.

    Without a default partition sbatch says itself whether one has to be given: the site's submit filter may choose.
    """
    if not groups:
        return []
    asked = dict(plan.asked).get("partition")
    names = asked.split(",") if asked else sorted({group.partition for group in groups if group.default})
    reasons = {name: _of_partition(plan, name, groups) for name in names}
    if not all(reasons.values()):
        return []
    return [reason for found in reasons.values() for reason in found]


def waits(plan: JobPlan, groups: Sequence[Group]) -> str:
    """What keeps the job waiting for longer than its turn, '' if nothing is known to."""
    asked = dict(plan.asked).get("partition")
    mine = [group for group in groups if (group.partition in asked.split(",") if asked else group.default)]
    usable = sum(group.nodes for group in mine if group.usable)
    if not mine or usable >= plan.needed:
        return ""
    total = sum(group.nodes for group in mine)
    gone, missing = total - usable, plan.needed - usable
    return f"{gone} of {total} nodes take no jobs now (down, drained), so the job waits for {missing} of them"


def _of_partition(plan: JobPlan, name: str, groups: Sequence[Group]) -> list[str]:
    mine = [group for group in groups if group.partition == name]
    if not mine:
        return [f"--partition={name}: {unknown('partition', name, {group.partition for group in groups})}"]
    if not any(group.up for group in mine):
        return [f"--partition={name} is not up: it takes no jobs now (sinfo -p {name})"]
    total, limit = sum(group.nodes for group in mine), mine[0].limit
    found = []
    if plan.needed > total:
        found.append(f"--nodes={plan.needed}, but partition {name} has {total} nodes")
    asked = dict(plan.asked)
    wanted = minutes(asked.get("time") or "")
    if wanted is not None and limit is not None and wanted > limit and "qos" not in asked:  # which may lift it
        found.append(f"--time={asked['time']} is longer than partition {name} allows: {limit:g} minutes")
    needs = _needs(plan)
    for words, fits, most in needs:
        number = sum(group.nodes for group in mine if fits(group))
        if number < plan.needed <= total:
            found.append(
                f"{words}, but {number} of the {total} nodes of partition {name} have that (most: {most(mine)})"
            )
    if not found:
        number = sum(group.nodes for group in mine if all(fits(group) for _, fits, _ in needs))
        if number < plan.needed:
            both = " and ".join(words for words, _, _ in needs)
            found.append(
                f"{both}: {number} of the {total} nodes of partition {name} have all of it, needed {plan.needed}"
            )
    return found


_Need = tuple[str, Callable[[Group], bool], Callable[[Sequence[Group]], str]]
"""What is asked for in words, whether nodes have it, and the most that any has."""


def _needs(plan: JobPlan) -> list[_Need]:
    asked, needs = dict(plan.asked), list[_Need]()
    cores = plan.cpus_per_task
    if cores:
        most = lambda mine: f"{max(group.cores for group in mine)} cores"  # noqa: E731
        needs.append((f"--cpus-per-task={cores}", lambda group: group.cores >= cores, most))
    memory = megabytes(asked.get("mem") or "")
    if memory:
        most = lambda mine: f"{max(group.memory for group in mine)} MB"  # noqa: E731
        needs.append((f"--mem={asked['mem']}", lambda group: group.memory >= memory, most))
    for part in (asked.get("gpus-per-node") or "").split(","):
        kind, _, number = part.rpartition(":")
        if number.isdecimal() and int(number):
            needs.append(_gpus(part, kind, int(number)))
    features = (asked.get("constraint") or "").split("&")
    if all(re.fullmatch(r"[\w.-]+", feature) for feature in features):
        words = f"--constraint={asked['constraint']}"
        needs.append((words, lambda group: group.features >= set(features), _all_features))
    return needs


def _gpus(part: str, kind: str, number: int) -> _Need:
    def of(group: Group) -> int:
        return sum(count for name, count in group.gpus if kind in ("", name))

    return f"--gpus-per-node={part}", lambda group: of(group) >= number, lambda mine: f"{max(map(of, mine))} GPUs"


def _all_features(mine: Sequence[Group]) -> str:
    return ", ".join(sorted(frozenset().union(*(group.features for group in mine)))) or "none"
