"""Names, interfaces and ports of a node: where gloo and NCCL will listen, and whether others reach that."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.doctor import itself
from dtk_launch.doctor.findings import Finding, differing, some
from dtk_launch.doctor.interfaces import Interface, named, nccl_takes, of_address
from dtk_launch.doctor.interfaces import probe as probe_interfaces
from dtk_launch.doctor.ports import taken_ports
from dtk_launch.reach import gloo_interface, unnamed

CHECK = "network"
GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_VARIABLES = (GLOO, NCCL, "NCCL_SOCKET_FAMILY", "NCCL_IB_DISABLE")
_LONG = 2.0  # seconds for a name
_LOOKED_UP = 32  # names on each node: all of a large job would be many for a name server
_SLOW = 1000  # Mb/s
_FIX_HOSTS = "have the name of each node lead to the address of its network, in DNS or /etc/hosts"


@dataclass(frozen=True)
class Network:
    """What this host is called, which addresses that and the other nodes' names have here, and its interfaces."""

    hostname: str
    addresses: tuple[str, ...]
    """Of the host's own name."""
    seconds: float
    """That the look-up of it took."""
    interfaces: tuple[Interface, ...]
    variables: tuple[tuple[str, str], ...] = ()
    told_gloo: str = ""
    """The interface of which dtk launch would tell gloo, on several nodes."""
    unnamed: str = ""
    """Why torchrun would not find this host by its own name, on one node (reach.py)."""
    unknown: tuple[str, ...] = ()
    """Names of nodes of the allocation that are not known here."""
    infiniband: tuple[tuple[str, str], ...] = ()
    """(port, state) of each InfiniBand or RoCE port, the state as the kernel has it: ACTIVE, DOWN."""
    master_port: str = ""
    """MASTER_PORT, where MASTER_ADDR is not set or leads here, so that rank 0 would listen here."""
    taken: tuple[int, ...] = ()
    """Those of ports.py that another program of this host has."""

    def variable(self, name: str) -> str:
        """Its value, '' where it is not set."""
        return dict(self.variables).get(name, "")


def probe(nodes: Sequence[str] = (), head: str = "", root: Path = Path("/")) -> Network:
    """Look at this host. `nodes`: the names of all nodes, `head`: where they meet; nothing for one node alone."""
    began = time.monotonic()
    hostname = socket.gethostname()
    addresses = _addresses(hostname)
    seconds = time.monotonic() - began
    variables = tuple((name, os.environ[name]) for name in _VARIABLES if os.environ.get(name))
    there = probe_interfaces(root)
    master = os.environ.get("MASTER_ADDR", "")
    is_here = not master or any(of_address(there, address) for address in _addresses(master))
    port = os.environ.get("MASTER_PORT", "") if is_here else ""
    return Network(
        hostname, addresses, seconds, there, variables,
        told_gloo=gloo_interface(head) if len(nodes) > 1 else "",
        unnamed="" if len(nodes) > 1 else unnamed(),
        unknown=tuple(name for name in nodes[:_LOOKED_UP] if not _addresses(name)),
        infiniband=_infiniband(root), master_port=port, taken=taken_ports(port),
    )  # fmt: skip


