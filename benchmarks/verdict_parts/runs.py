"""Runs a scenario under dtk, and reads who failed first: by the ranks' own clocks, by dtk, and by torchrun."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_parts.watch import watching

from .scenarios import Scenario

PROGRAM = Path(__file__).resolve().parent.parent / "_verdict_rank.py"
DTK = (sys.executable, "-m", "dtk_launch")
_ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):\n.*?rank\s*: (\d+)", re.DOTALL)
THREADS = 1
"""OMP_NUM_THREADS of every rank."""
_PATIENCE = 180.0  # seconds, of which a run needs 5
_MEMORY = 1 << 30  # bytes of the cgroup of a run that is to run out of memory


class NotHere(Exception):
    """The machine cannot do this scenario; why."""


def measure(scenario: Scenario) -> dict[str, Any]:
    """Run it. The ranks that failed first: `truth`, `dtk`, and `torchrun`, each of whose agents names one.

    Raises NotHere.
    """
    with tempfile.TemporaryDirectory(prefix="verdict-") as folder, limited(scenario) as group:
        port = _free_port()
        with watching() as seen:
            runs = [_start(scenario, Path(folder), node, port, group) for node in range(scenario.nodes)]
            ends = [_finish(run) for run in runs]
        run_dir = Path(folder) / "run"
        verdict = json.loads((run_dir / "verdict.json").read_text())
        notes = {int(path.stem): path.read_bytes() for path in (run_dir / "truth").glob("*.fault")}
        times = {rank: int.from_bytes(note, sys.byteorder) for rank, note in notes.items() if any(note)}
        words = "".join(path.read_text(errors="replace") for path in sorted(run_dir.glob("launcher*.log")))
        culprit = verdict["culprit"]
        return {
            "kind": "run", "group": scenario.group, "name": scenario.name, "ranks": scenario.nproc * scenario.nodes,
            "truth": min(times, key=times.__getitem__), "dtk": culprit and culprit["rank"],
            "how": culprit and culprit["how"], "torchrun": [int(rank) for rank in _ROOT_CAUSE.findall(words)],
            "exit_codes": [code for code, _ in ends], "threads": THREADS,
            **seen, "said": ends[0][1][-2000:],
        }  # fmt: skip


def right(record: dict[str, Any]) -> tuple[bool, bool]:
    """(dtk, torchrun) named the rank that failed first. Of several agents one has to."""
    return record["dtk"] == record["truth"], record["truth"] in record["torchrun"]


def _start(scenario: Scenario, folder: Path, node: int, port: int, group: Path | None) -> subprocess.Popen[bytes]:
    words = [*DTK, "launch", "--nproc", str(scenario.nproc), "--run-dir", str(folder / "run")]
    if scenario.nodes > 1:
        words += ["--nodes", str(scenario.nodes), "--node-rank", str(node), "--rdzv", f"127.0.0.1:{port}"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_"))}
    enter = None if group is None else lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    return subprocess.Popen(
        [*words, str(PROGRAM), json.dumps(scenario.to_json())], cwd=folder,
        env=clean | {"OMP_NUM_THREADS": str(THREADS)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=enter,
    )  # fmt: skip


def _finish(run: subprocess.Popen[bytes]) -> tuple[int, str]:
    try:
        _, err = run.communicate(timeout=_PATIENCE)
    except BaseException:
        run.terminate()
        run.communicate()
        raise
    return run.returncode, err.decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        for port in range(20000, 32000, 7):
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise NotHere("no port is free below the ephemeral ones")


@contextlib.contextmanager
def limited(scenario: Scenario) -> Iterator[Path | None]:
    """A memory cgroup for a run that is to run out of memory; None for the others. Raises NotHere."""
    if not any(kind == "out of memory" for _, (kind, _) in scenario.faults):
        yield None
        return
    group = memory_group()
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def memory_group() -> Path:
    """A new cgroup with a limit of 1 GiB, below this process's. Raises NotHere."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        version_1 = "memory" in controllers.split(",")
        if not version_1 and controllers:
            continue
        parent = Path("/sys/fs/cgroup" + ("/memory" if version_1 else "") + name)
        group = parent / f"verdict-{os.getpid()}"
        try:
            group.mkdir()
            limit = "memory.limit_in_bytes" if version_1 else "memory.max"
            (group / limit).write_text(str(_MEMORY))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        return group
    raise NotHere("no memory cgroup can be made here (it needs root and cgroups that are writable)")


def keep_failed(folder: Path, record: dict[str, Any]) -> None:
    """Write what a run said whose verdict was wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (re.sub(r"\W+", "-", record["name"]) + ".txt")).write_text(record["said"])


def clear(folder: Path) -> None:
    """Remove what an earlier benchmark kept."""
    shutil.rmtree(folder, ignore_errors=True)
