"""Python, torch, CUDA and NCCL: do they fit each other, the driver and the other nodes?"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from dtk_launch.doctor.asked import Torch
from dtk_launch.doctor.findings import Finding, differing
from dtk_launch.doctor.specifiers import allows
from dtk_launch.facts import installed_version, installed_versions
from dtk_launch.plan import OLDEST_TORCH
from dtk_launch.values import version_of

CHECK = "versions"
_NCCL_PACKAGES = ("nvidia_nccl_cu13", "nvidia_nccl_cu12", "nvidia_nccl_cu11")


@dataclass(frozen=True)
class Versions:
    """What is installed. '' where something is not. `asked` is None where torch itself was not imported."""

    python: str
    executable: str
    dtk: str
    torch: str
    cuda: str
    nccl: str
    """Of the package beside torch."""
    asked: Torch | None = None
    dtk_python: str = ""
    """Requires-Python of the packages' metadata, as `>=3.10`; '' where it is not known."""
    torch_python: str = ""
    torch_file: str = ""
    """What `import torch` would run."""


def probe() -> Versions:
    """Read the versions from the packages' files; torch is not imported."""
    nccl, source = installed_versions(_NCCL_PACKAGES), _torch_file()
    return Versions(
        python=sys.version.split()[0],
        executable=sys.executable,
        dtk=installed_version("dist_toolkit") or "",
        torch=installed_version("torch") or "",
        cuda=_built_for(source) if source else "",
        nccl=next(iter(nccl.values()), ""),
        dtk_python=_requires_python("dist_toolkit"),
        torch_python=_requires_python("torch"),
        torch_file=str(source) if source else "",
    )


def _requires_python(distribution: str) -> str:
    try:
        found = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return ""
    return found["Requires-Python"] if "Requires-Python" in found else ""  # noqa: SIM401  # it has no get


def _torch_file() -> Path | None:
    spec = find_spec("torch")  # of a package at the top: imports nothing
    return Path(spec.origin) if spec and spec.origin else None


def _built_for(source: Path) -> str:
    """The `cuda` of torch/version.py."""
    try:
        tree = ast.parse((source.parent / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return ""
    for line in tree.body:
        target = (
            line.target
            if isinstance(line, ast.AnnAssign)
            else line.targets[0]
            if isinstance(line, ast.Assign)
            else None
        )
        value = getattr(line, "value", None)
        if isinstance(target, ast.Name) and target.id == "cuda" and isinstance(value, ast.Constant):
            return str(value.value or "")
    return ""


def judge(facts: Versions, driver_cuda: str, gpus: int) -> Iterator[Finding]:
    """`driver_cuda`: the newest CUDA that the driver can, '' where it does not say; `gpus`: how many there are."""
    yield from (found := [*_judge_python(facts), *_judge_torch(facts, driver_cuda, gpus)])
    if not found:
        yield Finding(CHECK, "ok", summary(facts))


def _judge_python(facts: Versions) -> Iterator[Finding]:
    """pip obeys a package's Requires-Python; a copy, PYTHONPATH or --ignore-requires-python does not."""
    for name, version, needs in (
        ("dist-toolkit", facts.dtk, facts.dtk_python), ("torch", facts.torch, facts.torch_python),
    ):  # fmt: skip
        if not allows(needs, facts.python):
            yield Finding(
                CHECK, "problem", f"Python is {facts.python}, and {name} {version} needs {needs}",
                "it is neither made nor tested for this Python, and may fail at any line",
                f"a Python that fits in place of {facts.executable}, or another version of {name}",
            )  # fmt: skip


def _judge_torch(facts: Versions, driver_cuda: str, gpus: int) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_TORCH))
    if not facts.torch or version_of(facts.torch) < OLDEST_TORCH:
        what = f"torch {facts.torch} is installed" if facts.torch else f"torch is not installed for {facts.executable}"
        yield Finding(CHECK, "problem", what, f"dtk needs {oldest} or newer", f"pip install 'torch>={oldest}'")
        return
    asked = facts.asked or Torch()
    if asked.error:
        yield Finding(
            CHECK, "problem", f"torch {facts.torch} cannot be imported: {asked.error}", "no rank starts without it",
            f"see what {facts.executable} -c 'import torch' says{_imported_from(facts)}; a library that is missing or "
            "of another version is often in LD_LIBRARY_PATH",
        )  # fmt: skip
        return
    if gpus:
        yield from _judge_cuda(facts, driver_cuda, gpus)
    yield from _judge_nccl(facts, asked)


