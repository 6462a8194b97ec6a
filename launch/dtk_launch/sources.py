"""The rest of what `dtk explain` shows: options that decide nothing, variables and flags that follow from decisions.

Pure. A variable or a flag that is in no table here and that build_plan has not noted is found out by a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from dtk_launch.config import Settings, env_name
from dtk_launch.options import LaunchOptions, SubmitOptions
from dtk_launch.plan import Decision, LaunchPlan
from dtk_launch.torchrun import flags

_Causes = dict[str, tuple[tuple[str, ...], str]]

# variable -> the decision that it follows from, the first that there is, and why it is set
_VARIABLES: _Causes = {
    "DTK_RUN_DIR": (("run_dir",), "tells the ranks"),
    "DTK_RUN_NAME": (("name",), "tells the ranks"),
    "DTK_STRATEGY": (("strategy",), "tells the ranks"),
    "DTK_DEVICE": (("device",), "tells the ranks"),
    "PYTHONUNBUFFERED": ((), "a line is seen when it is printed"),
}

# flag of torchrun -> the same
_FLAGS: _Causes = {
    "--standalone": (("rendezvous",), ""),
    "--nproc-per-node": (("nproc",), ""),
    "--max-restarts": (("max_restarts",), ""),
    "--signals-to-handle": ((), "dtk tells the ranks itself, and torchrun by SIGURG to wait for them"),
    "--shutdown-timeout": (("grace",), ""),
    "--nnodes": (("nodes",), ""),
    "--rdzv-backend": ((), "works on every cluster, and without a port on each node"),
    "--rdzv-endpoint": (("rendezvous",), ""),
    "--rdzv-id": (("rendezvous",), "no other job can join"),
    "--rdzv-conf": (("is_host", "rendezvous"), "torchrun may not know its own name; the rest is for a late head"),
    "--local-addr": (("local_addr", "node_rank"), "how the other nodes reach this one"),
}
_ALONE: _Causes = {"--local-addr": (("local_addr",), "")}
_BY_HAND: _Causes = {"--rdzv-id": (("name",), "the same on every node")}


def complete(plan: LaunchPlan, settings: Settings[LaunchOptions], environ: Mapping[str, str]) -> LaunchPlan:
    """The plan with a decision for every option, variable and flag, and for each DTK_* that it does not follow."""
    noted = {decision.key: decision for decision in plan.decisions}
    more = [*_options(settings, noted), *_follow(plan.env, _VARIABLES, noted)]
    table = _FLAGS | (_BY_HAND if settings.options.rdzv else {}) | (_ALONE if plan.topology.nodes == 1 else {})
    more += _follow(((flag, value or "") for flag, value in flags(plan)), table, noted)
    more += _strays(environ, settings, {name for name, _ in plan.env})
    return replace(plan, decisions=(*plan.decisions, *more))


def _options(settings: Settings[LaunchOptions], noted: Mapping[str, Decision]) -> Iterator[Decision]:
    for f in fields(settings.options):
        value = getattr(settings.options, f.name)
        if f.name not in noted and not (f.name == "env" and value):  # each variable has a row of its own
            yield Decision(f.name, _shown(value), settings.sources[f.name])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _follow(values: Any, table: _Causes, noted: Mapping[str, Decision]) -> list[Decision]:
    rows = []
    for name, value in values:
        if name in table and name not in noted and f"env {name}" not in noted:
            causes, why = table[name]
            cause = next((noted[key] for key in causes if key in noted), Decision("", "", "built in"))
            rows.append(Decision(name, value, cause.source, why or f"{cause.key} above"))
    return rows


def _strays(environ: Mapping[str, str], settings: Settings[LaunchOptions], emitted: set[str]) -> Iterator[Decision]:
    """A DTK_* in the shell that lost, that only other commands read, or that this program does not know."""
    ours = {env_name(f.name): f.name for f in fields(settings.options)}
    others = {env_name(f.name) for f in fields(SubmitOptions)} - set(ours)
    for name, value in sorted(environ.items()):
        if not name.startswith("DTK_") or (name not in ours and name in emitted):
            continue
        source = settings.sources[ours[name]] if name in ours else ""
        if source == f"environment {name}":
            continue
        if name in ours:
            why = f"not taken: {ours[name]} is from {source}"
        else:
            why = "read by dtk submit alone" if name in others else "no option of dtk: handed to the ranks as it is"
        yield Decision(f"shell {name}", value, f"environment {name}", why)
