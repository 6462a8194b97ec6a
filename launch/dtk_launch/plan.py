"""Options + facts -> one frozen LaunchPlan. `build_plan` is pure: what a dry run prints is what a run executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.binding import decide_binding
from dtk_launch.config import Settings
from dtk_launch.cpus import Shares, format_shares
from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.grace import Stop, decide_stop
from dtk_launch.hanging import Hang, decide_hang
from dtk_launch.interop import decide_variables
from dtk_launch.options import ONE_PROCESS, LaunchOptions
from dtk_launch.ranklist import parse_ranks
from dtk_launch.rendezvous import Topology, decide_topology, named
from dtk_launch.tuning import check_tuning
from dtk_launch.values import (
    check_choices,
    check_threads,
    check_topology,
    parse_env,
    parse_nproc,
    run_folder,
    run_name,
    version_of,
)

OLDEST_TORCH = (2, 10)


@dataclass(frozen=True)
class Decision:
    """One value of the plan: where it came from (flag, variable, file, default, observed) and why it is this one."""

    key: str
    value: str
    source: str
    why: str = ""


@dataclass(frozen=True)
class Target:
    """What every rank runs."""

    script: str
    args: tuple[str, ...]
    module: bool


@dataclass(frozen=True)
class Resources:
    """What each rank may use. `omp_threads` is None when the user has set OMP_NUM_THREADS; no `cpus`: not bound."""

    device: str
    omp_threads: int | None
    cpus: Shares = ()


@dataclass(frozen=True)
class Restart:
    """How often torchrun starts all ranks again after a failure."""

    max_restarts: int


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that `dtk launch` is going to do. `env` is what the ranks get in addition to the environment."""

    target: Target
    topology: Topology
    resources: Resources
    restart: Restart
    stop: Stop
    strategy: str
    name: str
    run_dir: Path
    torchrun: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    hang: Hang
    quiet_ranks: str = ""
    """Whose output stays in its files (ranklist.py)."""


class _Decisions(list[Decision]):
    """The decisions so far. Local to one build_plan."""

    def note(self, key: str, value: object, source: str, why: str = "") -> None:
        """Add a decision; `source` is where its value is from, `why` the reason, in words."""
        self.append(Decision(key, str(value), source, why))


GLOO = "GLOO_SOCKET_IFNAME"
"""The interface at which gloo listens. Its own choice: that of the address which the host's name has."""
UNSHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Gives each restart a store of its own. In torchrun's default, one store serves all attempts without a prefix, and
restarted ranks hang or fail on the dead ranks' addresses: https://github.com/pytorch/pytorch/issues/135712"""


