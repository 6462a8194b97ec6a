"""Whether the ranks are bound to CPUs, and how many threads each starts. Pure: options + facts -> Binding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dtk_launch.cpus import Shares, share_out
from dtk_launch.facts import HostFacts

_AFFINITIES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
"""What binds threads by itself: its user has chosen."""


@dataclass(frozen=True)
class Binding:
    """`shares` is empty where nothing is bound; `why` says why, or how. `threads` is for each rank."""

    shares: Shares
    why: str
    threads: int
    threads_why: str


def decide_binding(asked: str, nproc: int, facts: HostFacts, by_hand: Mapping[str, str]) -> Binding:
    """`asked` is --cpu-bind, `by_hand` the variables of --env."""
    environ = {**dict(facts.environ), **by_hand}
    physical = len({cpu.core for cpu in facts.cpus})
    cores = min(facts.cores.number, physical or facts.cores.number)
    kind = "physical cores of " if cores < facts.cores.number else ""
    threads = max(1, cores // nproc)
    said = f"{cores} {kind}{facts.cores.why} / {nproc} ranks; torchrun alone would set 1"
    reason = _reason_against(asked, nproc, facts, environ, physical)
    if reason:
        return Binding((), reason, threads, said)
    shares = share_out(facts.cpus, nproc, facts.gpu_nodes)
    core_of = {cpu.number: cpu.core for cpu in facts.cpus}
    threads = min(len({core_of[cpu] for cpu in share}) for share in shares)
    return Binding(
        shares,
        f"whole cores of the {len(facts.cpus)} CPUs in this process's affinity, in one NUMA node where they fit",
        threads,
        "physical cores that each rank is bound to; torchrun alone would set 1",
    )


def _reason_against(asked: str, nproc: int, facts: HostFacts, environ: Mapping[str, str], physical: int) -> str:
    if asked == "none":
        return "not asked for"
    if nproc == 1:
        return "one rank has all cores"
    if not facts.cpus:
        return "the system does not say which CPUs there are"
    if facts.cores.number < len(facts.cpus):
        return f"only {facts.cores.number} {facts.cores.why}, and not which of {len(facts.cpus)} CPUs"
    if physical < nproc:
        return f"{physical} physical cores are fewer than {nproc} ranks"
    chosen = [name for name in _AFFINITIES if environ.get(name)]
    if chosen:
        return f"{chosen[0]} is set, which binds threads by itself"
    if "none" in environ.get("SLURM_CPU_BIND", "").split(","):
        return "srun --cpu-bind=none was asked for"
    return ""
