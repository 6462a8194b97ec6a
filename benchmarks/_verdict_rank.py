"""A rank of `dtk bench verdict`: it meets the others, notes the moment of its own fault, and fails as it is told.

The only argument is the scenario as JSON (verdict_parts.scenarios.Scenario): `faults` rank -> [kind, milliseconds after
the first], `peers` what the other ranks do meanwhile. Its own clock is the truth that the verdicts are compared with.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
FOLDER = Path(os.environ["DTK_RUN_DIR"]) / "truth"
_HELD: list[bytes] = []  # what a core dump is to take long for
LEAD = 0.4  # seconds from the last rank's arrival to the first fault


FOLDER.mkdir(exist_ok=True)
with (FOLDER / f"{RANK}.fault").open("w+b") as file:
    file.write(bytes(8))
    file.flush()
    _NOTE = mmap.mmap(file.fileno(), 8)  # a write to the file could wait for the disk, between the note and the fault
_MOMENT = struct.Struct("=Q")
_MOMENT.pack_into(_NOTE, 0, 0)  # the first touch of a page may wait as well


def note() -> None:
    """Write the moment of this rank's fault, and nothing more before it."""
    _MOMENT.pack_into(_NOTE, 0, time.monotonic_ns())


def meet(extra: str = "") -> float:
    """Wait for all ranks; the moment of the first fault (time.monotonic)."""
    temporary = FOLDER / f"{RANK}.tmp"
    temporary.write_text(extra)
    temporary.rename(FOLDER / f"{RANK}.up")
    while len(list(FOLDER.glob("*.up"))) < WORLD:
        time.sleep(0.01)
    if RANK == 0:
        temporary.write_text(str(time.monotonic() + LEAD))
        temporary.rename(FOLDER / "go")
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    return float((FOLDER / "go").read_text())


def fail(kind: str) -> None:
    """End this rank in one way."""
    if kind in ("exception", "slow teardown"):
        note()
        raise ValueError(f"a bad batch on rank {RANK}")
    if kind == "exit":
        note()
        sys.exit(3)
    if kind == "os._exit":
        note()
        os._exit(4)
    if kind in ("early end", "os._exit(0)"):
        note()
        sys.exit(0) if kind == "early end" else os._exit(0)
    if kind == "import":
        note()
        import a_module_that_is_not_there  # noqa: F401
    if kind in ("SIGKILL", "SIGTERM"):
        note()
        os.kill(os.getpid(), getattr(signal, kind))
    if kind == "SIGSEGV":
        note()
        ctypes.string_at(0)
    if kind == "core dump":
        note()
        ctypes.string_at(0)
    if kind == "SIGABRT":
        note()
        os.abort()
    if kind == "ulimit":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        note()
        bytearray(2 << 30)
    if kind == "out of memory":
        note()
        held = []
        while True:
            held.append(bytearray(os.urandom(1) * (16 << 20)))
    if kind in ("loader error", "loader killed"):
        load(kind)
    time.sleep(600)


class Data:
    """A dataset with one bad sample."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 5:
            note()
            if self.kind == "loader killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyError(f"sample {index} of rank {RANK}")
        return index


def load(kind: str) -> None:
    """Fail in a worker of a DataLoader."""
    import torch.utils.data

    for _ in torch.utils.data.DataLoader(Data(kind), batch_size=1, num_workers=1):
        pass


def ring() -> tuple[float, tuple[socket.socket, socket.socket]]:
    """Sockets to the next rank and from the one before, as collectives have them."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    start = meet(str(server.getsockname()[1]))
    onward = socket.create_connection(("127.0.0.1", int((FOLDER / f"{(RANK + 1) % WORLD}.up").read_text())))
    before, _ = server.accept()
    return start, (onward, before)


def wait_in_ring(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Wait for the neighbour's data, as a collective does; fail as it fails when the neighbour is gone."""
    if not sockets[1].recv(1):
        raise ConnectionResetError("Connection closed by peer")


def all_reduce() -> None:
    """Real collectives over gloo, which the failing rank does not enter."""
    import torch
    import torch.distributed as dist

    while True:
        dist.all_reduce(torch.ones(1000))


def main() -> None:
    scenario = json.loads(sys.argv[1])
    fault = scenario["faults"].get(str(RANK))
    peers = scenario["peers"]
    if any(kind.startswith("loader") for kind, _ in scenario["faults"].values()):
        import torch.utils.data  # noqa: F401  # before the clock starts
    if fault is not None and fault[0] == "core dump":
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        _HELD.append(os.urandom(1 << 20) * 800)
    sockets = ()
    if peers == "sockets":
        start, sockets = ring()
    else:
        if peers == "gloo":
            import torch.distributed as dist

            dist.init_process_group("gloo")
        start = meet()
    if fault is None:
        if peers == "sockets":
            wait_in_ring(sockets)
        elif peers == "gloo":
            all_reduce()
        time.sleep(600)
    kind, delay = fault
    moment = start + delay / 1000
    time.sleep(max(0.0, moment - time.monotonic()))
    try:
        fail(kind)
    finally:
        if kind == "slow teardown":  # the others lose their connection before this rank has failed to its end
            for each in sockets:
                each.close()
            time.sleep(0.2)


if __name__ == "__main__":
    main()
