"""What is true of this machine. `HostFacts.probe` alone reads the environment, /proc and other programs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.allocation import Allocation
from dtk_launch.cpus import Cpu, allowed_cpus, read_cpus, read_gpu_nodes
from dtk_launch.errors import PlanError
from dtk_launch.given import whole
from dtk_launch.meeting import Meeting

_FAMILIES = ("DTK_", "PET_", "ACCELERATE_", "FSDP_", "LT_")
_NAMES = {
    "OMP_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHON_EXEC", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "DS_ACCELERATOR",
    "GLOO_SOCKET_IFNAME",
    "PL_DEEPSPEED_CONFIG_PATH", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "SLURM_CPU_BIND",
}  # fmt: skip
"""What a plan may depend on: variables that begin so, and these."""


SMI_FAILED = "nvidia-smi -L failed: "
_PATIENCE = 20.0  # seconds for it
_NO_GPU = ("", "-1", "NoDevFiles", "none", "void")
"""What is written into CUDA_VISIBLE_DEVICES to hide all GPUs."""


@dataclass(frozen=True)
class Count:
    """A number that was observed, and how."""

    number: int
    why: str


@dataclass(frozen=True)
class HostFacts:
    """Observed facts of one node. `environ` is all of the environment that a plan may depend on."""

    cwd: Path
    cores: Count
    gpus: Count
    torch_version: str | None
    torchrun: tuple[str, ...]
    """The words that start torchrun."""
    dtk: tuple[str, ...]
    """The words that start dtk, on any node that shares this file system."""
    environ: tuple[tuple[str, str], ...] = ()
    allocation: Allocation | None = None
    meeting: Meeting | None = None
    """The host of --rdzv, where one was given."""
    gloo_interface: str = ""
    """The interface that gloo has to be told of (reach.py)."""
    unnamed: str = ""
    """Why torchrun would not find this host by its own name (reach.py); looked at on one node alone."""
    cpus: tuple[Cpu, ...] = ()
    """The CPUs in this process's affinity; () where they are not known."""
    gpu_nodes: tuple[int | None, ...] = ()
    """The NUMA node of each visible GPU, where known."""

    @classmethod
    def probe(cls, root: Path = Path("/")) -> HostFacts:
        """Look at this machine. `root` is where its /proc and /sys are found."""
        environ = os.environ
        torch_version = installed_version("torch")
        return cls(
            cwd=Path.cwd(),
            cores=count_cores(environ, root),
            gpus=count_gpus(environ, root, torch_version),
            torch_version=torch_version,
            torchrun=_beside_python("torchrun", "torch.distributed.run"),
            dtk=_beside_python("dtk", "dtk_launch"),
            environ=tuple(sorted((k, v) for k, v in environ.items() if k.startswith(_FAMILIES) or k in _NAMES)),
            allocation=Allocation.from_env(environ),
            cpus=read_cpus(root, allowed_cpus()),
            gpu_nodes=read_gpu_nodes(root, environ),
        )


def _beside_python(program: str, module: str) -> tuple[str, ...]:
    """The program in the folder of this Python (not of another environment on PATH), else `python -m module`."""
    path = Path(sys.executable).parent / program
    return (str(path),) if os.access(path, os.X_OK) else (sys.executable, "-m", module)


def installed_version(distribution: str) -> str | None:
    """Version by package metadata. Reads folder names first: importlib.metadata costs 60 ms to import."""
    for entry in sys.path:
        for info in Path(entry or ".").glob(f"{distribution}-*.dist-info"):
            return info.name[len(distribution) + 1 : -len(".dist-info")]
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Versions of those that are installed, by the names of their metadata folders, each folder read once."""
    wanted = set(distributions)
    found: dict[str, str] = {}
    for entry in sys.path:
        try:
            stems = [path.stem for path in Path(entry or ".").iterdir() if path.suffix == ".dist-info"]
        except OSError:
            continue
        for stem in stems:
            name, _, version = stem.partition("-")
            if name.lower() in wanted:
                found.setdefault(name.lower(), version)
    return {name: found[name] for name in distributions if name in found}


def count_cores(environ: Mapping[str, str], root: Path) -> Count:
    """Cores that this process may use: the smallest of affinity, cgroup quota and what SLURM gave the task."""
    if hasattr(os, "sched_getaffinity"):
        counts = [Count(len(os.sched_getaffinity(0)), "cores in this process's affinity")]
    else:
        counts = [Count(os.cpu_count() or 1, "cores of this machine")]
    quota = _cgroup_quota(root)
    if quota is not None:
        counts.append(Count(quota, "cores in this cgroup's cpu.max"))
    given = environ.get("SLURM_CPUS_PER_TASK", "")
    if whole(given) and int(given) > 0:
        counts.append(Count(int(given), "SLURM_CPUS_PER_TASK"))
    return min(counts, key=lambda count: count.number)


def _cgroup_quota(root: Path) -> int | None:
    """Whole cores of the tightest cgroup v2 quota on the way up from this process's group; None without one."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    group = next((Path(line[3:]) for line in lines if line.startswith("0::/")), None)
    quotas = []
    for folder in (group, *group.parents) if group else ():
        try:
            quota, period = (root / "sys/fs/cgroup" / str(folder).lstrip("/") / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            quotas.append(max(1, int(quota) // int(period)))
    return min(quotas, default=None)


def count_gpus(environ: Mapping[str, str], root: Path, torch_version: str | None) -> Count:
    """NVIDIA GPUs that a rank's torch would see."""
    if torch_version is not None and torch_version.endswith("+cpu"):
        return Count(0, f"torch {torch_version} is built without CUDA")
    present = _gpus_present(root)
    if present.number == 0 or "CUDA_VISIBLE_DEVICES" not in environ:
        return present
    visible = environ["CUDA_VISIBLE_DEVICES"]
    number = 0
    for entry in filter(None, (part.strip() for part in visible.split(","))):
        if not re.match("GPU-|MIG-", entry) and not (whole(entry) and int(entry) < present.number):
            break  # CUDA ignores this entry and all that follow
        number += 1
    if number == 0 and visible.strip() not in _NO_GPU:
        raise PlanError(
            f"CUDA_VISIBLE_DEVICES={visible} names none of the {present.number} GPUs here ({present.why}); "
            f"pass numbers from 0 to {present.number - 1}, or CUDA_VISIBLE_DEVICES= for none"
        )
    return Count(number, f"CUDA_VISIBLE_DEVICES={visible} of {present.number} GPUs")


def _gpus_present(root: Path) -> Count:
    folder = root / "proc/driver/nvidia/gpus"
    if folder.is_dir():
        return Count(len(list(folder.iterdir())), "GPUs in /proc/driver/nvidia/gpus")
    program = shutil.which("nvidia-smi")
    if program is None:
        return Count(0, "no NVIDIA driver and no nvidia-smi")
    import subprocess

    try:
        done = subprocess.run(
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Count(0, f"{SMI_FAILED}no answer within {_PATIENCE:g} seconds")
    except OSError as error:
        return Count(0, f"{SMI_FAILED}{error.strerror}")
    listed = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    if done.returncode != 0 and not listed:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return Count(0, f"{SMI_FAILED}{words[0] if words else f'exit code {done.returncode}'}")
    return Count(listed, "GPUs listed by nvidia-smi -L")
