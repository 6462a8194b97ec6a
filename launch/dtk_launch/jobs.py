"""Submitted jobs: options -> JobPlan -> script -> scheduler."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from dtk_launch.asking import ask
from dtk_launch.code_paths import folders_in_place
from dtk_launch.code_snapshot import Code, discard, make, plan_code
from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.facts import HostFacts
from dtk_launch.grace import check_stop
from dtk_launch.job_record import JobRecord
from dtk_launch.job_setup import container, dtk_there, setup_lines
from dtk_launch.job_values import asked, check_forms
from dtk_launch.job_words import batch_words, launch_words, plain_words
from dtk_launch.mounts import of_one_host
from dtk_launch.notice import notice
from dtk_launch.options import SubmitOptions, flag_of
from dtk_launch.plan import check_torch
from dtk_launch.ranklist import parse_ranks
from dtk_launch.rendezvous import check_restarts
from dtk_launch.run_taken import check_free
from dtk_launch.runfolder import check_run_folder
from dtk_launch.schedulers.base import JobPlan, Scheduler, Torchrun, failure
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.sweep import sweep_lines, with_sweep
from dtk_launch.tuning import check_tuning
from dtk_launch.values import check_choices, check_topology, parse_env, parse_nodes, parse_nproc, run_folder, run_name

_NOT_PLAIN = (
    *("strategy", "precision", "offload", "zero_stage", "deepspeed_config", "fsdp_wrap", "fsdp_reshard"),
    *("fsdp_activation_checkpointing", "fsdp_state_dict", "cpu_bind", "hang_timeout", "on_hang", "preempt_signal"),
    *("grace", "quiet_ranks", "max_stalls"),
)
"""What dtk does on a node, and torchrun does not."""
_SOON = 60  # seconds to its start that are not worth a word


def build_job(options: SubmitOptions, facts: HostFacts) -> JobPlan:
    """Decide everything that this host can decide, or raise PlanError. Cores and GPUs are those of the job's nodes."""
    options, tasks = with_sweep(options)
    check_choices(options)
    check_tuning(options)
    check_stop(options)
    if options.max_restarts < 0:
        raise PlanError(f"--max-restarts={options.max_restarts}: pass 0 or more")
    check_forms(options)
    _check_plain(options)
    if options.no_requeue and options.max_stalls != SubmitOptions.max_stalls:
        raise PlanError(f"--max-stalls={options.max_stalls} bounds the requeues, but --no-requeue; drop one of the two")
    signal = notice(options)
    if dtk_there(options, facts.dtk) == facts.dtk:  # the nodes use what is installed here
        check_torch(facts)
    counted = options.nproc not in ("auto", "gpu", "cpu")
    nproc = parse_nproc(options.nproc) if counted else 1
    fewest, nodes = parse_nodes(options.nodes or "1")
    if options.rdzv or options.node_rank >= 0:
        raise PlanError("--rdzv and --node-rank are for nodes without a scheduler; drop them for dtk submit")
    if fewest < nodes:
        check_restarts(options)
    check_topology(options, nodes, nproc)
    parse_ranks(options.quiet_ranks, "--quiet-ranks", nodes * nproc if counted else None)
    name = run_name(options)
    run_dir = run_folder(options, name, facts.cwd)
    gpus = options.gpus_per_node or (str(nproc) if options.device == "cuda" and counted else "")
    plain = Torchrun(facts.torchrun, options.nproc, options.max_restarts) if options.plain else None
    return JobPlan(
        launch=launch_words(options, facts, name, run_dir) if plain is None else plain_words(options, plain, nodes),
        nodes=nodes,
        fewest=fewest if fewest < nodes else 0,
        name=name,
        run_dir=run_dir,
        output_dir=facts.cwd / Path(options.output_dir or run_dir).expanduser(),
        workdir=facts.cwd,
        asked=(*asked(options, gpus), *([("signal", signal)] if signal else [])),
        cpus_per_task=options.cpus_per_task,
        array=options.array,
        setup=(*setup_lines(options, facts.cwd, dict(facts.environ)), *sweep_lines(tasks)),
        env=parse_env(options.env) if options.plain else (),
        container=container(options, facts.cwd, run_dir),
        plain=plain,
        template=facts.cwd / Path(options.template).expanduser() if options.template else None,
        requeue=not options.no_requeue,
        batch=batch_words(options, facts, run_dir),
    )


def _check_plain(options: SubmitOptions) -> None:
    if not options.plain:
        return
    for name in _NOT_PLAIN:
        value = getattr(options, name)
        if value != getattr(SubmitOptions, name):
            raise PlanError(
                f"--plain leaves the nodes to torchrun, but {flag_of(name)}={value} is for dtk; drop one of the two"
            )
    if ":" in options.nodes:
        raise PlanError(
            f"--plain: torchrun does not notice that a node has died, and --nodes={options.nodes} is there to go on "
            "without it; drop one of the two"
        )


def submit(options: SubmitOptions, facts: HostFacts) -> None:
    """Render the job, and unless it is a dry run submit it and print the job id. Raises PlanError, SubmitError."""
    scheduler: Scheduler = Slurm()
    job = build_job(options, facts)
    check_run_folder(job.run_dir)
    code = _code(options, facts, job) if options.snapshot else None
    if code is not None:
        job = _placed(build_job(code.options(options), facts), code, options)
    deliver(job, options, scheduler, code)


