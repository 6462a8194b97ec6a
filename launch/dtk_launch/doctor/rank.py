"""What each rank of the all-reduce runs, by path: says how far it has come, a line of JSON at a time.

`rank.py --ask` imports torch and prints what that says of itself. Standard library and torch only.
"""

import contextlib
import glob
import importlib
import json
import os
import re
import socket
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any

MARK = "DTK-DOCTOR "
LATENCY_SECONDS, RATE_SECONDS = 0.3, 0.6
SMALL, LARGE, LARGE_ON_GPU = 8, 16 << 20, 64 << 20
"""Bytes that are reduced: for the latency, and for the rate."""
_ESTABLISHED = "01"


def say(stage: str, **about: Any) -> None:
    """A line for `dtk doctor`. Short: srun keeps lines of less than a kilobyte whole."""
    where = {"rank": int(os.environ.get("RANK", "0")), "host": socket.gethostname()}
    print(MARK + json.dumps({"stage": stage, **where, **about}), flush=True)


def ask() -> dict[str, Any]:
    """What torch says of itself, as versions.Torch has it."""
    try:
        torch: Any = importlib.import_module("torch")
        dist: Any = importlib.import_module("torch.distributed")
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    able = torch.cuda.is_available()
    number = torch.cuda.device_count() if able else 0
    built = [name for name in ("gloo", "nccl") if getattr(dist, f"is_{name}_available")()]
    nccl = ""
    with contextlib.suppress(Exception):  # built without
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {
        "cuda": torch.version.cuda or "",
        "nccl": nccl,
        "cuda_available": able,
        "devices": number,
        "capabilities": [".".join(map(str, torch.cuda.get_device_capability(index))) for index in range(number)],
        "architectures": torch.cuda.get_arch_list() if able else [],
        "backends": built,
    }


def sockets() -> dict[str, str]:
    """Inode -> local address, of the TCP connections of this process."""
    own = set()
    for name in glob.glob("/proc/self/fd/*"):
        with contextlib.suppress(OSError):
            own.update(re.findall(r"socket:\[(\d+)\]", os.readlink(name)))  # noqa: PTH115
    found = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/self/net/{table}") as file:
            rows = [line.split() for line in list(file)[1:]]
            found.update({row[9]: address(row[1]) for row in rows if row[3] == _ESTABLISHED and row[9] in own})
    return found


def address(text: str) -> str:
    """`0100007F:1F90` of /proc/net/tcp -> 127.0.0.1; IPv4 in IPv6 as IPv4."""
    digits = bytes.fromhex(text.partition(":")[0])
    words = (
        b"".join(digits[at : at + 4][::-1] for at in range(0, len(digits), 4)) if sys.byteorder == "little" else digits
    )
    if len(words) == 16 and words.startswith(bytes(10) + b"\xff\xff"):
        words = words[12:]
    return socket.inet_ntop(socket.AF_INET6 if len(words) == 16 else socket.AF_INET, words)


