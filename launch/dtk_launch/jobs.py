"""Submitted jobs: options -> JobPlan -> script -> scheduler. The only module that calls a scheduler's program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.facts import HostFacts
from dtk_launch.grace import check_stop, stop_words
from dtk_launch.hanging import parse_timeout
from dtk_launch.options import SubmitOptions
from dtk_launch.ranklist import parse_ranks
from dtk_launch.runfolder import check_run_folder
from dtk_launch.schedulers.base import JobPlan, Scheduler
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.tuning import check_tuning, tuning_words
from dtk_launch.values import check_choices, check_topology, parse_env, parse_nodes, parse_nproc, run_folder, run_name

_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}|UNLIMITED|INFINITE")

_MEM = r"\d+([KMGT]B?)?"
_GPUS = r"([\w.-]+:)?\d+(,[\w.-]+:\d+)*"
_OWN = {
    **{key: f"pass --{key}" for key in ("time", "partition", "account", "mem", "gpus-per-node", "cpus-per-task")},
    "job-name": "pass --name",
    "output": "pass --output-dir",
    "chdir": "start dtk submit in that folder",
    "wrap": "pass a script",
}


def build_job(options: SubmitOptions, facts: HostFacts) -> JobPlan:
    """Decide everything that this host can decide, or raise PlanError. Cores and GPUs are those of the job's nodes."""
    check_choices(options)
    check_tuning(options)
    check_stop(options)
    if options.max_restarts < 0:
        raise PlanError(f"--max-restarts={options.max_restarts}: pass 0 or more")
    if options.time and not _TIME.fullmatch(options.time.upper()):
        raise PlanError(f"--time={options.time!r} is no SLURM time; pass minutes, HH:MM:SS or D-HH:MM:SS")
    for flag, value, form, advice in (
        ("--mem", options.mem, _MEM, "for example 64G"),
        ("--gpus-per-node", options.gpus_per_node, _GPUS, "a number, or TYPE:N"),
    ):
        if value and not re.fullmatch(form, value, re.IGNORECASE):
            raise PlanError(f"{flag}={value!r} is none that sbatch can read; pass {advice}")
    counted = options.nproc not in ("auto", "gpu", "cpu")
    nproc = parse_nproc(options.nproc) if counted else 1
    fewest, nodes = parse_nodes(options.nodes or "1")
    if fewest != nodes or options.rdzv or options.node_rank >= 0:
        raise PlanError(
            "--nodes MIN:MAX, --rdzv and --node-rank are for nodes without a scheduler; drop them for dtk submit"
        )
    check_topology(options, nodes, nproc)
    parse_ranks(options.quiet_ranks, "--quiet-ranks", nodes * nproc if counted else None)
    name = run_name(options)
    run_dir = run_folder(options, name, facts.cwd)
    gpus = options.gpus_per_node or (str(nproc) if options.device == "cuda" and counted else "")
    return JobPlan(
        launch=_launch_words(options, facts, nodes, name, run_dir),
        nodes=nodes,
        name=name,
        run_dir=run_dir,
        output_dir=facts.cwd / Path(options.output_dir or run_dir).expanduser(),
        workdir=facts.cwd,
        time=options.time,
        partition=options.partition,
        account=options.account,
        gpus_per_node=gpus,
        cpus_per_task=options.cpus_per_task,
        mem=options.mem,
        extra=_extra(options.sbatch),
    )


def _launch_words(options: SubmitOptions, facts: HostFacts, nodes: int, name: str, run_dir: Path) -> tuple[str, ...]:
    """The `dtk launch` of each node. Every value is spelt out, so the file of settings is not read again there."""
    words = [*facts.dtk, "launch", "--nodes", str(nodes), "--nproc", options.nproc, "--device", options.device]
    words += [
        "--cpu-bind",
        options.cpu_bind,
        "--strategy",
        options.strategy,
        "--max-restarts",
        str(options.max_restarts),
    ]
    words += stop_words(options)
    words += tuning_words(options)
    words += ["--hang-timeout", parse_timeout(options.hang_timeout), "--on-hang", options.on_hang]
    words += ["--name", name, "--run-dir", str(run_dir)]
    if options.quiet_ranks:
        words += ["--quiet-ranks", options.quiet_ranks]
    for key, value in parse_env(options.env):
        words += ["--env", f"{key}={value}"]
    return (*words, *(("-m",) if options.module else ()), options.script, *options.args)


def _extra(pairs: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    """`KEY=VALUE`, or `KEY` alone for a switch."""
    extra: list[tuple[str, str | None]] = []
    for pair in pairs:
        key, equals, value = pair.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise PlanError(f"--sbatch {pair!r} is not KEY=VALUE; pass for example --sbatch constraint=a100")
        if key in ("ntasks", "ntasks-per-node", "nodes", "array"):
            raise PlanError(f"--sbatch {key} conflicts with one dtk on each node; pass --nodes and --nproc")
        if key in _OWN:
            raise PlanError(f"--sbatch {pair} would override what dtk writes for {key}; {_OWN[key]}")
        extra.append((key, value if equals else None))
    return tuple(extra)


def submit(options: SubmitOptions, facts: HostFacts) -> None:
    """Render the job, and unless it is a dry run submit it and print the job id. Raises PlanError, SubmitError."""
    scheduler: Scheduler = Slurm()
    job = build_job(options, facts)
    check_run_folder(job.run_dir)
    text = scheduler.render(job)
    if options.dry_run:
        print(json.dumps({"script": text, "run_dir": str(job.run_dir)}) if options.json else text, end="")
        return
    program = shutil.which(scheduler.program)
    if program is None:
        raise SubmitError(
            f"no {scheduler.program} on PATH, so this host cannot submit; run it on a login node, or add --dry-run "
            "to see the script"
        )
    script = _write(job, text)
    job_id = _submit(scheduler, script)
    log = scheduler.log_path(job, job_id)
    if options.json:
        values = {"job_id": job_id, "run_dir": str(job.run_dir), "script": str(script), "log": str(log)}
        print(json.dumps(values))
    else:
        print(f"{job_id}\nlog: {log}")


def _write(job: JobPlan, text: str) -> Path:
    """The script in the run directory, and every folder that the job needs: a missing one fails it without a log."""
    script = job.run_dir / "job.sbatch"
    try:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        job.output_dir.mkdir(parents=True, exist_ok=True)
        script.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise PlanError(f"{error.filename} cannot be written: {error.strerror}; pass another --run-dir") from None
    return script


def _submit(scheduler: Scheduler, script: Path) -> str:
    done = subprocess.run(scheduler.submit_argv(script), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SubmitError(f"{scheduler.program} refused the job: {done.stderr.strip() or done.stdout.strip()}")
    return scheduler.parse_job_id(done.stdout)
