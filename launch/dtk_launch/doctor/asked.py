"""What torch says of itself, asked in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RANK = Path(__file__).with_name("rank.py")
_PATIENCE = 120.0  # seconds that the import of torch may take, on a slow file system


@dataclass(frozen=True)
class Torch:
    """What torch says of itself once it is imported. `error`: why it cannot be; '' if it can."""

    error: str = ""
    cuda: str = ""
    """The CUDA it is built for; '' without."""
    nccl: str = ""
    cuda_available: bool = False
    devices: int = 0
    capabilities: tuple[str, ...] = ()
    """Of each device, as `9.0`."""
    architectures: tuple[str, ...] = ()
    """It has code for these: `sm_90`, and `compute_120` for that and what is newer."""
    backends: tuple[str, ...] = ()


def ask_torch(patience: float = _PATIENCE) -> Torch:
    """Import torch in a process of its own, for `patience` seconds at most, and ask it."""
    try:
        done = subprocess.run(
            [sys.executable, str(RANK), "--ask"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=patience, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Torch(error=f"the import of torch was not over after {patience:g} seconds")
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return read_torch(json.loads(line))
    last = (done.stderr.strip() or "no words").splitlines()[-1]
    return Torch(error=f"{_how(done.returncode)}: {last}")


def _how(code: int) -> str:
    try:
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:  # of real time
        return f"killed by signal {-code}"


def read_torch(values: Mapping[str, object]) -> Torch:
    """From what rank.py prints."""
    return Torch(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})  # type: ignore[arg-type]
