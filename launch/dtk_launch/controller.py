"""What the batch script of a job asks of SLURM's controller, which may be away for minutes."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dtk_launch.asking import Answer, ask
from dtk_launch.requeue import JobState, read_job

_PATIENCE = 20  # seconds for one answer
_PAUSES = (2.0, 2.0, 5.0, 10.0, 20.0, *(30.0,) * 18)  # seconds between questions: ten minutes
_REFUSED = 2  # pauses after which no is no
_AWAY = re.compile(r"contact slurm|gave no answer|timed out|[Cc]onnect|standby|Zero Bytes", re.IGNORECASE)
_DOWN = re.compile(r"DOWN|NOT_RESPONDING|FAIL|\*")
_AT_ONCE = 32  # nodes
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


def job_id_in(environ: Mapping[str, str]) -> str | None:
    """What scontrol knows this job by; a task of an array by its number: the id of the array would mean all tasks."""
    task = array_task(environ)
    return f"{environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else environ.get("SLURM_JOB_ID")


def array_task(environ: Mapping[str, str]) -> str:
    """The number of this task of an array, '' outside of one."""
    return environ.get("SLURM_ARRAY_TASK_ID", "") if environ.get("SLURM_ARRAY_JOB_ID") else ""


def lost_among(hosts: Sequence[str]) -> tuple[str, ...]:
    """Those that SLURM takes for dead, or soon will, as their slurmd takes no connection."""
    if not hosts:
        return ()
    said = ask(("scontrol", "show", "node", "-o", ",".join(hosts)), patience=_PATIENCE)
    with ThreadPoolExecutor(min(_AT_ONCE, len(hosts)), "dtk knocking") as pool:
        lost = pool.map(_is_lost, said.stdout.splitlines())
        return tuple(host for host in lost if host)


def _is_lost(node: str) -> str:
    """The name in scontrol's line on a node if that is lost, else ''."""
    values: dict[str, str] = dict(re.findall(r"(?:^|\s)(NodeName|NodeAddr|Port|State)=(\S+)", node))
    name = values.get("NodeName", "")
    if _DOWN.search(values.get("State", "")):
        return name
    try:
        socket.create_connection((values.get("NodeAddr", name), int(values.get("Port", "6818"))), _KNOCK).close()
    except (OSError, ValueError):
        return name
    return ""


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
