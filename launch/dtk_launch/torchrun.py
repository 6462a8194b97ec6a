"""LaunchPlan -> the torchrun command: argv and environment, as data and as text to paste. Nothing is started here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dtk_launch.errors import PlanError
from dtk_launch.grace import AGENT_GRACE
from dtk_launch.plan import Decision, LaunchPlan
from dtk_launch.rendezvous import Topology
from dtk_launch.resources import worker_path

# torchrun takes the default of every flag from PET_<FLAG>. These would change what our flags mean, so they are refused.
_NEVER = {
    "PET_MODULE": "the script is started by dtk's bootstrap; pass -m to dtk",
    "PET_NO_PYTHON": "the ranks run Python",
    "PET_RUN_PATH": "the ranks run in a process of their own",
    "PET_VIRTUAL_LOCAL_RANK": "the device is chosen by LOCAL_RANK",
}


_STREAMS = r"[0-3]|\d:[0-3](,\d:[0-3])*"
_FORMS = {
    "PET_MONITOR_INTERVAL": r"\d+(\.\d*)?|\.\d+",
    "PET_START_METHOD": "spawn|fork|forkserver",
    "PET_REDIRECTS": _STREAMS,
    "PET_TEE": _STREAMS,
    "PET_LOCAL_RANKS_FILTER": r"\d+(,\d+)*",
}
"""What torchrun can read of these; it finds out after it has been started."""

HANDLED = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGURG"
"""torchrun's own, and the one by which dtk has it wait for its ranks without telling them anything: stopping.py."""


@dataclass(frozen=True)
class Command:
    """What a run executes and a dry run prints. `env` is added to the environment."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]

    def shell_text(self) -> str:
        """One line for a POSIX shell that means exactly this command."""
        assignments = (f"{key}={shlex.quote(value)}" for key, value in self.env)
        return " ".join((*assignments, shlex.join(self.argv)))


def render(plan: LaunchPlan) -> Command:
    """The command of this node."""
    words = tuple(word for flag, value in flags(plan) for word in ((flag,) if value is None else (flag, value)))
    target = plan.target
    script = (str(worker_path()), *(("-m",) if target.module else ()), target.script, *target.args)
    # "--": torchrun refuses a script's --log or --nproc as an ambiguous abbreviation of its own options without it.
    return Command((*plan.torchrun, *words, "--", *script), plan.env)


Flags = tuple[tuple[str, str | None], ...]
"""torchrun's flags and their values; None for a switch."""


def flags(plan: LaunchPlan) -> Flags:
    """Those of a plan."""
    return flags_of(plan.topology, plan.restart.max_restarts, plan.stop.agent_grace)


def flags_of(topology: Topology, max_restarts: int = 0, agent_grace: int = AGENT_GRACE) -> Flags:
    """Those of these ranks and nodes."""
    rendezvous = topology.rendezvous
    common = (
        ("--nproc-per-node", str(topology.nproc)),
        ("--max-restarts", str(max_restarts)),
        ("--signals-to-handle", HANDLED),
        *((("--shutdown-timeout", str(agent_grace)),) if agent_grace != AGENT_GRACE else ()),
    )
    if rendezvous is None:
        # --standalone on one node always: without it the port is a fixed one before torch 2.12.
        own = (("--local-addr", topology.local_addr),) if topology.local_addr else ()
        return (("--standalone", None), *common, *own)
    # No --node-rank: torchrun would only warn that c10d ignores it.
    # is_host: the host-name match has false negatives (pytorch#73656). The timeouts are for a late head node.
    host, conf = rendezvous.host, f"is_host={int(rendezvous.is_host)},read_timeout=600,join_timeout=900"
    return (
        ("--nnodes", f"{topology.min_nodes}:{topology.nodes}" if topology.elastic else str(topology.nodes)),
        *common,
        ("--rdzv-backend", "c10d"),
        ("--rdzv-endpoint", f"[{host}]:{rendezvous.port}" if ":" in host else f"{host}:{rendezvous.port}"),
        ("--rdzv-id", rendezvous.id),
        ("--rdzv-conf", conf),
        ("--local-addr", rendezvous.node_name),
    )


def as_pet(topology: Topology, values: Flags) -> dict[str, str]:
    """The PET_* that would ask for these flags of a launch, and what they would have to say."""
    emitted = {"PET_" + flag[2:].upper().replace("-", "_"): value or "1" for flag, value in values}
    if topology.nodes == 1:
        emitted |= {"PET_NNODES": "1", "PET_NODE_RANK": "0"}
    elif topology.node_rank is not None:
        emitted["PET_NODE_RANK"] = str(topology.node_rank)
    return emitted


def refused_pet(environ: Mapping[str, str], emitted: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, why, what to do) of each PET_* with which a launch of these flags (`as_pet`) is refused."""
    for name, value in sorted(environ.items()):
        if not name.startswith("PET_"):
            continue
        if name in _NEVER and value not in ("", "0"):
            yield name, f"{name}={value} is set, and torchrun would obey it, but {_NEVER[name]}", f"unset {name}"
        elif name in emitted and value not in (emitted[name], f"{emitted[name]}:{emitted[name]}"):
            flag = "--" + name[4:].lower().replace("_", "-")
            why = f"{name}={value} contradicts {flag} {emitted[name]} of this plan"
            yield name, why, f"unset {name}, or ask for the same"
        elif name in _FORMS and not re.fullmatch(_FORMS[name], value):
            why = f"{name}={value!r} is set, and torchrun would obey it, but cannot read it"
            yield name, why, f"unset {name}"


def check_pet(plan: LaunchPlan, environ: Mapping[str, str]) -> LaunchPlan:
    """The plan and a decision for each PET_* that torchrun will obey. Raises PlanError where one contradicts it."""
    emitted = as_pet(plan.topology, flags(plan))
    environ = {**environ, **dict(plan.env)}  # --env is torchrun's environment too
    for _, why, fix in refused_pet(environ, emitted):
        raise PlanError(f"{why}; {fix}")
    obeyed = []
    for name, value in sorted(environ.items()):
        if not name.startswith("PET_"):
            continue
        if name not in emitted and name not in _NEVER:
            obeyed.append(Decision(name, value, f"environment {name}", "torchrun obeys it; unset it if it is a stray"))
    if "PYTHON_EXEC" in environ:
        value = environ["PYTHON_EXEC"]
        obeyed.append(Decision("PYTHON_EXEC", value, "environment PYTHON_EXEC", "torchrun starts the ranks with it"))
    return replace(plan, decisions=(*plan.decisions, *obeyed))