def _addresses(name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _infiniband(root: Path) -> tuple[tuple[str, str], ...]:
    found = []
    for path in sorted((root / "sys/class/infiniband").glob("*/ports/*/state")):
        try:
            state = path.read_text().rpartition(":")[2].strip()
        except OSError:
            continue
        found.append((f"{path.parts[-4]}:{path.parts[-2]}", state))
    return tuple(found)


def gloo_takes(facts: Network, nodes: int) -> tuple[str, str]:
    """(interface, why) of gloo under dtk launch; ('', why not) where it finds none."""
    asked = facts.variable(GLOO)
    if asked:
        found, _ = named(facts.interfaces, asked)
        return (found[0].name if found else ""), f"{GLOO}={asked}"
    if nodes > 1 and facts.told_gloo:
        return facts.told_gloo, "dtk launch tells it"
    for address in facts.addresses:
        if name := of_address(facts.interfaces, address):
            return name, f"{address}, by the name {facts.hostname}"
    loopback = next((interface.name for interface in facts.interfaces if interface.loopback), "")
    return loopback, f"the name {facts.hostname} leads to no address of this host"


def judge(facts: Network, nodes: int, gpus: int) -> Iterator[Finding]:
    """`nodes` of the run that this is one of, and the GPUs of this one."""
    found = list(itself.judge_loopback(facts.interfaces))
    if not found:
        found = [*_judge_named(facts, gpus), *_judge_name(facts, nodes), *_judge_links(facts, nodes, gpus)]
    if all(finding.level == "note" for finding in found):
        found.append(Finding(CHECK, "ok", summary(facts, nodes)))
    yield from found


def summary(facts: Network, nodes: int) -> str:
    """Which interface is taken by whom."""
    gloo, why = gloo_takes(facts, nodes)
    takes = nccl_takes(facts.interfaces, facts.variable(NCCL), facts.variable("NCCL_SOCKET_FAMILY"))
    active = [port for port, state in facts.infiniband if state == "ACTIVE"]
    by = f"; InfiniBand {', '.join(active)}" if active else ""
    return f"gloo takes {gloo or 'none'} ({why}), nccl would take {', '.join(takes) or 'none'}{by}"


def _judge_named(facts: Network, gpus: int) -> Iterator[Finding]:
    there = ", ".join(interface.name for interface in facts.interfaces)
    asked = facts.variable(GLOO)
    if asked:
        found, absent = named(facts.interfaces, asked)
        if absent:
            yield Finding(
                CHECK, "problem", f"{GLOO}={asked}, and there is no {', '.join(absent)} here (there are {there})",
                "gloo fails at once: Unable to find address for it", f"name one that every node has, or unset {GLOO}",
            )  # fmt: skip
        for interface in found:
            if not (interface.up and interface.addresses):
                yield Finding(
                    CHECK, "problem",
                    f"{GLOO}={asked}, and {interface.name} {'has no address' if interface.up else 'is down'}",
                    "gloo cannot listen there", f"name one with an address, or unset {GLOO}",
                )  # fmt: skip
    asked = facts.variable(NCCL)
    if asked and not nccl_takes(facts.interfaces, asked, facts.variable("NCCL_SOCKET_FAMILY")):
        yield Finding(
            CHECK, "problem" if gpus else "warning", f"{NCCL}={asked} fits none of {there}",
            "NCCL fails at its start: no socket interface found", f"name one that every node has, or unset {NCCL}",
        )  # fmt: skip


def _judge_name(facts: Network, nodes: int) -> Iterator[Finding]:
    if facts.seconds > _LONG:
        yield Finding(
            CHECK, "warning", f"the look-up of the name {facts.hostname} took {facts.seconds:.1f} s",
            "each rank does it several times before it starts", "put the nodes into /etc/hosts, or mend the DNS server",
        )  # fmt: skip
    own = of_address(facts.interfaces, facts.addresses[0]) if facts.addresses else ""
    loopback = own in {interface.name for interface in facts.interfaces if interface.loopback}
    if nodes > 1 and not facts.variable(GLOO) and (loopback or not own):
        leads = f"leads to {', '.join(facts.addresses)}" if facts.addresses else "is not known"
        what = f"the name {facts.hostname} {leads} here" + (
            "" if loopback or not facts.addresses else ", no address of this host"
        )
        if facts.told_gloo:
            yield Finding(
                CHECK, "warning", f"{what}; dtk launch has gloo take {facts.told_gloo}",
                "plain torchrun would have gloo listen where other nodes cannot reach it",
                f"{_FIX_HOSTS}; until then dtk launch, or {GLOO}={facts.told_gloo}",
            )  # fmt: skip
        else:
            yield Finding(
                CHECK, "problem", f"{what}, and no interface leads to the other nodes",
                "gloo listens where other nodes cannot reach it", f"{_FIX_HOSTS}, or set {GLOO}",
            )  # fmt: skip
    if nodes == 1:
        yield from itself.judge_name(facts.hostname, facts.unnamed)
    if facts.unknown:
        yield Finding(
            CHECK, "warning", f"not known here: {some(facts.unknown)}",
            "dtk launch then asks SLURM for the address; other launchers fail", _FIX_HOSTS,
        )  # fmt: skip


def _judge_links(facts: Network, nodes: int, gpus: int) -> Iterator[Finding]:
    usable = [interface for interface in facts.interfaces if interface.between_hosts]
    gloo, _ = gloo_takes(facts, nodes)
    if nodes > 1 and not usable:
        there = ", ".join(interface.name for interface in facts.interfaces if interface.up)
        yield Finding(
            CHECK, "problem", f"no interface leads to other hosts (up: {there or 'none'})",
            "the ranks of other nodes cannot be reached",
            "bring the network up; in a container, use the host's: --network host",
        )  # fmt: skip
    elif nodes > 1 and gloo and gloo not in [interface.name for interface in usable]:
        yield Finding(
            CHECK, "problem", f"gloo will take {gloo}", "other nodes cannot be reached by it",
            f"{GLOO}={usable[0].name}",
        )  # fmt: skip
    for interface in usable:
        if nodes > 1 and interface.name == gloo and interface.speed and interface.speed <= _SLOW:
            yield Finding(
                CHECK, "warning", f"gloo will take {gloo}, of {interface.speed} Mb/s",
                "the gradients of 100 million parameters take seconds a step", f"name a faster one: {GLOO}, {NCCL}",
            )  # fmt: skip
    idle = [port for port, state in facts.infiniband if state != "ACTIVE"]
    if idle and gpus:
        yield Finding(
            CHECK, "warning" if len(idle) == len(facts.infiniband) else "note",
            f"InfiniBand that is not active: {', '.join(idle)}",
            "NCCL uses what is left, or TCP", "look at the cable and the subnet manager: ibstat",
        )  # fmt: skip
    if facts.infiniband and facts.variable("NCCL_IB_DISABLE") not in ("", "0") and gpus:
        yield Finding(
            CHECK, "warning", "NCCL_IB_DISABLE is set, and there is InfiniBand", "NCCL uses TCP, several times slower",
            "unset NCCL_IB_DISABLE",
        )  # fmt: skip


def compare(by_node: Mapping[str, Network]) -> Iterator[Finding]:
    """What differs among the nodes of one run."""
    for name in (GLOO, NCCL):
        if found := differing((node, facts.variable(name)) for node, facts in by_node.items()):
            yield Finding(CHECK, "note", f"{name} differs: {found}")
    taken = []
    for node, facts in by_node.items():
        gloo, _ = gloo_takes(facts, len(by_node))
        taken += [(node, f"MTU {interface.mtu}") for interface in facts.interfaces if interface.name == gloo]
    if found := differing(taken):
        yield Finding(
            CHECK, "warning", f"the interfaces that gloo takes differ: {found}",
            "large packets are lost where one end has a larger MTU: a run hangs at its first large collective",
            "give all of them one MTU",
        )  # fmt: skip
    names = [facts.hostname for facts in by_node.values()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield Finding(
            CHECK, "warning", f"several nodes call themselves {', '.join(twice)}",
            "the lines of a log, dtk top and the verdict cannot tell them apart", "give each node a name of its own",
        )  # fmt: skip
