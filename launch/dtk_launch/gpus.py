"""GPU memory of the processes of this node, asked of nvidia-smi without ever waiting for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from dtk_launch import hostos

_EVERY = 20.0  # seconds between two questions at least
_LONGEST = 10.0  # seconds until an answer is given up
_SHARE = 100  # nvidia-smi may run this part of the time: it takes seconds where the driver is not kept loaded
_QUESTION = ("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")


def find_program(root: Path = Path("/")) -> str | None:
    """Path of nvidia-smi where an NVIDIA driver is loaded, else None. `root` is where /proc and /dev are found."""
    if not ((root / "proc/driver/nvidia").is_dir() or (root / "dev/nvidiactl").exists()):
        return None
    return shutil.which("nvidia-smi")


def parse(answer: str) -> dict[int, int]:
    """Pid -> bytes on all GPUs together. A process whose memory the driver does not tell is left out."""
    used: dict[int, int] = {}
    for line in answer.splitlines():
        pid, _, mebibytes = (part.strip() for part in line.partition(","))
        if pid.isdecimal() and mebibytes.isdecimal():
            used[int(pid)] = used.get(int(pid), 0) + (int(mebibytes) << 20)
    return used


class GpuMemory:
    """The last answer, and the process that is about to give the next one.

    nvidia-smi can hang in the driver where not even SIGKILL reaches it. It is then left alone, and none is started
    beside it.
    """

    def __init__(self, program: str | None) -> None:
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        self._answer = -1
        self._began = 0.0
        self._next = 0.0
        self._used: dict[int, int] = {}

    @property
    def pid(self) -> int | None:
        """The process that is being waited for, if there is one."""
        return self._child.pid if self._child is not None else None

    def look(self) -> Mapping[int, int]:
        """Pid -> bytes, as last known. Never blocks."""
        if self._child is not None:
            self._finish(self._child)
        elif self._program is not None and time.monotonic() >= self._next:
            self._ask(self._program)
        return self._used

    def close(self) -> None:
        """End the question that is open. Does not wait for it."""
        if self._child is not None:
            self._child.kill()
            self._child.poll()
        self._program = None

    def _ask(self, program: str) -> None:
        self._began = time.monotonic()
        try:
            self._answer = os.memfd_create("dtk-gpus")  # a pipe could fill up, or be held open by others
        except (OSError, AttributeError):
            self._program = None
            return
        try:
            self._child = subprocess.Popen(
                (program, *_QUESTION),
                stdin=subprocess.DEVNULL,
                stdout=self._answer,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is not for it
            )
        except OSError:
            self._program = None
            os.close(self._answer)

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        code, took = child.poll(), time.monotonic() - self._began
        if code is None:
            if took > _LONGEST:
                hostos.send(child.pid, 9)
            return
        if code == 0:
            self._used = parse(os.pread(self._answer, 1 << 20, 0).decode(errors="replace"))
        os.close(self._answer)
        self._child = None
        self._next = time.monotonic() + max(_EVERY, took * _SHARE)