def deliver(
    job: JobPlan, options: SubmitOptions, scheduler: Scheduler, code: Code | None = None, benchmark: str = ""
) -> None:
    """Print the script of a dry run, or submit it and print the job id. Raises PlanError, SubmitError.

    `options`: those of the job. `benchmark`: its name, where the job is one, whose run directory holds its results.
    """
    text = scheduler.render(job)
    if options.dry_run:
        print(json.dumps({"script": text, "run_dir": str(job.run_dir)}) if options.json else text, end="")
        return
    program = shutil.which(scheduler.program)
    if program is None:
        raise PlanError(
            f"no {scheduler.program} on PATH, so this host cannot submit; run it on a login node, or add --dry-run "
            "to see the script"
        )
    check_free(job, scheduler, "--out" if benchmark else "--name")
    notes = _check(scheduler, job, text)
    if code is not None:
        notes.append(make(code, options, os.environ))
    script, began = (
        _write(job, text, "--out" if benchmark else "--run-dir"),
        time.time(),
    )  # the job may start before sbatch answers
    try:
        said = _submit(scheduler, job, script)
    except SubmitError:
        if code is not None:
            discard(code)
        raise
    job_id = scheduler.parse_job_id(said)
    log = scheduler.log_path(job, job_id)
    cluster = scheduler.parse_cluster(said)
    tasks = tuple(" ".join(words) for words in with_sweep(options)[1])
    record = JobRecord(job_id, cluster, began, str(log), str(script), job.array, tasks, benchmark=benchmark)
    record.write(job.run_dir)
    for note in notes:
        _note(note)
    if options.json:
        values = {"job_id": job_id, "run_dir": str(job.run_dir), "script": str(script), "log": str(log)}
        print(json.dumps(values))
    else:
        print(f"{job_id}\nlog: {log}")
        if benchmark:
            print(f"results: {job.run_dir}\nwatch: dtk status {job_id}, dtk logs {job_id} -f")


def _code(options: SubmitOptions, facts: HostFacts, job: JobPlan) -> Code:
    """The snapshot that the job is to run from. Looks at the tree and at what this Python imports from."""
    mappings = [vars(found)["MAPPING"] for name, found in sys.modules.items() if name.startswith("__editable___")]
    return plan_code(options, facts.cwd, job.run_dir, os.environ, folders_in_place(sys.path[1:], mappings))


def _placed(job: JobPlan, code: Code, options: SubmitOptions) -> JobPlan:
    """The job in its snapshot. A container gets the tree that it was copied from as well: its links lead there."""
    mounted = container(options, code.files.root, job.run_dir)
    if job.container is not None and mounted is not None:
        mounted = replace(mounted, mounts=tuple(dict.fromkeys((*job.container.mounts, *mounted.mounts))))
    return replace(job, workdir=code.workdir, setup=(*job.setup, *code.setup), container=mounted)


def _check(scheduler: Scheduler, job: JobPlan, text: str) -> list[str]:
    """Ask the cluster before it is given the job. Raises PlanError for what would be refused, or pend for ever."""
    site = ask(scheduler.site_argv())
    found, whole = site.stdout if site.returncode == 0 else "", scheduler.with_variables(job, os.environ)
    if reasons := scheduler.refusals(whole, found):
        raise PlanError("this job could never start: " + "; ".join(reasons))
    contained = ""
    if container_argv := scheduler.container_argv(job):
        said = ask(container_argv)
        contained = scheduler.container_note(job, said.stdout if said.returncode == 0 else "")
    tested = ask(scheduler.test_argv(), text, environ=scheduler.submit_environ(job, os.environ))
    code = tested.returncode
    refusal, start = ("", "") if code is None else scheduler.read_test(code, tested.stderr)
    if refusal:
        raise PlanError(f"{scheduler.program} would refuse this job: {refusal}")
    waits = scheduler.waits(whole, found)
    kind = of_one_host(job.run_dir) if job.nodes > 1 else ""
    apart = f"{job.run_dir} is on {kind}, a file system of this host; every node has to see it" if kind else ""
    expected = f"SLURM expects to start it at {start}" if start and _far(start) else ""
    return [note for note in (waits, contained, apart, expected) if note]


def _far(start: str) -> bool:
    """Whether that is more than a minute away; True where it cannot be read."""
    try:
        return time.mktime(time.strptime(start, "%Y-%m-%d %H:%M:%S")) > time.time() + _SOON
    except (ValueError, OverflowError):
        return True


def _write(job: JobPlan, text: str, another: str) -> Path:
    """The script in the run directory, and every folder that the job needs: a missing one fails it without a log."""
    script = job.run_dir / "job.sbatch"
    try:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        job.output_dir.mkdir(parents=True, exist_ok=True)
        script.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise PlanError(f"{error.filename} cannot be written: {error.strerror}; pass another {another}") from None
    return script


def _submit(scheduler: Scheduler, job: JobPlan, script: Path) -> str:
    """What the scheduler printed of the job that it took."""
    environ = scheduler.submit_environ(job, os.environ)
    try:
        done = ask(scheduler.submit_argv(script), patience=None, environ=environ)
    except SystemExit:  # interrupt.py
        _note(f"{scheduler.program} had not answered yet, so the job may be in the queue (squeue --me)")
        raise
    if done.returncode != 0:
        raise SubmitError(f"{scheduler.program} refused the job: {failure(done, scheduler)}")
    return done.stdout


def _note(text: str) -> None:
    print(f"dtk: note: {text}", file=sys.stderr)
