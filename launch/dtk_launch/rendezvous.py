"""Where and how the nodes of a launch meet: options and facts -> Topology. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dtk_launch.allocation import Allocation
from dtk_launch.errors import PlanError
from dtk_launch.meeting import LOOPBACK, Meeting, split_endpoint
from dtk_launch.options import LaunchOptions
from dtk_launch.values import parse_nodes

Note = Callable[[str, object, str, str], None]


@dataclass(frozen=True)
class Rendezvous:
    """Where the nodes of a job meet. `node_name` is this node's name or address, as its peers reach it."""

    host: str
    port: int
    id: str
    is_host: bool
    node_name: str


@dataclass(frozen=True)
class Topology:
    """Ranks and nodes. `rendezvous` is None on one node; `min_nodes` is less than `nodes` for an elastic launch.

    `on_its_own`: no scheduler ends it when one of its nodes dies. `local_addr`: where the ranks of one node look for
    torchrun; '' for the host's own name.
    """

    nodes: int
    nproc: int
    node_rank: int | None = 0
    rendezvous: Rendezvous | None = None
    min_nodes: int = 0
    on_its_own: bool = False
    local_addr: str = ""

    @property
    def elastic(self) -> bool:
        """Whether nodes may come and go."""
        return 0 < self.min_nodes < self.nodes

    @property
    def node(self) -> str:
        """What files of this node are named after: its rank, or its name where it has none."""
        if self.node_rank is not None:
            return str(self.node_rank)
        return self.rendezvous.node_name if self.rendezvous is not None else "0"


def decide_topology(
    options: LaunchOptions,
    sources: Mapping[str, str],
    step: Allocation | None,
    meeting: Meeting | None,
    note: Note,
    unnamed: str = "",
) -> Topology:
    """Nodes and where they meet, with `nproc` still 0. `unnamed`: as of HostFacts. Raises PlanError."""
    low, high = parse_nodes(options.nodes) if options.nodes else (0, 0)
    if step is not None:
        found = _in_step(options, sources, step, low, high, note)
    else:
        found = _by_hand(options, sources, meeting, low or 1, high or 1, note)
    if found.nodes > 1 or not unnamed:
        return found
    note("local_addr", LOOPBACK, "observed", f"{unnamed}, and torchrun has its ranks look for it by that")
    return replace(found, local_addr=LOOPBACK)


def _in_step(
    options: LaunchOptions, sources: Mapping[str, str], step: Allocation, low: int, high: int, note: Note
) -> Topology:
    observed = len(step.nodes)
    nodes = high or observed
    if options.rdzv or options.node_rank >= 0:
        flag = f"--rdzv={options.rdzv}" if options.rdzv else f"--node-rank={options.node_rank}"
        raise PlanError(
            f"{flag}, but this is an srun step, which says where its nodes meet (SLURM_STEP_NODELIST); drop it"
        )
    if high > 1 and not low <= observed <= high:
        raise PlanError(
            f"--nodes={options.nodes}, but the srun step has {observed} (SLURM_STEP_NODELIST); pass --nodes {observed}"
        )
    if low < high:
        nodes = observed
        check_restarts(options)
    if nodes > 1 and step.tasks_per_node.split("(")[0].split(",")[0] != "1":
        raise PlanError(
            f"srun starts {step.tasks_per_node} dtk on each node (SLURM_STEP_TASKS_PER_NODE), and each starts all "
            "ranks of its node; pass --ntasks-per-node=1 to srun"
        )
    source = sources["nodes"] if options.nodes else "observed"
    fewest = f"; it goes on with {low} or more" if low < nodes else ""
    note("nodes", nodes, source, f"SLURM_STEP_NODELIST has {observed}{fewest}")
    if nodes == 1:
        return _standalone(note)
    rendezvous = Rendezvous(
        host=step.head_address or step.head,
        port=20000 + step.job_id % 12000,
        id=f"{step.job_id}-{step.restart_count}",
        is_host=step.node_rank == 0,
        node_name=step.own_address or step.node_name,
    )
    why = "first node of the step; port and id from job id and restart count, below the ephemeral ports"
    note("rendezvous", f"{rendezvous.host}:{rendezvous.port} id {rendezvous.id}", "observed", why)
    for name, address in {step.head: step.head_address, step.node_name: step.own_address}.items():
        if address:
            note(f"address of {name}", address, "observed", "by scontrol: the name is not known on this node")
    note("node_rank", step.node_rank, "observed", f"SLURM_NODEID on {step.node_name}")
    return Topology(nodes, 0, step.node_rank, rendezvous, low or nodes, on_its_own=low < high)


