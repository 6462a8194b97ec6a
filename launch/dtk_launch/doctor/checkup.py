"""One examination from its options to its findings: here, or on all nodes of the allocation."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from dtk_launch.doctor import allreduce, rank
from dtk_launch.doctor.asked import ask_torch
from dtk_launch.doctor.findings import Finding
from dtk_launch.doctor.judging import Examined, cannot_meet, judge, ranks_of, with_torch
from dtk_launch.doctor.node import NodeFacts, look
from dtk_launch.doctor.over_nodes import Nodes, for_srun, others_of, python_words, srun_words
from dtk_launch.doctor.pet import without_refused
from dtk_launch.doctor.place import Place, place
from dtk_launch.doctor.variables import probe

_OF_A_STEP = ("SLURM_STEP_NODELIST", "SLURM_NODEID")


@dataclass(frozen=True)
class CheckupOptions:
    """What `dtk doctor` was asked. `nproc` None: by the GPUs; `timeout`: seconds for the all-reduce."""

    run_dir: Path
    nproc: int | None
    all_reduce: bool
    timeout: float


def examine(
    options: CheckupOptions, environ: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[Examined, list[Finding]]:
    """Examine, and judge. `tell` is told what takes time. Raises PlanError."""
    nodes = others_of(environ, os.uname().nodename)
    with place(options.run_dir) as where:
        around = (where, environ, tell)
        seen = _over_nodes(options, nodes, *around) if nodes else _here(options, *around)
    if where.error:
        seen = replace(seen, facts={node: _unwritable(one, where.error) for node, one in seen.facts.items()})
    seen = replace(seen, facts=with_torch(seen), variables=probe(environ))
    return seen, judge(seen)


def _unwritable(one: NodeFacts, error: str) -> NodeFacts:
    return replace(one, filesystem=replace(one.filesystem, error=error))


def _here(options: CheckupOptions, where: Place, environ: Mapping[str, str], tell: Callable[[str], None]) -> Examined:
    node = os.uname().nodename
    facts = {node: look(node, where.folder, options.run_dir, not options.all_reduce)}
    nproc = ranks_of(facts, options.nproc)
    seen = Examined((node,), facts, str(options.run_dir), nproc, options.nproc)
    if not options.all_reduce:
        return replace(seen, why_not="--no-run")
    if not facts[node].versions.torch:
        return replace(seen, why_not="there is no torch")
    tell(f"all-reduce over {nproc} rank{'s' * (nproc > 1)} ...")
    kept = {name: value for name, value in environ.items() if name not in _OF_A_STEP}
    command = (*python_words(), *_launch(where.folder, nproc, options.timeout))
    own = without_refused(_for_ranks(kept, where), 1, nproc)
    said = allreduce.run(command, where.folder, own, options.timeout, False)
    if allreduce.tells_nothing_of_torch(said):
        asked = replace(facts[node].versions, asked=ask_torch())
        seen = replace(seen, facts={node: replace(facts[node], versions=asked)})
    return replace(seen, said=said)


def _over_nodes(
    options: CheckupOptions,
    nodes: tuple[str, ...],
    where: Place,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
) -> Examined:
    group = Nodes(nodes, where.folder, options.run_dir, environ, options.timeout)
    tell(f"looking at {_many(nodes)} ...")
    facts, said = group.look(not options.all_reduce)
    nproc = ranks_of(facts, options.nproc)
    seen = Examined(nodes, facts, str(options.run_dir), nproc, options.nproc, srun_words=said)
    seen = replace(seen, unseen=group.unseen() if facts else {})
    try:
        why_not = cannot_meet(seen) if options.all_reduce else "--no-run"
        if why_not:
            return replace(seen, why_not=why_not)
        tell(f"all-reduce over {_many(nodes)} x {nproc} ranks ...")
        command = (
            *srun_words(environ, len(nodes), where.folder), *python_words(),
            *_launch(where.folder, nproc, options.timeout),
        )  # fmt: skip
        own = without_refused(_for_ranks(for_srun(environ), where), len(nodes), nproc)
        ranks = allreduce.run(command, where.folder, own, options.timeout, True)
        if allreduce.tells_nothing_of_torch(ranks):
            again, _ = group.look(True)
            seen = replace(seen, facts={node: _asked(one, again.get(node)) for node, one in facts.items()})
        return replace(seen, said=ranks)
    finally:
        if any(seen.unseen.values()):
            group.leave()


def _asked(one: NodeFacts, again: NodeFacts | None) -> NodeFacts:
    return one if again is None else replace(one, versions=again.versions)


def _many(nodes: tuple[str, ...]) -> str:
    return f"{len(nodes)} nodes" if len(nodes) > 1 else nodes[0]


def _launch(folder: Path, nproc: int, timeout: float) -> tuple[str, ...]:
    """The words after Python: the launch of a node's ranks, of which each waits for half of the time.

    On the CPU device GPUs are seen, but not counted.
    """
    words = ("-m", "dtk_launch", "launch", "--nproc", str(nproc), "--device", "cpu", "--name", "doctor")
    return (*words, "--run-dir", str(folder / allreduce.RUN), str(Path(rank.__file__)), f"{timeout / 2:g}")


def _for_ranks(environ: Mapping[str, str], where: Place) -> dict[str, str]:
    """The environment of a launch without options of dtk in it; it is no run of the project around the folder."""
    kept = {name: value for name, value in environ.items() if not name.startswith("DTK_")}
    return kept | {"GIT_CEILING_DIRECTORIES": str(where.folder.parent)}


@contextlib.contextmanager
def ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Have each of these leave by SystemExit, so that what was started is ended and what was made is removed."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(line: str) -> None:
    """Tell somebody at a terminal."""
    if sys.stderr.isatty():
        print(f"dtk: {line}", file=sys.stderr)
