"""Stands in the batch script between SLURM and srun: waits for the ranks, and requeues a job that is to go on.

SLURM tells the ranks itself when the job is to end, and the batch script, which must outlive them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from dtk_launch import controller
from dtk_launch.early import newest_trainer_state
from dtk_launch.job_record import JobRecord
from dtk_launch.plan import Target
from dtk_launch.remains import Remains, first_has_ended, remains
from dtk_launch.requeue import PREEMPTED, Attempt, decide, line_of, read_attempts
from dtk_launch.run_steps import last_checkpoint

_FILE = "requeues.jsonl"
_NOT_FOUND = 127
_LOOK_EVERY = 5.0  # seconds
_SRUN_PATIENCE = 60.0  # seconds between the end of the last node's ranks and that of srun


def run(command: Sequence[str], run_dir: Path, max_stalls: int, elastic: bool = False) -> int:
    """Run the srun command; its exit code, 128 + n for signal n. What is done about it is said on stderr.

    `elastic`: the run goes on without a node that it has lost, and its code is that of those that are left.
    """
    environ, began_at, began_ns = dict(os.environ), saved_step(run_dir, command), time.time_ns()
    _take_over(run_dir, environ)
    job_id = controller.job_id_in(environ)
    look = partial(remains, run_dir, environ, began_ns)
    code, told = _wait(command, lambda: look() if first_has_ended(run_dir) else None, partial(_say, job_id))
    if job_id is None:
        return code
    left = look()
    if elastic and code not in (0, _NOT_FOUND) and left.code is not None:
        code = left.code
    lost = () if code in (0, PREEMPTED, _NOT_FOUND) else controller.lost_among(left.silent)
    restart = int(environ.get("SLURM_RESTART_COUNT") or 0)
    now = Attempt(job_id, restart, code, began_at, saved_step(run_dir, command), False, time.time())
    state = controller.job_state(job_id, partial(_say, job_id)) if code else None
    decision = decide(now, state, told, _earlier(run_dir, job_id), max_stalls, lost)
    try:
        _note(run_dir / _FILE, replace(now, requeued=decision.requeue, lost=lost))
    except OSError as error:
        if decision.requeue:
            _say(job_id, f"not requeued, for {run_dir / _FILE}, which counts it, cannot be written: {error.strerror}")
        return code
    if decision.why:
        _say(job_id, decision.why)
    if decision.requeue and (refusal := controller.requeue(job_id, partial(_say, job_id))):
        _say(job_id, f"scontrol requeue was refused: {refusal}; to go on: {_by_hand(run_dir, environ)}")
    return code


def saved_step(run_dir: Path, command: Sequence[str]) -> int | None:
    """The newest checkpoint that a restart would go on from: dist_toolkit's, else that of a Trainer; None for none."""
    step = last_checkpoint(run_dir)
    if step is None:
        state = newest_trainer_state(Target("", tuple(command), module=False), Path.cwd())
        step = state.step if state is not None else None
    return step


def _wait(command: Sequence[str], look: Callable[[], Remains | None], say: Callable[[str], None]) -> tuple[int, bool]:
    """(exit code, whether SIGTERM came). srun gets none of the signals: SLURM tells the ranks without it."""
    told = []

    def note(signum: int, frame: FrameType | None) -> None:
        told.append(signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # inherited by srun
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"dtk: {command[0]} cannot be run: {error.strerror}", file=sys.stderr, flush=True)
        return _NOT_FOUND, False
    signal.signal(signal.SIGTERM, note)
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    code = _end_of(child, look, say)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited by scontrol, and kept while Python ends
    return (128 - code if code < 0 else code), bool(told)


def _end_of(child: subprocess.Popen[bytes], look: Callable[[], Remains | None], say: Callable[[str], None]) -> int:
    """Its exit code; of one that waits on though all nodes have ended well before, the run's."""
    over_since: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_LOOK_EVERY)
        left = look()
        if left is None or left.silent or left.code is None:
            over_since = None
        elif over_since is None:
            over_since = time.monotonic()
        elif time.monotonic() - over_since > _SRUN_PATIENCE:
            say(
                f"the ranks of all {len(left.hosts)} nodes have ended, but srun waits for one of them, where SLURM's "
                "slurmstepd must have died; it is ended"
            )
            child.kill()
            child.wait()
            return left.code


def _by_hand(run_dir: Path, environ: Mapping[str, str]) -> str:
    task = controller.array_task(environ)
    words = (f"--array={task}", f"{run_dir.parent}/job.sbatch") if task else (str(run_dir / "job.sbatch"),)
    return shlex.join(("sbatch", *words))


def _take_over(run_dir: Path, environ: Mapping[str, str]) -> None:
    """The record of the job, where it was submitted by hand: `sbatch job.sbatch` writes none."""
    folder = run_dir.parent if controller.array_task(environ) else run_dir
    own, record = environ.get("SLURM_ARRAY_JOB_ID") or environ.get("SLURM_JOB_ID"), JobRecord.read(folder)
    if own and record is not None and record.job_id != own and not record.later_than(own):
        record.of_job(own, time.time()).write(folder)


def _note(path: Path, attempt: Attempt) -> None:
    """Add a line, on one of its own also where the last was cut short. Raises OSError."""
    with open(path, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            whole = file.read() == b"\n"
            file.write(b"" if whole else b"\n")
        file.write(line_of(attempt).encode())


def _earlier(run_dir: Path, job_id: str) -> list[Attempt]:
    try:
        return read_attempts((run_dir / _FILE).read_text(encoding="utf-8", errors="replace"), job_id)
    except OSError:
        return []


def _say(job_id: str | None, words: str) -> None:
    print(f"dtk: job {job_id}: {words}", file=sys.stderr, flush=True)