def _standalone(note: Note) -> Topology:
    note("rendezvous", "standalone", "observed", "one node: torchrun takes a free port of its own")
    return Topology(1, 0)


def _by_hand(
    options: LaunchOptions, sources: Mapping[str, str], meeting: Meeting | None, low: int, high: int, note: Note
) -> Topology:
    if high == 1:
        for flag, given in (("--rdzv", options.rdzv), ("--node-rank", options.node_rank >= 0)):
            if given:
                raise PlanError(f"{flag} is for several nodes, and this is a launch on one; pass --nodes N, or drop it")
        note("nodes", 1, sources["nodes"] if options.nodes else "observed", "not in an srun step")
        return _standalone(note)
    if not options.rdzv or meeting is None:
        raise PlanError(
            f"--nodes={options.nodes}, but this is no srun step of a SLURM job, so where do the nodes meet? "
            f"Pass --rdzv HOST[:PORT] with one of them on every node, or submit it with dtk submit --nodes {high}"
        )
    host, port = split_endpoint(options.rdzv)
    rank = options.node_rank if options.node_rank >= 0 else None
    _check_by_hand(options, meeting, low, high, rank, port)
    is_host = meeting.is_local if rank is None else rank == 0
    note("nodes", options.nodes, sources["nodes"], "nodes may come and go" if low < high else "started by hand on each")
    where = (
        f"port {port} is one that this system gives to any program, and may be taken"
        if _ephemeral(meeting, port)
        else ""
    )
    note("rendezvous", f"{host}:{port}", sources["rdzv"], where or "below the ephemeral ports")
    who = "the host of the rendezvous is this machine" if meeting.is_local else "the host is another machine"
    note("is_host", is_host, sources["node_rank"] if rank is not None else "observed", who)
    note("local_addr", meeting.own_address, "observed", f"from which this node reaches {host}")
    if rank is not None:
        note("node_rank", rank, sources["node_rank"], "")
    rendezvous = Rendezvous(host, port, "", is_host, meeting.own_address)
    number = rank if rank is not None else 0 if is_host else None
    return Topology(high, 0, number, rendezvous, low, on_its_own=True)


def _ephemeral(meeting: Meeting, port: int) -> bool:
    return meeting.ephemeral[0] <= port <= meeting.ephemeral[1]


def _check_by_hand(options: LaunchOptions, meeting: Meeting, low: int, high: int, rank: int | None, port: int) -> None:
    if rank is not None and rank >= high:
        raise PlanError(f"--node-rank={rank}, but --nodes={options.nodes} has ranks 0 to {high - 1}")
    if meeting.problem:
        raise PlanError(f"--rdzv={options.rdzv}: {meeting.problem}")
    if meeting.taken and rank in (None, 0):
        raise PlanError(
            f"--rdzv={options.rdzv}: port {port} of this machine is taken, perhaps by another launch; pass another "
            "port on every node, or, if this is a second node on the machine, --node-rank 1"
        )
    if rank == 0 and not meeting.is_local:
        raise PlanError(
            f"--node-rank=0 is the node that holds the rendezvous, but --rdzv={options.rdzv} "
            f"({', '.join(meeting.addresses)}) is not this machine; name this machine on every node, or pass "
            "--node-rank 1 or more here"
        )
    if low < high:
        check_restarts(options)


def check_restarts(options: LaunchOptions) -> None:
    """Raise PlanError if a launch whose nodes may come and go has no restarts for that."""
    if options.max_restarts < 1:
        raise PlanError(
            f"--nodes={options.nodes} lets nodes come and go, and each change starts all ranks again, but "
            "--max-restarts is 0; pass --max-restarts 3, for example"
        )


def named(topology: Topology, name: str, nproc: int) -> Topology:
    """The topology with its ranks per node, and with a rendezvous id of its own: the run's name, where it has none."""
    meeting = topology.rendezvous
    if meeting is not None and not meeting.id:
        meeting = replace(meeting, id=name)
    return replace(topology, nproc=nproc, rendezvous=meeting)
