"""The GPUs of a node: their health, who uses them, how they are linked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dtk_launch.doctor.findings import Finding, differing
from dtk_launch.doctor.nvidia_smi import Gpus

CHECK = "gpus"
_BUSY = 1 << 10  # MiB in use that is more than a driver's own
_SLOW_LINKS = ("SYS", "NODE", "PHB")


def judge(facts: Gpus, nproc: int) -> Iterator[Finding]:
    """`nproc`: ranks that this node is to have."""
    if facts.visible < 0:
        what = facts.why.partition(";")[0]
        yield Finding(
            CHECK, "problem", what, "dtk launch refuses it", "unset CUDA_VISIBLE_DEVICES, or name GPUs that are here"
        )
    if facts.error:
        yield Finding(
            CHECK, "problem", facts.error, "torch will see no GPU either, or fail at the first use",
            "load the driver again, or reboot the node: its module and its library may be of different versions",
        )  # fmt: skip
        return
    if facts.undriven:
        yield Finding(
            CHECK, "warning", f"no NVIDIA driver is loaded here{facts.undriven}",
            "torch sees no GPU: ranks compute on the cores, and --device cuda is refused",
            "load the driver (modprobe nvidia), after an update of it or of the kernel reboot; start a container with "
            "its GPUs (--gpus all, --nv); where no GPU is to be used, leave it",
        )  # fmt: skip
        return
    if not facts.gpus:
        yield Finding(CHECK, "ok", f"none ({facts.why}): ranks compute on the cores")
        return
    found = [*_judge_health(facts), *_judge_use(facts, nproc), *_judge_links(facts)]
    if not any(finding.level in ("problem", "warning") for finding in found):
        names = sorted({gpu.name for gpu in facts.gpus})
        hidden = f", {facts.visible} visible" if facts.visible != len(facts.gpus) else ""
        about = f"{len(facts.gpus)} x {', '.join(names)}{hidden}, driver {facts.driver}"
        found.append(Finding(CHECK, "ok", about + (f"; {_links(facts)}" if facts.links else "")))
    yield from found


def _judge_health(facts: Gpus) -> Iterator[Finding]:
    for gpu in facts.gpus:
        if gpu.ecc.isdecimal() and int(gpu.ecc) > 0:
            yield Finding(
                CHECK, "problem", f"GPU {gpu.index} has {gpu.ecc} uncorrected ECC errors",
                "a rank on it dies, or computes wrong numbers", "reset it (nvidia-smi -r), or have the node drained",
            )  # fmt: skip
        if gpu.remap_failed.lower() in ("1", "yes"):
            yield Finding(
                CHECK, "problem", f"GPU {gpu.index} has run out of rows to remap", "its memory is failing",
                "have the GPU replaced",
            )  # fmt: skip
        elif gpu.remap_pending.lower() in ("1", "yes"):
            yield Finding(
                CHECK, "warning", f"GPU {gpu.index} has rows to remap", "errors may go on until that is done",
                "reset it (nvidia-smi -r), or reboot the node",
            )  # fmt: skip
        if gpu.mig.lower() == "enabled":
            yield Finding(CHECK, "note", f"GPU {gpu.index} is cut into MIG instances: NCCL takes one of a GPU to a run")
    if models := differing((f"GPU {gpu.index}", gpu.name) for gpu in facts.gpus):
        yield Finding(
            CHECK, "warning", f"not all of one model: {models}", "the slowest sets the pace of all ranks",
            "choose like ones with CUDA_VISIBLE_DEVICES",
        )  # fmt: skip


def _judge_use(facts: Gpus, nproc: int) -> Iterator[Finding]:
    for gpu in facts.gpus:
        busy = gpu.used.isdecimal() and int(gpu.used) > _BUSY
        mode = gpu.mode.lower()
        if mode == "prohibited" or (mode.startswith("exclusive") and busy):
            yield Finding(
                CHECK, "problem", f"GPU {gpu.index} is in mode {gpu.mode}" + (" and in use" if busy else ""),
                "a rank gets: all CUDA-capable devices are busy or unavailable",
                f"end who has it, or nvidia-smi -i {gpu.index} -c DEFAULT as root",
            )  # fmt: skip
        elif busy:
            who = f" (pids {', '.join(map(str, facts.processes))})" if facts.processes else ""
            yield Finding(
                CHECK, "warning", f"{gpu.used} of {gpu.memory} MiB of GPU {gpu.index} are in use already{who}",
                "a run may run out of memory there, and be slow",
                "wait, end who has it, or hide it: CUDA_VISIBLE_DEVICES",
            )  # fmt: skip
        elif mode.startswith("exclusive"):
            yield Finding(CHECK, "note", f"GPU {gpu.index} is in mode {gpu.mode}: one process at a time may use it")
    if 0 < facts.visible < nproc:
        yield Finding(CHECK, "note", f"{nproc} ranks, and {facts.visible} GPUs are visible ({facts.why})")


def _judge_links(facts: Gpus) -> Iterator[Finding]:
    slow = [f"{a}-{b} {kind}" for a, b, kind in facts.links if kind in _SLOW_LINKS]
    if slow and not any(kind.startswith("NV") for *_, kind in facts.links):
        yield Finding(
            CHECK, "note", f"no NVLink; through the host: {', '.join(slow)}",
            "all-reduce goes through PCIe and the host's memory, at a fraction of NVLink's rate",
        )  # fmt: skip
    if facts.p2p_disabled not in ("", "0") and len(facts.gpus) > 1:
        yield Finding(
            CHECK, "warning", f"NCCL_P2P_DISABLE={facts.p2p_disabled} is set", "GPUs copy through the host's memory",
            "unset NCCL_P2P_DISABLE, if it was not set for a machine whose P2P hangs",
        )  # fmt: skip


def _links(facts: Gpus) -> str:
    kinds: dict[str, int] = {}
    for *_, kind in facts.links:
        kinds[kind] = kinds.get(kind, 0) + 1
    return "links " + ", ".join(f"{kind} ({number} pairs)" for kind, number in kinds.items())


def compare(by_node: Mapping[str, Gpus]) -> Iterator[Finding]:
    """GPUs that differ among the nodes of one run."""
    about = ((node, f"{facts.visible} x {', '.join(sorted({gpu.name for gpu in facts.gpus})) or 'GPU'}")
             for node, facts in by_node.items())  # fmt: skip
    if found := differing(about):
        yield Finding(
            CHECK, "warning", f"the nodes differ: {found}",
            "without --nproc each starts one rank for each GPU it has; the slowest sets the pace",
            "ask for nodes of one kind (--constraint, --gpus-per-node), or pass --nproc",
        )  # fmt: skip
    if found := differing((node, facts.driver) for node, facts in by_node.items()):
        yield Finding(CHECK, "note", f"drivers differ: {found}")