def build_plan(settings: Settings[LaunchOptions], facts: HostFacts) -> LaunchPlan:
    """Decide everything, or raise PlanError with what was set, what it conflicts with and what to do."""
    options, sources = settings.options, settings.sources
    decisions = _Decisions()
    check_choices(options, sources)
    check_tuning(options, sources)
    _check_torch(facts, decisions)
    topology = decide_topology(options, sources, facts.allocation, facts.meeting, decisions.note, facts.unnamed)
    nproc = _decide_nproc(options, sources, facts, decisions)
    check_topology(options, topology.nodes, nproc)
    decisions.note("device", options.device, sources["device"], f"{facts.gpus.number}: {facts.gpus.why}")
    decisions.note("strategy", options.strategy, sources["strategy"])
    if options.max_restarts < 0:
        raise PlanError(f"--max-restarts={options.max_restarts} ({sources['max_restarts']}): pass 0 or more")
    decisions.note("max_restarts", options.max_restarts, sources["max_restarts"])
    hang = decide_hang(options, sources, decisions.note)
    _decide_quiet(options, sources, topology.nodes * nproc, decisions)
    stop = decide_stop(options, sources, facts.torch_version or "", topology.nodes, decisions.note)
    name = _decide_name(options, sources, decisions)
    run_dir = _decide_run_dir(options, sources, name, facts, decisions)
    topology = named(topology, name, nproc)
    resources = _decide_cpus(options, sources, nproc, facts, decisions)
    nodes = None if topology.elastic else topology.nodes
    variables, notes = decide_variables(options, sources, nodes, nproc, facts)
    for note in notes:
        decisions.note(*note)
    variables = {**variables, **_decide_gloo(facts, topology.nodes, decisions)}
    plan_env = _rank_env(options, name, run_dir, resources, facts, variables)
    if UNSHARED_STORE in dict(plan_env):
        decisions.note(UNSHARED_STORE, "1", "max_restarts", "restarted ranks would read the old ranks' addresses")
    for key, value in parse_env(options.env):
        if key == "OMP_NUM_THREADS":
            check_threads(value, "--env")
        decisions[:] = [d for d in decisions if d.key not in (key, f"env {key}")]  # it wins
        decisions.note(f"env {key}", value, sources.get(f"env {key}", sources["env"]))
    return LaunchPlan(
        target=Target(options.script, options.args, options.module),
        topology=topology,
        resources=resources,
        restart=Restart(options.max_restarts),
        stop=stop,
        strategy=options.strategy,
        name=name,
        run_dir=run_dir,
        torchrun=facts.torchrun,
        env=plan_env,
        decisions=tuple(decisions),
        quiet_ranks=options.quiet_ranks,
        hang=hang,
    )


def check_torch(facts: HostFacts) -> str:
    """The version of torch that is installed. Raises PlanError without one that dtk can use."""
    wanted = ".".join(map(str, OLDEST_TORCH))
    if facts.torch_version is None:
        raise PlanError(
            f"torch is not installed for the Python of dtk ({facts.dtk[0]}); pip install 'torch>={wanted}' there"
        )
    if version_of(facts.torch_version) < OLDEST_TORCH:
        raise PlanError(
            f"torch {facts.torch_version} is installed, dtk needs {wanted} or newer; pip install 'torch>={wanted}'"
        )
    return facts.torch_version


def _check_torch(facts: HostFacts, decisions: _Decisions) -> None:
    decisions.note("torch", check_torch(facts), "observed", "package metadata; torch itself is not imported")
    decisions.note("torchrun", " ".join(facts.torchrun), "observed", "beside the Python that runs dtk")


def _decide_nproc(options: LaunchOptions, sources: Mapping[str, str], facts: HostFacts, decisions: _Decisions) -> int:
    gpus, cores, asked = facts.gpus, facts.cores, options.nproc
    use_gpus = options.device != "cpu" and gpus.number > 0
    if asked == "auto":
        nproc = gpus.number if use_gpus and options.strategy not in ONE_PROCESS else 1
        why = _auto_reason(options, facts, use_gpus)
    elif asked == "gpu":
        if not use_gpus:
            reason = "--device cpu was given" if options.device == "cpu" else gpus.why
            raise PlanError(f"--nproc gpu, but there is no GPU to use ({reason}); pass --nproc N or --nproc cpu")
        nproc, why = gpus.number, f"one rank per GPU: {gpus.number} ({gpus.why})"
    elif asked == "cpu":
        nproc, why = cores.number, f"one rank per core: {cores.number} ({cores.why})"
    else:
        nproc, why = parse_nproc(asked), "as asked"
    if options.device == "cuda" and gpus.number == 0:
        raise PlanError(f"--device cuda, but there is no GPU to use ({gpus.why}); pass --device cpu")
    if use_gpus and nproc > gpus.number:
        raise PlanError(
            f"--nproc={asked} asks for {nproc} ranks, but there are {gpus.number} GPUs ({gpus.why}); "
            f"pass --nproc {gpus.number}, or --device cpu to compute on the cores"
        )
    decisions.note("nproc", nproc, sources["nproc"], why)
    return nproc


