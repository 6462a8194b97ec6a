"""PET_* of the shell, from which torchrun takes the defaults of its options: what dtk launch says to them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dtk_launch.doctor.findings import Finding
from dtk_launch.rendezvous import Rendezvous, Topology
from dtk_launch.torchrun import as_pet, flags_of, refused_pet

CHECK = "variables"
_OWN = "its own"  # what a job or a node has for itself
_OF_A_JOB = Rendezvous(_OWN, 0, _OWN, False, _OWN)
_OF_EACH = ("PET_RDZV_ENDPOINT", "PET_RDZV_ID", "PET_RDZV_CONF", "PET_LOCAL_ADDR", "PET_NODE_RANK")


def judge(values: Mapping[str, str], nodes: int, nproc: int) -> Iterator[Finding]:
    """`nproc`: ranks on each node of a dtk launch without options of its own."""
    against = list(_refused(values, nodes, nproc))
    for name, what, fix in against:
        if nodes > 1 and name in _OF_EACH:
            what, fix = f"{name}={values[name]} is set, and dtk launch has one for each job or node", f"unset {name}"
        what = what.replace("of this plan", "of a plain dtk launch")
        yield Finding(CHECK, "problem", what, "dtk launch refuses it and starts nothing", fix)
    names = {name for name, *_ in against}
    obeyed = {name: value for name, value in values.items() if name.startswith("PET_") and name not in names}
    if obeyed:
        yield Finding(
            CHECK, "note", " ".join(f"{name}={value}" for name, value in obeyed.items()),
            f"torchrun takes {'it' if len(obeyed) == 1 else 'each'} for its option of that name",
            f"unset {' '.join(obeyed)}, if it is a stray",
        )  # fmt: skip


def without_refused(environ: Mapping[str, str], nodes: int, nproc: int) -> dict[str, str]:
    """The variables without those that dtk launch would refuse: they are told already, and the machine is to be."""
    names = {name for name, *_ in _refused(environ, nodes, nproc)}
    return {name: value for name, value in environ.items() if name not in names}


def _refused(environ: Mapping[str, str], nodes: int, nproc: int) -> Iterator[tuple[str, str, str]]:
    topology = Topology(nodes, nproc) if nodes == 1 else Topology(nodes, nproc, None, _OF_A_JOB)
    emitted = as_pet(topology, flags_of(topology))
    return refused_pet(environ, emitted if nodes == 1 else emitted | {"PET_NODE_RANK": _OWN})
