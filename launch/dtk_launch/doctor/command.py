"""`dtk doctor`: parse and call."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click


@click.command()
@click.option("--run-dir", default="runs", metavar="DIR", help="Folder of the run directories, to be tested. [runs]")
@click.option(
    "--nproc", "-n", metavar="N", help="Ranks on each node. [one for each GPU; the all-reduce has two or more]"
)
@click.option("--no-run", is_flag=True, help="Leave the all-reduce out.")
@click.option("--timeout", default="120s", metavar="TIME", help="After which an all-reduce is ended. [120s]")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: findings, and the facts that they were read from.")
def doctor(run_dir: str, nproc: str | None, no_run: bool, timeout: str, strict: bool, as_json: bool) -> None:
    """Say what will break a run here, or on the nodes of a job.

    Looks at the versions of Python, torch, CUDA and NCCL; the GPUs and their links; host names, interfaces, and which
    of them gloo and nccl take; ports; clocks; the file system of the run directories; limits, /dev/shm and threads; and
    runs a second of all-reduce. Each finding says what was seen, why it matters, and the fix.

    Inside a SLURM allocation of several nodes (sbatch, salloc) it looks at each of them by srun, at what differs
    between them, and whether they see each other and the same folder; at the node of one that is not this host, too.

    Changes nothing, and leaves nothing behind. Exit code: 0 nothing found that breaks a run, 1 something will, 2 bad
    input, 74 stdout cannot be written.
    """
    from dtk_launch.doctor import report
    from dtk_launch.doctor.checkup import CheckupOptions, ended_by, examine, say
    from dtk_launch.doctor.findings import exit_code
    from dtk_launch.durations import parse_seconds
    from dtk_launch.given import check_value
    from dtk_launch.streams import written
    from dtk_launch.values import parse_nproc

    check_value("run_dir", run_dir, "flag --run-dir")
    folder = Path(os.path.abspath(Path(run_dir).expanduser()))  # noqa: PTH100  # resolve() would follow links
    options = CheckupOptions(
        folder, parse_nproc(nproc) if nproc is not None else None, not no_run, parse_seconds("--timeout", timeout)
    )
    with ended_by(signal.SIGTERM, signal.SIGHUP):
        seen, findings = examine(options, os.environ, say)
    with written():
        print(report.as_json(seen, findings, strict) if as_json else report.text(seen, findings, strict))
    sys.exit(exit_code(findings, strict))
