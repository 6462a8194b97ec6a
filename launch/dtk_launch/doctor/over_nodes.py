"""The nodes of a SLURM allocation, each examined by itself through srun, and then together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from dtk_launch.allocation import expand
from dtk_launch.asking import plain
from dtk_launch.doctor.node import NodeFacts, Order, leave_mark, read, read_unseen
from dtk_launch.errors import PlanError

_MEETING = 20.0  # seconds in which the nodes have to reach the first, at most
_START = 120.0  # and until each has looked at itself: nvidia-smi and slow file systems
_SHORT = 60.0
_END = 20.0  # for srun to end a step


def nodes_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes of the allocation that this process may use, () in none, and in a step that has several of them.

    An interactive step, on one node, stands for its allocation. Raises PlanError.
    """
    listed = environ.get("SLURM_JOB_NODELIST", "")
    if not environ.get("SLURM_JOB_ID") or not listed:
        return ()
    step = environ.get("SLURM_STEP_NODELIST", "")
    if step and len(expand(step)) > 1:
        return ()
    try:
        return expand(listed)
    except PlanError as error:
        raise PlanError(str(error).replace("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")) from None


def others_of(environ: Mapping[str, str], host: str) -> tuple[str, ...]:
    """The nodes of the allocation if they have to be asked by srun; () where the only one is this machine, `host`.

    In a job SLURM says which node this is; salloc leaves its shell on the login host. Raises PlanError.
    """
    nodes = nodes_of(environ)
    here = environ.get("SLURMD_NODENAME") or host
    alone = len(nodes) == 1 and nodes[0].partition(".")[0].lower() == here.partition(".")[0].lower()
    return () if alone else nodes


def srun_words(environ: Mapping[str, str], nodes: int, folder: Path | None = None) -> tuple[str, ...]:
    """srun and its options: one task on each node of the allocation, beside what runs there already.

    With `folder` they work there together, and end together where one fails.
    """
    given = environ.get("SLURM_CPUS_PER_TASK", "")
    cpus = (f"--cpus-per-task={given}",) if given else ()  # 22.05 to 23.11 do not hand it on, 24 refuses another
    together = (f"--chdir={folder}", "--kill-on-bad-exit=1") if folder is not None else ("--kill-on-bad-exit=0",)
    return (
        *("srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL"),
        *(*cpus, *together),
    )


def python_words() -> tuple[str, ...]:
    """This Python, with nothing of the current folder on its path where it can be told so."""
    return (sys.executable, *(("-P",) if sys.version_info >= (3, 11) else ()))


def for_srun(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without those by which the step that this is would shape another."""
    keep = plain(environ)
    shaping = ("SLURM_STEP", "SLURM_NTASKS", "SLURM_TASKS", "SLURM_NPROCS", "SLURM_DISTRIBUTION", "SLURM_CPU_BIND")
    return {name: value for name, value in keep.items() if not name.startswith(shaping)}


class Nodes:
    """The nodes of one allocation, and the folder that they should share."""

    def __init__(
        self, nodes: Sequence[str], folder: Path, shown: Path, environ: Mapping[str, str], patience: float
    ) -> None:
        self.nodes, self._folder, self._shown = tuple(nodes), folder, shown
        self._environ, self._meeting = environ, min(_MEETING, patience)

    def look(self, ask_torch: bool) -> tuple[dict[str, NodeFacts], str]:
        """Node -> its facts, of those that answered, and what srun said."""
        order = asdict(Order(str(self._folder), str(self._shown), ask_torch, self._meeting))
        out, err = self._ask("look", order, _START + self._meeting)
        return read(out), err

    def unseen(self) -> dict[str, tuple[str, ...]]:
        """Node -> those of whose files it sees nothing; among them this host, if it is none of the nodes."""
        host = os.uname().nodename.partition(".")[0]
        leave_mark(self._folder, host)
        names = tuple(dict.fromkeys((*self.nodes, host)))
        out, _ = self._ask("see", {"folder": str(self._folder), "nodes": names}, _SHORT)
        found = read_unseen(out)
        return {node: found[node] for node in self.nodes if node in found}

    def leave(self) -> None:
        """Remove the folders of nodes that have one of their own."""
        self._ask("leave", {"folder": str(self._folder)}, _SHORT)

    def _ask(self, verb: str, order: Mapping[str, object], patience: float) -> tuple[str, str]:
        """What the nodes print, and the last line that srun said."""
        module = (*python_words(), "-m", "dtk_launch.doctor.node", verb, json.dumps(order))
        command = (*srun_words(self._environ, len(self.nodes)), *module)
        try:
            child = subprocess.Popen(
                command, env=for_srun(self._environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise PlanError(
                "SLURM_JOB_ID is set, and there is no srun on PATH; run dtk doctor on a node of the job, or unset it"
            ) from None
        try:
            out, err = child.communicate(timeout=patience)
        except BaseException as stopped:
            child.terminate()  # srun ends its step
            try:
                out, err = child.communicate(timeout=_END)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                out, err = child.communicate()
            if not isinstance(stopped, subprocess.TimeoutExpired):
                raise
            err += f"no answer within {patience:g} seconds"
        lines = [line for line in err.splitlines() if line.strip()]
        told = [line for line in lines if "rror" in line] or lines
        return out, told[0] if told else ""
