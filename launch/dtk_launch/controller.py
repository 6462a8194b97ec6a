"""What the batch script of a job asks of SLURM's controller, which may be away for minutes."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

from dtk_launch.asking import Answer, ask
from dtk_launch.requeue import JobState, read_job

_PATIENCE = 20  # seconds for one answer
_PAUSES = (2.0, 2.0, 5.0, 10.0, 20.0, *(30.0,) * 18)  # seconds between questions: ten minutes
_REFUSED = 2  # pauses after which no is no
_AWAY = re.compile(r"contact slurm|gave no answer|timed out|[Cc]onnect|standby|Zero Bytes", re.IGNORECASE)
_DOWN = re.compile(r"\bState=\S*(?:DOWN|NOT_RESPONDING|FAIL|\*)")
_KNOCK = 5.0  # seconds for a slurmd to take a connection
_ALREADY = "pending"  # in scontrol's words of a job that SLURM itself has requeued


def job_state(job_id: str, tell: Callable[[str], None] = print) -> JobState | None:
    """What SLURM says of the job; None where it says nothing. `tell` is told of a wait."""
    said = _scontrol(("show", "job", job_id), tell)
    return read_job(said.stdout) if said.returncode == 0 else None


def requeue(job_id: str, tell: Callable[[str], None] = print) -> str:
    """Why SLURM did not requeue the job, '' if it did; it then ends this process at once."""
    said = _scontrol(("requeue", job_id), tell, _ALREADY)
    return "" if said.returncode == 0 or _ALREADY in said.words else said.words


def is_lost(host: str) -> bool:
    """Whether SLURM takes this node for dead, or will do so: its slurmd takes no connection."""
    said = ask(("scontrol", "show", "node", host), patience=_PATIENCE)
    values = dict(re.findall(r"\b(NodeAddr|Port)=(\S+)", said.stdout))
    if said.returncode != 0 or _DOWN.search(said.stdout):
        return said.returncode == 0
    try:
        socket.create_connection((values.get("NodeAddr", host), int(values.get("Port", "6818"))), _KNOCK).close()
    except (OSError, ValueError):
        return True
    return False


def _scontrol(words: tuple[str, ...], tell: Callable[[str], None], enough: str = "") -> Answer:
    said = ask(("scontrol", *words), patience=_PATIENCE)
    for tried, pause in enumerate(_PAUSES):
        away = _AWAY.search(said.words) is not None
        if said.returncode == 0 or (enough and enough in said.words) or (tried >= _REFUSED and not away):
            break
        if tried == _REFUSED:
            tell(f"SLURM's controller does not answer; asking it again for up to {sum(_PAUSES) / 60:.0f} minutes")
        time.sleep(pause)
        said = ask(("scontrol", *words), patience=_PATIENCE)
    return said