def measure(torch: Any, dist: Any, group: Any, ranks: int, device: str, size: int, seconds: float) -> float:
    """Seconds of an all-reduce of `size` bytes, of the slowest rank: the mean over about `seconds`. Collective."""
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)

    def repeat(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            dist.all_reduce(data, group=group)
        if device != "cpu":
            torch.cuda.synchronize()
        taken = torch.tensor([(time.perf_counter() - began) / times], dtype=torch.float64, device=device)
        dist.all_reduce(taken, op=dist.ReduceOp.MAX, group=group)
        return float(taken.item())

    repeat(3)
    return repeat(max(2, min(100_000, int(seconds / max(repeat(3), 1e-6)))))  # the same number on every rank


def is_right(torch: Any, dist: Any, group: Any, place: int, ranks: int, device: str) -> bool:
    """Whether every rank gets the sum of what all have put in. Collective."""
    line = torch.arange(1, 1001, dtype=torch.float64, device=device)
    data = line * (place + 1)
    dist.all_reduce(data, group=group)
    wrong = torch.tensor([0.0 if torch.equal(data, line * (ranks * (ranks + 1) / 2)) else 1.0], device=device)
    dist.all_reduce(wrong, op=dist.ReduceOp.MAX, group=group)
    return bool(wrong.item() == 0)


def reduce_over(torch: Any, dist: Any, backend: str, group: Any, place: int, ranks: int, device: str) -> None:
    """Check and time one backend. Collective over the ranks of `group`, of which this one is number `place`."""
    large = LARGE if device == "cpu" else LARGE_ON_GPU
    right = is_right(torch, dist, group, place, ranks, device)
    small = measure(torch, dist, group, ranks, device, SMALL, LATENCY_SECONDS)
    taken = measure(torch, dist, group, ranks, device, large, RATE_SECONDS)
    say("reduced", backend=backend)
    if place == 0:
        say("result", backend=backend, right=right, ranks=ranks, latency=small, size=large, seconds=taken)


def nccl_words(text: str) -> list[str]:
    """What NCCL_DEBUG=INFO says of the ways that it takes: `NET/Socket: eth0`, `P2P/CUMEM`."""
    found = []
    for net, rest in re.findall(r"(NET/\w+) : Using(.*)", text):
        names = re.findall(r"\[\d+\]([^\s:/;]+)", rest)
        found.append(f"{net}: {', '.join(names)}" if names else net)
    found += sorted(set(re.findall(r"\] via (P2P/\w+|SHM|NET/\w+)", text)))
    return list(dict.fromkeys(found))


def nccl(torch: Any, dist: Any, world: int, limit: timedelta, folder: str) -> None:
    """The same by NCCL, which writes to `folder`, for the ranks that have a GPU each. Collective over all ranks."""
    local, rank = int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"])
    has = torch.zeros(world, dtype=torch.int64)
    has[rank] = int(torch.cuda.is_available() and local < torch.cuda.device_count())
    dist.all_reduce(has)
    ranks = [number for number in range(world) if has[number]]
    if not ranks:
        return
    group = dist.new_group(ranks, timeout=limit, backend="nccl")
    if rank in ranks:
        torch.cuda.set_device(local)
        reduce_over(torch, dist, "nccl", group, ranks.index(rank), len(ranks), f"cuda:{local}")
        texts = [open(path, errors="replace").read() for path in glob.glob(f"{folder}/*")]  # noqa: SIM115
        say("way", backend="nccl", words=nccl_words("\n".join(texts))[:8])


def main(folder: str) -> None:
    """Join the others, reduce, and tell. `rank.py SECONDS`: after which a collective is given up."""
    say("started")
    os.environ.update({"NCCL_DEBUG": "INFO", "NCCL_DEBUG_FILE": f"{folder}/%h.%p"})
    stage = "import torch"
    try:
        torch: Any = importlib.import_module("torch")
        dist: Any = importlib.import_module("torch.distributed")
        if os.environ["LOCAL_RANK"] == "0":
            say("torch", torch=ask())
        say("ready")
        stage, limit = "join", timedelta(seconds=float(sys.argv[1]))
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=limit)))
        before = sockets().keys()
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
        say("joined")
        stage = "gloo"
        reduce_over(torch, dist, "gloo", None, rank, world, "cpu")
        used = sorted({local for inode, local in sockets().items() if inode not in before})
        say("way", backend="gloo", words=used)
        stage = "nccl"
        nccl(torch, dist, world, limit, folder)
        dist.destroy_process_group()
    except Exception as error:
        say("failed", doing=stage, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise
    say("done")


if __name__ == "__main__":
    if sys.argv[1:] == ["--ask"]:
        print(json.dumps(ask()))
    else:
        with tempfile.TemporaryDirectory(prefix="dtk-doctor-") as own:
            main(own)