def _auto_reason(options: LaunchOptions, facts: HostFacts, use_gpus: bool) -> str:
    if options.strategy in ONE_PROCESS:
        return f"auto: strategy {options.strategy} is one process"
    if use_gpus:
        return f"auto: one rank per GPU, {facts.gpus.number} ({facts.gpus.why})"
    reason = "device cpu" if options.device == "cpu" else f"no GPU ({facts.gpus.why})"
    return f"auto: {reason}, so one rank with all {facts.cores.number} cores; pass --nproc N or --nproc cpu for more"


def _decide_quiet(options: LaunchOptions, sources: Mapping[str, str], ranks: int, decisions: _Decisions) -> None:
    parse_ranks(options.quiet_ranks, "--quiet-ranks", ranks)
    if options.quiet_ranks:
        why = "their output goes to ranks/<rank>.log and .err alone"
        decisions.note("quiet_ranks", options.quiet_ranks, sources["quiet_ranks"], why)


def _decide_name(options: LaunchOptions, sources: Mapping[str, str], decisions: _Decisions) -> str:
    name = run_name(options)
    decisions.note(
        "name", name, sources["name"], "" if options.name else "from the script: the same script resumes the same run"
    )
    return name


def _decide_run_dir(
    options: LaunchOptions, sources: Mapping[str, str], name: str, facts: HostFacts, decisions: _Decisions
) -> Path:
    run_dir = run_folder(options, name, facts.cwd)
    decisions.note("run_dir", run_dir, sources["run_dir"])
    return run_dir


def _decide_cpus(
    options: LaunchOptions, sources: Mapping[str, str], nproc: int, facts: HostFacts, decisions: _Decisions
) -> Resources:
    binding = decide_binding(options.cpu_bind, nproc, facts, dict(parse_env(options.env)))
    decisions.note(
        "cpu_bind", options.cpu_bind, sources["cpu_bind"], "" if binding.shares else f"not bound: {binding.why}"
    )
    if binding.shares:
        decisions.note("DTK_CPUS", format_shares(binding.shares), "observed", binding.why)
    preset = dict(facts.environ).get("OMP_NUM_THREADS")
    if preset:  # empty, it would be ignored by OpenMP and respected by torchrun: all cores for each rank
        check_threads(preset, "environment OMP_NUM_THREADS")
        decisions.note("OMP_NUM_THREADS", preset, "environment OMP_NUM_THREADS", "left as it is set")
        return Resources(options.device, None, binding.shares)
    decisions.note("OMP_NUM_THREADS", binding.threads, "observed", binding.threads_why)
    return Resources(options.device, binding.threads, binding.shares)


def _decide_gloo(facts: HostFacts, nodes: int, decisions: _Decisions) -> dict[str, str]:
    if nodes == 1 or not facts.gloo_interface or GLOO in dict(facts.environ):
        return {}
    why = "the name of this host leads to no address that others reach"
    decisions.note(GLOO, facts.gloo_interface, "observed", why)
    return {GLOO: facts.gloo_interface}


def _rank_env(
    options: LaunchOptions,
    name: str,
    run_dir: Path,
    resources: Resources,
    facts: HostFacts,
    variables: Mapping[str, str],
) -> tuple[tuple[str, str], ...]:
    """The assignments before torchrun, in a fixed order; --env comes last and wins."""
    env: dict[str, str] = {}
    if resources.omp_threads is not None:
        env["OMP_NUM_THREADS"] = str(resources.omp_threads)
    if resources.cpus:
        env["DTK_CPUS"] = format_shares(resources.cpus)
    if "PYTHONUNBUFFERED" not in dict(facts.environ):
        env["PYTHONUNBUFFERED"] = "1"
    if options.max_restarts > 0 and UNSHARED_STORE not in dict(facts.environ):
        env[UNSHARED_STORE] = "1"
    env |= {
        "DTK_RUN_DIR": str(run_dir),
        "DTK_RUN_NAME": name,
        "DTK_STRATEGY": options.strategy,
        "DTK_DEVICE": options.device,
    }
    env |= variables
    env |= dict(parse_env(options.env))
    return tuple(env.items())
