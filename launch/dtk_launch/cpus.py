"""Which CPUs each rank of a node may use: read from /sys (no numactl), by whole cores. docs/decisions/0017."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Shares = tuple[tuple[int, ...], ...]
"""For each local rank its CPUs."""


@dataclass(frozen=True)
class Cpu:
    """A logical CPU. `core` is the lowest CPU of its physical core, `node` its NUMA node."""

    number: int
    core: int
    node: int


def allowed_cpus() -> tuple[int, ...]:
    """The CPUs in this process's affinity; () where the system has none."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def read_cpus(root: Path, allowed: Collection[int]) -> tuple[Cpu, ...]:
    """These CPUs, as /sys below `root` describes them; () where it does not describe each."""
    nodes: dict[int, int] = {}
    system = root / "sys/devices/system"
    found = []
    try:
        for folder in system.glob("node/node[0-9]*"):
            for cpu in parse_cpus((folder / "cpulist").read_text()):
                nodes[cpu] = int(folder.name[4:])
        for cpu in sorted(allowed):
            siblings = parse_cpus((system / f"cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
            found.append(Cpu(cpu, min(siblings), nodes.get(cpu, 0)))
    except (OSError, ValueError):
        return ()
    return tuple(found)


def read_gpu_nodes(root: Path, environ: Mapping[str, str]) -> tuple[int | None, ...]:
    """The NUMA node of each GPU in CUDA's order, None where it is unknown; () where the order is.

    CUDA numbers GPUs by the PCI bus, or the fastest first: the same where all are of one model.
    """
    folders = sorted((root / "proc/driver/nvidia/gpus").glob("*"))
    about = [_information(folder) for folder in folders]
    if len({entry.get("Model") for entry in about}) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return ()
    nodes = [_node_of(root, folder.name) for folder in folders]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(nodes)
    chosen: list[int | None] = []
    for entry in visible.replace(" ", "").split(","):
        named = [index for index, gpu in enumerate(about) if entry and gpu.get("GPU UUID", "").startswith(entry)]
        if entry.isdecimal() and int(entry) < len(nodes):
            chosen.append(nodes[int(entry)])
        elif len(named) == 1 and entry.startswith("GPU-"):
            chosen.append(nodes[named[0]])
        else:
            return ()
    return tuple(chosen)


def _information(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "information").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _node_of(root: Path, pci: str) -> int | None:
    try:
        node = int((root / "sys/bus/pci/devices" / pci.lower() / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None  # -1: the firmware does not say


def share_out(cpus: Sequence[Cpu], nproc: int, gpu_nodes: Sequence[int | None] = ()) -> Shares:
    """Disjoint shares of whole cores, of sizes that differ by one core at most; () with fewer cores than ranks.

    Each within one NUMA node if all fit so, then near its rank's GPU where there is room; else in the order of nodes.
    """
    cores: dict[int, list[Cpu]] = {}
    for cpu in cpus:
        cores.setdefault(cpu.core, []).append(cpu)
    ordered = sorted(cores.values(), key=lambda core: (core[0].node, core[0].number))
    if nproc < 1 or len(ordered) < nproc:
        return ()
    size = len(ordered) // nproc
    by_node: dict[int, list[list[Cpu]]] = {}
    for core in ordered:
        by_node.setdefault(core[0].node, []).append(core)
    homes = _homes({node: len(inside) // size for node, inside in by_node.items()}, nproc, gpu_nodes)
    shares = _within(by_node, homes, size) if homes else _cut(ordered, nproc)
    return tuple(tuple(sorted(cpu.number for core in share for cpu in core)) for share in shares)


def _homes(room: dict[int, int], nproc: int, gpu_nodes: Sequence[int | None]) -> list[int]:
    """The node of each rank; [] if they do not all fit. First those whose GPU is near, then the rest in order."""
    if sum(room.values()) < nproc:
        return []
    room = dict(room)
    homes: dict[int, int] = {}
    for rank, node in enumerate(gpu_nodes[:nproc]):
        if node is not None and room.get(node, 0) > 0:
            homes[rank] = node
            room[node] -= 1
    for rank in range(nproc):
        if rank not in homes:
            homes[rank] = next(node for node, left in room.items() if left > 0)
            room[homes[rank]] -= 1
    return [homes[rank] for rank in range(nproc)]


def _within(by_node: Mapping[int, list[list[Cpu]]], homes: Sequence[int], size: int) -> list[list[list[Cpu]]]:
    """What is left over on a node goes to its ranks, one core each."""
    left = {node: list(inside) for node, inside in by_node.items()}
    spare = {node: len(inside) - size * homes.count(node) for node, inside in by_node.items()}
    shares = []
    for node in homes:
        take = size + (1 if spare[node] > 0 else 0)
        spare[node] -= take - size
        shares.append(left[node][:take])
        left[node] = left[node][take:]
    return shares


def _cut(cores: list[list[Cpu]], nproc: int) -> list[list[list[Cpu]]]:
    bounds = [len(cores) * rank // nproc for rank in range(nproc + 1)]
    return [cores[start:end] for start, end in itertools.pairwise(bounds)]


def parse_cpus(text: str) -> list[int]:
    """`0-2,5` -> 0 1 2 5. Raises ValueError."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None:
            raise ValueError(f"{text!r} is no list of CPUs")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def format_cpus(numbers: Sequence[int]) -> str:
    """0 1 2 5 -> `0-2,5`, as the kernel writes it."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def format_shares(shares: Shares) -> str:
    """As DTK_CPUS has them: `0-3;4-7`."""
    return ";".join(map(format_cpus, shares))
