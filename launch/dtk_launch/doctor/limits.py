"""What the system lets a rank have: files, processes, locked memory, /dev/shm, memory, and threads for its cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.cgroups import memory_limit, tightest
from dtk_launch.doctor.findings import Finding, differing
from dtk_launch.facts import count_cores
from dtk_launch.tables import size

CHECK = "limits"
_UNLIMITED = -1
_FEW_FILES, _VERY_FEW_FILES = 4096, 256
_FEW_PROCESSES = 1024
_SMALL_SHM, _DOCKER_SHM, _FULL_SHM = 1 << 30, 64 << 20, 16 << 20
_LITTLE_MEMORY = 2 << 30  # for a rank
_LITTLE_LOCKED, _MUCH_LOCKED = 1 << 30, 4 << 30  # less than one group of ranks may take, and room for several


@dataclass(frozen=True)
class Limits:
    """Soft and hard limits as getrlimit(2) has them, -1 for none; bytes. None: not known on this system."""

    files: tuple[int, int]
    processes: tuple[int, int]
    locked: tuple[int, int]
    shm: tuple[int, int] | None
    """(size, free) of /dev/shm; zeros where it is missing."""
    memory: int | None
    """Of the machine."""
    memory_limit: int | None
    """Of the tightest cgroup."""
    pids_limit: int | None
    """Of the tightest cgroup."""
    cores: int
    cores_why: str
    omp: str
    """OMP_NUM_THREADS."""


def probe(root: Path = Path("/")) -> Limits:
    """Read the limits of this process. `root` is where /proc, /sys and /dev are found."""
    import resource

    def pair(name: str) -> tuple[int, int]:
        soft, hard = resource.getrlimit(getattr(resource, name))
        return (
            _UNLIMITED if soft == resource.RLIM_INFINITY else soft,
            _UNLIMITED if hard == resource.RLIM_INFINITY else hard,
        )

    cores = count_cores(os.environ, root)
    return Limits(
        files=pair("RLIMIT_NOFILE"), processes=pair("RLIMIT_NPROC"), locked=pair("RLIMIT_MEMLOCK"), shm=_shm(root),
        memory=_memory(root), memory_limit=memory_limit(root), pids_limit=tightest("pids", "pids.max", root),
        cores=cores.number, cores_why=cores.why, omp=os.environ.get("OMP_NUM_THREADS", ""),
    )  # fmt: skip


def _shm(root: Path) -> tuple[int, int] | None:
    try:
        found = os.statvfs(root / "dev/shm")
    except OSError:
        return (0, 0) if sys.platform == "linux" else None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _memory(root: Path) -> int | None:
    try:
        words = (root / "proc/meminfo").read_text().split()
        return int(words[words.index("MemTotal:") + 1]) << 10
    except (OSError, ValueError, IndexError):
        return None


def judge(facts: Limits, nproc: int, gpus: int, infiniband: bool) -> Iterator[Finding]:
    """`nproc`: ranks of this node; `gpus`: that it has; `infiniband`: whether NCCL will use it."""
    found = [*_judge_ulimits(facts, infiniband), *_judge_memory(facts, nproc, gpus)]
    if not found:
        shm = f"/dev/shm {size(facts.shm[0])}" if facts.shm else "no /dev/shm"
        memory = f"memory {size(facts.memory_limit or facts.memory)}"
        found.append(Finding(CHECK, "ok", f"open files {_shown(facts.files[0])}, {shm}, {memory}"))
    yield from found
    yield from judge_threads(facts, nproc)


def _judge_ulimits(facts: Limits, infiniband: bool) -> Iterator[Finding]:
    soft, hard = facts.files
    if 0 <= soft < _FEW_FILES:
        fix = f"ulimit -n {min(hard, 65536) if hard > 0 else 65536} before the launch"
        fix = fix if hard < 0 or hard >= _FEW_FILES else "raise nofile in /etc/security/limits.conf (and for slurmd)"
        level = "problem" if soft < _VERY_FEW_FILES else "warning"
        why = "ranks, loader workers and gloo's connections each take some: Too many open files"
        yield Finding(CHECK, level, f"{soft} open files for a process (ulimit -n)", why, fix)
    for number, where in ((facts.processes[0], "ulimit -u"), (facts.pids_limit, "pids.max of the cgroup")):
        if number is not None and 0 <= number < _FEW_PROCESSES:
            yield Finding(
                CHECK, "warning", f"{number} processes and threads ({where})",
                "torch starts a thread for each core in each rank: Resource temporarily unavailable",
                "raise it (ulimit -u, --pids-limit of the container), or start fewer ranks and loader workers",
            )  # fmt: skip
    if infiniband:
        yield from _judge_locked(facts.locked[0])


def _judge_locked(locked: int) -> Iterator[Finding]:
    """What NCCL registers counts as locked (RLIMIT_MEMLOCK, of a process).

    A communicator has buffers of 4 MiB (NCCL_BUFFSIZE of its user guide), 0.5 and 4.7 MiB (those of the protocols LL
    and LL128, by its source), to send and to receive, for each of up to 32 channels: 0.6 GiB, an estimate. A script of
    several dimensions of ranks has a communicator of each.
    """
    if 0 <= locked < _MUCH_LOCKED:
        grave = locked < _LITTLE_LOCKED
        yield Finding(
            CHECK, "problem" if grave else "warning",
            f"{size(locked)} of locked memory (ulimit -l), and there is InfiniBand",
            "NCCL registers the buffers of each process group: ibv_reg_mr fails, Cannot allocate memory",
            "ulimit -l unlimited; under SLURM in slurmd's service (LimitMEMLOCK=infinity) and "
            "PropagateResourceLimitsExcept=MEMLOCK",
        )  # fmt: skip


def _judge_memory(facts: Limits, nproc: int, gpus: int) -> Iterator[Finding]:
    if facts.shm == (0, 0):
        yield Finding(
            CHECK, "warning", "there is no /dev/shm", "loader workers and NCCL hand data over through it",
            "mount a tmpfs at /dev/shm",
        )  # fmt: skip
    elif facts.shm and (facts.shm[1] < _FULL_SHM or facts.shm[0] < _SMALL_SHM):
        total, free = facts.shm
        grave = free < _FULL_SHM or (total <= _DOCKER_SHM and gpus > 1)
        yield Finding(
            CHECK, "problem" if grave else "warning", f"/dev/shm has {size(total)}, {size(free)} free",
            "loader workers hand batches over through it (Bus error), NCCL its buffers",
            "remove what is left there" if total >= _SMALL_SHM else
            "docker run --shm-size=8g or --ipc=host; in Kubernetes an emptyDir of medium Memory at /dev/shm",
        )  # fmt: skip
    limit = facts.memory_limit
    if limit is not None and limit < _LITTLE_MEMORY * nproc and (facts.memory is None or limit < facts.memory):
        yield Finding(
            CHECK, "warning", f"the cgroup's memory limit is {size(limit)}, for {nproc} ranks",
            "a rank takes 1 to 2 GiB before its model; past the limit the kernel kills one",
            "ask for more: --mem of SLURM, --memory of the container",
        )  # fmt: skip


def judge_threads(facts: Limits, nproc: int) -> Iterator[Finding]:
    """OMP_NUM_THREADS against the ranks and cores of this node."""
    check, cores = "threads", f"{facts.cores} cores ({facts.cores_why})"
    each, ranks = max(1, facts.cores // nproc), f"{nproc} rank{'s' * (nproc > 1)}"
    if nproc > facts.cores:
        yield Finding(
            check, "warning", f"{ranks} on {cores}", "the ranks take turns on the cores, and every step waits for all",
            "fewer ranks (--nproc); under SLURM ask for more with --cpus-per-task",
        )  # fmt: skip
    elif not facts.omp:
        yield Finding(check, "ok", f"OMP_NUM_THREADS is not set: dtk launch sets {each} for {ranks} on {cores}")
    elif not facts.omp.isdecimal() or int(facts.omp) < 1:
        yield Finding(
            check, "problem", f"OMP_NUM_THREADS={facts.omp!r} is no number of threads", "dtk launch refuses it",
            "unset OMP_NUM_THREADS",
        )  # fmt: skip
    elif int(facts.omp) * nproc > facts.cores:
        yield Finding(
            check, "warning", f"OMP_NUM_THREADS={facts.omp} x {ranks} are more than {cores}",
            "the threads take turns on the cores, and every step is several times slower",
            f"unset it, or OMP_NUM_THREADS={each}; under SLURM ask for more with --cpus-per-task",
        )  # fmt: skip
    elif int(facts.omp) < each // 2:
        yield Finding(
            check, "note", f"OMP_NUM_THREADS={facts.omp}, and each of {nproc} ranks could have {each} of {cores}",
            "what runs on the CPU is slower than it could be", "unset OMP_NUM_THREADS",
        )  # fmt: skip
    else:
        yield Finding(check, "ok", f"OMP_NUM_THREADS={facts.omp} x {ranks} on {cores}")


def compare(by_node: Mapping[str, Limits]) -> Iterator[Finding]:
    """Cores that differ among the nodes of one run."""
    if found := differing((node, f"{facts.cores} cores") for node, facts in by_node.items()):
        yield Finding("threads", "note", f"the nodes differ: {found}", "the slowest sets the pace of all ranks")


def _shown(number: int) -> str:
    return "unlimited" if number < 0 else str(number)
