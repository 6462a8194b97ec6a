"""The facts of one node, or of all nodes of an allocation -> findings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dtk_launch.doctor import allreduce, clock, filesystem, gpus, limits, network, ports, variables, versions
from dtk_launch.doctor.asked import read_torch
from dtk_launch.doctor.findings import Finding, gather, ordered, some
from dtk_launch.doctor.node import NodeFacts


@dataclass(frozen=True)
class Examined:
    """Everything that was seen. `nodes`: all that were asked for; `facts`: of those that answered."""

    nodes: tuple[str, ...]
    facts: Mapping[str, NodeFacts]
    run_dir: str
    nproc: int
    """Ranks on each node, of the all-reduce."""
    asked_nproc: int | None
    said: allreduce.Said | None = None
    """None where it was left out."""
    why_not: str = ""
    """Why it was."""
    unseen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """node.read_unseen."""
    srun_words: str = ""
    """What srun said where a node gave no answer."""
    variables: variables.Variables = field(default_factory=variables.Variables)
    """Of the shell."""


def ranks_of(facts: Mapping[str, NodeFacts], asked: int | None) -> int:
    """Ranks on each node for the all-reduce: as asked, else one for each GPU; at least two in all."""
    if asked is not None:
        return asked
    fewest = min((max(0, found.gpus.visible) for found in facts.values()), default=0)
    return max(fewest, 2 if len(facts) == 1 else 1)


def judge(seen: Examined) -> list[Finding]:
    """All findings, in the order of the checks."""
    facts = with_torch(seen)
    found = gather((node, list(_judge_node(one, seen))) for node, one in facts.items())
    found += _judge_answers(seen)
    if len(seen.nodes) > 1:
        found += _judge_together(seen, facts)
    elif facts:
        found += filesystem.judge_remote(seen.run_dir, seen.nodes[0], seen.unseen)
        found += clock.judge_stamps(next(iter(facts.values())).filesystem.ahead)
    fewest = min((one.gpus.visible for one in facts.values()), default=0)
    planned = seen.asked_nproc or max(1, fewest)
    found += variables.judge(seen.variables, _addresses(facts), len(seen.nodes), planned)
    networks = {one.network.hostname: one.network for one in facts.values()}
    hosts = [facts[node].network.hostname for node in seen.nodes if node in facts]
    if seen.said is not None:
        found += allreduce.judge(seen.said, hosts, seen.nproc, networks)
    elif seen.why_not:
        found.append(Finding(allreduce.CHECK, "note", f"left out: {seen.why_not}"))
    return ordered(found)


def _addresses(facts: Mapping[str, NodeFacts]) -> set[str]:
    return {at for one in facts.values() for interface in one.network.interfaces for at in interface.addresses}


def with_torch(seen: Examined) -> dict[str, NodeFacts]:
    """The facts, with what torch told in the ranks of the all-reduce."""
    told = {line["host"]: line["torch"] for line in (seen.said.lines if seen.said else ()) if line["stage"] == "torch"}
    facts = {node: seen.facts[node] for node in seen.nodes if node in seen.facts}
    for node, one in facts.items():
        if one.versions.asked is None and one.network.hostname in told:
            asked = read_torch(told[one.network.hostname])
            facts[node] = replace(one, versions=replace(one.versions, asked=asked))
    return facts


def _judge_node(one: NodeFacts, seen: Examined) -> Iterator[Finding]:
    hidden = bool(one.versions.cuda) and one.gpus.visible == 0  # on purpose, by CUDA_VISIBLE_DEVICES
    nodes, number = len(seen.nodes), 0 if hidden else len(one.gpus.gpus)
    planned = seen.asked_nproc or max(1, one.gpus.visible)
    yield from versions.judge(one.versions, one.gpus.cuda, number)
    yield from gpus.judge(one.gpus, planned)
    yield from network.judge(one.network, nodes, number)
    yield from ports.judge(one.network.master_port, one.network.taken)
    yield from filesystem.judge(one.filesystem)
    yield from limits.judge(one.limits, planned, number, number > 0 and bool(one.network.infiniband))


def _judge_answers(seen: Examined) -> Iterator[Finding]:
    missing = [node for node in seen.nodes if node not in seen.facts]
    if missing:
        yield Finding(
            "versions", "problem", f"no answer from {some(missing)}: {seen.srun_words or 'srun said nothing'}",
            "dtk has to run on every node", "see that this Python and dtk are on the file system that all nodes share, "
            "and that srun --overlap hostname answers on each",
        )  # fmt: skip


def _judge_together(seen: Examined, facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    yield from versions.compare({node: one.versions for node, one in facts.items()})
    yield from gpus.compare({node: one.gpus for node, one in facts.items()})
    yield from network.compare({node: one.network for node, one in facts.items()})
    yield from limits.compare({node: one.limits for node, one in facts.items()})
    yield from _judge_meeting(seen.nodes, facts)
    if seen.unseen:
        yield from filesystem.judge_shared(seen.run_dir, seen.unseen)


def _judge_meeting(nodes: Sequence[str], facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    head = facts.get(nodes[0])
    if head is not None and head.hosting is not None:
        contacts = {node: one.contact for node, one in facts.items() if one.contact is not None}
        yield from clock.judge(nodes[0], head.hosting, contacts)


def cannot_meet(seen: Examined) -> str:
    """Why an all-reduce would only wait for its limit; '' if it need not."""
    missing = [node for node in seen.nodes if node not in seen.facts]
    if missing:
        return f"no answer from {some(missing)}"
    meeting = _judge_meeting(seen.nodes, seen.facts) if len(seen.nodes) > 1 else ()
    graves = [finding for finding in meeting if finding.level == "problem"]
    return graves[0].what if graves and graves[0].check == "ports" else ""
