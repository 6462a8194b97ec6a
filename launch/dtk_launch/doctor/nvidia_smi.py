"""What nvidia-smi says of the GPUs of this node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.facts import SMI_FAILED, count_gpus, installed_version
from dtk_launch.gpus import find_program, parse

_PATIENCE = 30.0  # seconds; nvidia-smi takes some where the driver is not kept loaded
_CSV = "--format=csv,noheader,nounits"
_NVIDIA, _DISPLAY = 0x10DE, 0x03  # a vendor and a class of PCI devices
_ALWAYS = 5  # of these fields every driver knows
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
    undriven: str = ""
    """What shows that there may be GPUs, where no driver is loaded: words for behind that."""
    p2p_disabled: str = ""
    """NCCL_P2P_DISABLE."""


def probe(root: Path = Path("/")) -> Gpus:
    """Ask nvidia-smi. `root` is where /proc and /dev are found."""
    torch = installed_version("torch")
    try:
        count = count_gpus(os.environ, root, torch)
        visible, why = count.number, count.why
    except PlanError as refused:
        visible, why = -1, str(refused)
    program = find_program(root) or (shutil.which("nvidia-smi") if visible else None)
    if program is None:
        loaded = (root / "dev/nvidiactl").exists() or (root / "proc/driver/nvidia").is_dir()
        error = "there is an NVIDIA driver, and no nvidia-smi on PATH" if loaded else ""
        on_cores = loaded or (torch or "").endswith("+cpu")  # which looks for no GPU
        return Gpus(error=error, visible=visible, why=why, undriven="" if on_cores else _undriven(why, root))
    gpus, error = _ask_all(program)
    if not gpus:
        return Gpus(error=f"nvidia-smi: {error or 'it lists no GPU'}", visible=visible, why=why)
    driver, cuda = parse_driver(_ask(program)[0])
    return Gpus(
        gpus=gpus, visible=visible, why=why, driver=driver, cuda=cuda,
        links=parse_topology(_ask(program, "topo", "-m")[0] if len(gpus) > 1 else ""),
        processes=tuple(sorted(parse(_ask(program, "--query-compute-apps=pid,used_memory", _CSV)[0]))),
        p2p_disabled=os.environ.get("NCCL_P2P_DISABLE", ""),
    )  # fmt: skip


def _undriven(why: str, root: Path) -> str:
    """What of a machine without a driver looks as if it had GPUs, in words; '' if nothing does."""
    number = sum(map(_is_gpu, (root / "sys/bus/pci/devices").glob("*")))
    there = f", and there {'are' if number > 1 else 'is'} {number} NVIDIA GPU{'s' * (number > 1)} on the PCI bus"
    said = f"; nvidia-smi: {why.removeprefix(SMI_FAILED)}" if why.startswith(SMI_FAILED) else ""
    return f"{there if number else ''}{said}"


def _is_gpu(device: Path) -> bool:
    try:
        vendor, kind = (int((device / name).read_text(), 16) for name in ("vendor", "class"))
    except (OSError, ValueError):
        return False
    return vendor == _NVIDIA and kind >> 16 == _DISPLAY


def _ask_all(program: str) -> tuple[tuple[Gpu, ...], str]:
    """(the GPUs, why there are none). An older driver refuses a query with a field that it does not know."""
    every = tuple(_QUERY.values())
    for asked in (every, every[:_ALWAYS]):
        answer, error = _ask(program, f"--query-gpu={','.join(asked)}", _CSV)
        if not error:
            break
    return parse_gpus(answer), error


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
    """The rows of the query, of all its fields or of the first; what is `[N/A]` or not supported is ''."""
    rows = ([cell.strip() for cell in line.split(",")] for line in answer.splitlines())
    return tuple(
        Gpu(*("" if cell.startswith("[") or cell == "N/A" else cell for cell in row))
        for row in rows
        if _ALWAYS <= len(row) <= len(_QUERY) and row[0].isdecimal()
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
