"""What SLURM says of jobs: `scontrol show job`, which knows all of one, and `squeue`, which lists many. Pure."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from dtk_launch.schedulers.base import JobState
from dtk_launch.schedulers.site import count, minutes
from dtk_launch.schedulers.slurm_reasons import reason_words

SQUEUE = ("squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%M|%l|%D|%N|%S|%V|%o")
_FIELD = re.compile(r"(?:^| )([A-Za-z][A-Za-z:/]*)=(\S*)")
_PATH = re.compile(r"^\s*(Command|StdOut)=(.*)$", re.MULTILINE)
_REASON = re.compile(r"Reason=(.*?) Dependency=")
_NAME = re.compile(r" JobName=.*$", re.MULTILINE)
_OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
_NEVER_A_REASON = {"None", "(null)", "N/A", ""}


def parse_jobs(text: str) -> list[JobState]:
    """The jobs in what `scontrol show job ID` prints, an array's in the order of its tasks."""
    records = re.split(r"^(?=JobId=)", text, flags=re.MULTILINE)
    found = [job for record in records if (job := _shown(record)) is not None]
    return sorted(found, key=lambda job: _order(job.id))


def _shown(record: str) -> JobState | None:
    record = _NAME.sub("", record)  # it may hold anything
    fields = _FIELD.findall(" ".join(line.strip() for line in record.splitlines()))
    field = dict(reversed(fields))  # the first of each: paths and comments, which may hold anything, come last
    field |= dict(_PATH.findall(record))  # these may hold blanks
    if reason := _REASON.search(record):
        field["Reason"] = reason[1]
    if not field.get("JobId") or not field.get("JobState"):
        return None
    task = field.get("ArrayTaskId")
    number = f"{field.get('ArrayJobId')}_{task if task.isdecimal() else f'[{task}]'}" if task else field["JobId"]
    return _state(
        number,
        field["JobState"],
        field.get("Reason", ""),
        ran=field.get("RunTime", ""),
        limit=field.get("TimeLimit", ""),
        nodes=field.get("NumNodes", ""),
        hosts=field.get("NodeList", ""),
        start=field.get("StartTime", ""),
        submitted=field.get("SubmitTime", ""),
        script=field.get("Command", ""),
        restarts=int(field["Restarts"]) if field.get("Restarts", "").isdecimal() else None,
        exit_code=field.get("ExitCode", ""),
        user=field.get("UserId", "").partition("(")[0],
        dependency=field.get("Dependency", ""),
        log=field.get("StdOut", ""),
    )


def parse_queue(text: str) -> list[JobState]:
    """The jobs in what SQUEUE prints; lines that are not understood are left out."""
    found = []
    for line in text.splitlines():
        parts = line.split("|", 9)
        if len(parts) == 10 and re.match(r"\d", parts[0]):
            number, state, reason, ran, limit, nodes, hosts, start, submitted, script = parts
            found.append(
                _state(
                    number,
                    state,
                    reason,
                    ran=ran,
                    limit=limit,
                    nodes=nodes,
                    hosts=hosts,
                    start=start,
                    submitted=submitted,
                    script=script,
                )
            )
    return sorted(found, key=lambda job: _order(job.id))


def _state(
    number: str,
    state: str,
    reason: str,
    *,
    ran: str,
    limit: str,
    nodes: str,
    hosts: str,
    start: str,
    submitted: str,
    script: str,
    restarts: int | None = None,
    exit_code: str = "",
    user: str = "",
    dependency: str = "",
    log: str = "",
) -> JobState:
    began = "" if start in _NEVER_A_REASON | {"Unknown"} else start.replace("T", " ")
    waits_for = "" if dependency in _NEVER_A_REASON else dependency
    first = state.partition(" ")[0]
    reason = "" if reason in _NEVER_A_REASON or first == "CANCELLED" else reason  # it keeps what it had waited for
    return JobState(
        id=number,
        state=first.lower(),
        over=first in _OVER,
        reason=reason,
        why=reason_words(reason, number, began, waits_for, restarts),
        nodes=count(nodes),
        most=count(nodes.partition("-")[2]),
        hosts="" if hosts in _NEVER_A_REASON else hosts,
        ran=_seconds(ran) if first != "PENDING" else None,
        limit=_seconds(limit),
        start=began,
        submitted=_unix(submitted),
        restarts=restarts,
        exit_code=exit_code,
        user=user,
        script=Path(script) if script.startswith("/") else None,
        log=log if "4294967294" not in log else "",
    )


def _seconds(text: str) -> float | None:
    found = minutes(text)
    return None if found is None else found * 60


def _unix(text: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return None


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", number)[:2])