def _imported_from(facts: Versions) -> str:
    return f" (it is imported from {facts.torch_file}: does PYTHONPATH hide another?)" if facts.torch_file else ""


def summary(facts: Versions) -> str:
    """All versions, in a line."""
    nccl = (facts.asked.nccl if facts.asked else "") or facts.nccl
    cuda = f" (CUDA {facts.cuda}, NCCL {nccl or 'none'})" if facts.cuda else " (no CUDA)"
    return f"Python {facts.python}, torch {facts.torch}{cuda}, dtk {facts.dtk or 'of a checkout'}"


def _judge_cuda(facts: Versions, driver_cuda: str, gpus: int) -> Iterator[Finding]:
    asked, many = facts.asked, f"{gpus} GPU{'s' * (gpus > 1)}"
    if not facts.cuda:
        yield Finding(
            CHECK, "warning", f"torch {facts.torch} is built without CUDA, and there are {many}",
            "every rank would compute on the cores", "install the build for your driver: https://pytorch.org/get-started",
        )  # fmt: skip
        return
    able = asked.cuda_available if asked else False
    if driver_cuda and _major(driver_cuda) < _major(facts.cuda) and not able:
        yield Finding(
            CHECK, "problem", f"the driver can CUDA {driver_cuda}, torch {facts.torch} is built for {facts.cuda}",
            "torch sees no GPU with a driver that is older than its CUDA",
            f"a newer driver, or torch built for CUDA {_major(driver_cuda)}.x: https://pytorch.org/get-started",
        )  # fmt: skip
    elif asked and not able:
        yield Finding(
            CHECK, "problem", f"there are {many}, and torch.cuda.is_available() is false",
            "every rank would compute on the cores, or fail with --device cuda",
            "see what `nvidia-smi` says, and what CUDA_VISIBLE_DEVICES hides; in a container, start it with its GPUs "
            "(--gpus all, --nv)",
        )  # fmt: skip
    for number, capability in enumerate(asked.capabilities if asked else ()):
        if asked and asked.architectures and not runs_on(capability, asked.architectures):
            yield Finding(
                CHECK, "problem", f"GPU {number} is sm_{capability.replace('.', '')}, and torch {facts.torch} has code "
                f"for {', '.join(asked.architectures)}",
                "the first kernel fails: no kernel image is available for execution on the device",
                "install a build of torch with code for this GPU: https://pytorch.org/get-started",
            )  # fmt: skip


def _judge_nccl(facts: Versions, asked: Torch) -> Iterator[Finding]:
    if facts.nccl and asked.nccl and facts.nccl.split(".")[:3] != asked.nccl.split(".")[:3]:
        yield Finding(
            CHECK, "warning", f"torch has loaded NCCL {asked.nccl}, and the package beside it is {facts.nccl}",
            "torch was tested with its own; two nodes with different ones cannot talk",
            "take the other libnccl.so out of LD_LIBRARY_PATH and LD_PRELOAD",
        )  # fmt: skip


def runs_on(capability: str, architectures: tuple[str, ...]) -> bool:
    """Whether code for these architectures runs on a GPU of this compute capability (CUDA's binary compatibility)."""
    major, minor = (int(part) for part in capability.split("."))
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdecimal():
            return True  # of a kind that is not known here
        has = int(digits[:-1]), int(digits[-1])
        if (kind == "sm" and has[0] == major and has[1] <= minor) or (kind == "compute" and has <= (major, minor)):
            return True
    return False


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def compare(by_node: Mapping[str, Versions]) -> Iterator[Finding]:
    """What differs among the nodes of one run."""
    for name, level, why in (
        ("torch", "problem", "ranks of different versions of torch can hang or fail in their first collective"),
        ("cuda", "problem", "NCCL and the kernels of different builds do not fit each other"),
        ("nccl", "problem", "NCCL talks to the same version alone"),
        ("python", "warning", "objects that are pickled on one node may not load on another"),
        ("dtk", "warning", "the launcher and the runtime of one run should be of one version"),
    ):
        if found := differing((node, _of(facts, name)) for node, facts in by_node.items()):
            shown = {"python": "Python", "cuda": "torch's CUDA", "nccl": "NCCL"}.get(name, name)
            fix = "use one environment on all nodes: on the shared file system, or one container image"
            yield Finding(CHECK, level, f"{shown} differs: {found}", why, fix)


def _of(facts: Versions, name: str) -> str:
    if name == "nccl" and facts.asked and facts.asked.nccl:
        return facts.asked.nccl
    return str(getattr(facts, name))
