"""What dtk starts by path at once, while it still decides: a process that loads torch and then becomes torchrun.

`agent.py torchrun`, with a socket as stdin. dtk sends the file for the output, the command and its environment when
they are decided (prestart.py); until then nothing runs, and the end of dtk, or of the socket, is this one's.
Standard library and torch only, and nothing of this folder on sys.path, as in `torchrun` itself.
"""

import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    sys.path[0] = sys.executable.rpartition("/")[0]  # where torchrun lies

import importlib
import importlib.util
import json
import os
import signal
import socket


def die_with_dtk() -> None:
    """Ask for SIGKILL when dtk ends, and end now if it has ended before."""
    path = os.path.join(os.path.dirname(__file__), "hostos.py")  # noqa: PTH118, PTH120
    spec = importlib.util.spec_from_file_location("_dtk_hostos", path)
    assert spec is not None
    assert spec.loader is not None
    hostos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostos)
    parent = int(sys.argv[2])
    hostos.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def load() -> BaseException | None:
    """Import what torchrun imports: the error, if that fails, for torchrun to end with."""
    try:
        importlib.import_module("torch.distributed.run")
    except BaseException as error:
        return error
    return None


def receive() -> tuple[int, dict[str, str], list[str], list[int]]:
    """Wait for dtk's decision: file of the output, environment, words after `torchrun`, signals to be ignored."""
    with socket.socket(fileno=os.dup(0)) as connection:
        start, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
        parts = [start]
        while part := connection.recv(1 << 16):
            parts.append(part)
    if not descriptors:  # dtk has ended, or does not start anything
        os._exit(0)
    message = json.loads(b"".join(parts))
    return descriptors[0], message["environ"], message["words"], message["ignored"]


def become(
    log: int, environ: dict[str, str], words: list[str], ignored: list[int], failed: BaseException | None
) -> None:
    """Be torchrun from here on."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    said = os.pread(1, os.fstat(1).st_size, 0)  # while torch was loaded
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.write(1, said)
    os.environ.clear()
    os.environ.update(environ)
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
    sys.argv = [os.path.join(os.path.dirname(sys.executable), "torchrun"), *words]  # noqa: PTH118, PTH120
    if failed is not None:
        raise failed
    sys.exit(importlib.import_module("torch.distributed.run").main())


if __name__ == "__main__":
    die_with_dtk()
    failed = load()
    become(*receive(), failed)
