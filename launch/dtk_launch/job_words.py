"""The commands in a job's script: what each node starts, and what waits for it on the batch host. Pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dtk_launch.facts import HostFacts
from dtk_launch.grace import stop_words
from dtk_launch.hanging import parse_timeout
from dtk_launch.job_setup import dtk_there
from dtk_launch.options import SubmitOptions
from dtk_launch.schedulers.base import PerTask, TaskArguments, Torchrun
from dtk_launch.schedulers.srun import torchrun_words
from dtk_launch.tuning import tuning_words
from dtk_launch.values import parse_env


def launch_words(options: SubmitOptions, facts: HostFacts, name: str, run_dir: Path) -> tuple[str, ...]:
    """The `dtk launch` of each node. Every value is spelt out, so the file of settings is not read again there."""
    words = [*dtk_there(options, facts.dtk), "launch"]
    words += ["--nodes", options.nodes or "1", "--nproc", options.nproc, "--device", options.device]
    words += ["--cpu-bind", options.cpu_bind, "--strategy", options.strategy]
    words += ["--max-restarts", str(options.max_restarts)]
    words += stop_words(options)
    words += tuning_words(options)
    words += ["--hang-timeout", parse_timeout(options.hang_timeout), "--on-hang", options.on_hang]
    if options.array:  # a run of its own for each task
        words += ["--name", PerTask(f"{name}-"), "--run-dir", PerTask(f"{run_dir}/task-")]
    else:
        words += ["--name", name, "--run-dir", str(run_dir)]
    if options.quiet_ranks:
        words += ["--quiet-ranks", options.quiet_ranks]
    for key, value in parse_env(options.env):
        words += ["--env", f"{key}={value}"]
    return (*words, *(("-m",) if options.module else ()), options.script, *_arguments(options))


def plain_words(options: SubmitOptions, torchrun: Torchrun, nodes: int) -> tuple[str, ...]:
    """The torchrun of each node, of the environment that the nodes have."""
    if options.venv or options.conda or options.container_image:
        torchrun = replace(torchrun, program=("torchrun",))
    target = (*(("-m",) if options.module else ()), "--", options.script, *_arguments(options))
    return torchrun_words(torchrun, nodes, target)


def batch_words(options: SubmitOptions, facts: HostFacts, run_dir: Path) -> tuple[str, ...]:
    """What requeues the job, on the batch host: that has no dtk of a container."""
    if options.plain or options.no_requeue:
        return ()
    dtk = ("dtk",) if options.venv or options.conda else facts.dtk
    folder = PerTask(f"{run_dir}/task-") if options.array else str(run_dir)
    elastic = ("--elastic",) if ":" in options.nodes else ()
    return (*dtk, "batch-step", "--run-dir", folder, "--max-stalls", str(options.max_stalls), *elastic, "--")


def _arguments(options: SubmitOptions) -> tuple[str, ...]:
    return (*options.args, *((TaskArguments(),) if options.sweep else ()))
