"""The GPUs of a node, their health, who uses them, and how they are linked: by nvidia-smi."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from dtk_launch.doctor.findings import Finding, differing
from dtk_launch.errors import PlanError
from dtk_launch.facts import count_gpus, installed_version
from dtk_launch.gpus import find_program, parse

CHECK = "gpus"
_PATIENCE = 30.0  # seconds; nvidia-smi takes some where the driver is not kept loaded
_BUSY = 1 << 10  # MiB in use that is more than a driver's own
_SLOW_LINKS = ("SYS", "NODE", "PHB")
_QUERY = {
    "index": "index",
    "name": "name",
    "memory": "memory.total",
    "used": "memory.used",
    "mode": "compute_mode",
    "ecc": "ecc.errors.uncorrected.volatile.total",
    "mig": "mig.mode.current",
    "remap_failed": "remapped_rows.failure",
    "remap_pending": "remapped_rows.pending",
}


@dataclass(frozen=True)
class Gpu:
    """A row of `nvidia-smi --query-gpu`; memory in MiB. What the driver does not tell is ''."""

    index: str
    name: str
    memory: str
    used: str
    mode: str = ""
    ecc: str = ""
    mig: str = ""
    remap_failed: str = ""
    remap_pending: str = ""


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi says. `error`: why it says nothing though there is a driver. `visible`: what ranks would see."""

    gpus: tuple[Gpu, ...] = ()
    error: str = ""
    visible: int = 0
    why: str = ""
    driver: str = ""
    cuda: str = ""
    """The newest CUDA that the driver can."""
    links: tuple[tuple[str, str, str], ...] = ()
    """(GPU, GPU, kind of the way between them), as `nvidia-smi topo -m` has it."""
    processes: tuple[int, ...] = ()
    """Pids that have memory on them."""
    p2p_disabled: str = ""
    """NCCL_P2P_DISABLE."""


def probe(root: Path = Path("/")) -> Gpus:
    """Ask nvidia-smi. `root` is where /proc and /dev are found."""
    p2p = os.environ.get("NCCL_P2P_DISABLE", "")
    try:
        count = count_gpus(os.environ, root, installed_version("torch"))
        visible, why = count.number, count.why
    except PlanError as error:
        visible, why = -1, str(error)
    program = find_program(root)
    if program is None:
        driver = (root / "dev/nvidiactl").exists() or (root / "proc/driver/nvidia").is_dir()
        return Gpus(
            error="there is an NVIDIA driver, and no nvidia-smi on PATH" if driver else "", visible=visible, why=why
        )
    answer, error = _ask(program, f"--query-gpu={','.join(_QUERY.values())}", "--format=csv,noheader,nounits")
    gpus = parse_gpus(answer)
    if not gpus and not error:
        error = "it lists no GPU"
    about, _ = _ask(program)
    apps, _ = _ask(program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    topology, _ = _ask(program, "topo", "-m") if len(gpus) > 1 else ("", "")
    driver, cuda = parse_driver(about)
    return Gpus(
        gpus=gpus, error=f"nvidia-smi: {error}" if error else "", visible=visible, why=why, driver=driver, cuda=cuda,
        links=parse_topology(topology), processes=tuple(sorted(parse(apps))), p2p_disabled=p2p,
    )  # fmt: skip


def _ask(program: str, *words: str) -> tuple[str, str]:
    """(what it said, why it failed)."""
    try:
        done = subprocess.run(
            [program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"no answer within {_PATIENCE:g} seconds"
    except OSError as error:
        return "", str(error.strerror)
    if done.returncode != 0:
        words = tuple((done.stderr.strip() or done.stdout.strip()).splitlines()) or (f"exit code {done.returncode}",)
        return "", words[0]
    return done.stdout, ""


def parse_gpus(answer: str) -> tuple[Gpu, ...]:
    """The rows of the query, in the order of `_QUERY`; what is `[N/A]` or not supported is ''."""
    rows = ([cell.strip() for cell in line.split(",")] for line in answer.splitlines())
    names = [field.name for field in fields(Gpu)]
    return tuple(
        Gpu(
            **{
                name: "" if cell.startswith("[") or cell == "N/A" else cell
                for name, cell in zip(names, row, strict=True)
            }
        )
        for row in rows
        if len(row) == len(names) and row[0].isdecimal()
    )


def parse_driver(text: str) -> tuple[str, str]:
    """(driver, CUDA) of the head of nvidia-smi's table; '' for what is not there."""
    driver = re.search(r"Driver Version:\s*([\d.]+)", text)
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", text)
    return driver[1] if driver else "", cuda[1] if cuda else ""


def parse_topology(text: str) -> tuple[tuple[str, str, str], ...]:
    """The pairs of GPUs in `nvidia-smi topo -m`, each once, with NV4, PIX, PXB, PHB, NODE or SYS."""
    lines = [re.split(r"\t+|\s{2,}", re.sub(r"\x1b\[[\d;]*m", "", line).strip()) for line in text.splitlines()]
    head: list[str] = next((cells for cells in lines if "GPU1" in cells), [])
    columns = head[head.index("GPU0") :] if "GPU0" in head else []
    found = []
    for row in lines:
        if row[0].startswith("GPU") and row is not head and len(row) > 1:
            for column, kind in zip(columns, row[1:], strict=False):
                if column.startswith("GPU") and column[3:].isdecimal() and int(column[3:]) > int(row[0][3:]):
                    found.append((row[0], column, kind.strip()))
    return tuple(found)


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
                "a run may run out of memory there, and be slow", "wait, end who has it, or hide it: CUDA_VISIBLE_DEVICES",
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
