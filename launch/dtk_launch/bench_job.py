"""`dtk bench NAME --slurm`: the same benchmark as a job. Its driver runs once, on the first node of the job.

Options of `dtk submit` are those of the job and are checked as there; everything else is the benchmark's, which checks
that itself, for the machine that the job asks for, before anything is submitted.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dtk_launch.arguments import partial_command
from dtk_launch.config import resolve
from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.given import with_source
from dtk_launch.job_setup import dtk_there, setup_lines
from dtk_launch.job_values import Asked, asked, check_forms
from dtk_launch.jobs import deliver
from dtk_launch.options import SubmitOptions, flag_of
from dtk_launch.plan import check_torch
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.site import minutes
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.values import parse_env, parse_nodes, run_name

TAKEN = (
    *("nodes", "time", "partition", "account", "gpus_per_node", "cpus_per_task", "mem", "output_dir", "qos"),
    *("constraint", "reservation", "exclusive", "dependency", "mail_type", "mail_user", "sbatch", "load", "venv"),
    *("conda", "setup", "template", "name", "env", "profile", "dry_run", "json"),
)
"""Options of `dtk submit` that are for the job of a benchmark, too."""
REFUSED = {
    "run_dir": "the results go to --out",
    "array": "a benchmark is one job; submit one for each --out",
    "sweep": "a benchmark is one job; submit one for each --out",
    "snapshot": "what is measured is the dist-toolkit that is installed",
    "plain": "dtk itself starts what is measured",
    "no_requeue": "a benchmark is never requeued; submit it again with --resume",
    "max_stalls": "a benchmark is never requeued; submit it again with --resume",
    **dict.fromkeys(
        ("container_image", "container_runtime", "container_mounts"),
        "a benchmark runs in the environment of the job; start dtk bench in a container by a script of your own",
    ),
}
"""Options of `dtk submit` that are not, and why."""
HERE = ("compare", "report")
"""What measures nothing."""
CHECK = "BENCHMARK_CHECK"  # benchmarks/bench_parts/elsewhere.py
_NOTICE = "B:TERM@60"  # seconds; B: the batch script, which is the driver, and not the ranks
_LONG_ENOUGH = 5  # minutes
_MANY_CORES = 1 << 16  # of nodes of which nothing is known

_OWN_WORDS = {
    "nodes": "Nodes of the job, for a benchmark that has --nodes. Default: 1.",
    "name": "Name of the job. Default: bench-NAME.",
    "env": "Set an environment variable for the benchmark. Repeatable.",
    "gpus_per_node": "GPUs on each node. Default: none.",
    "cpus_per_task": "Cores on each node, for all of its ranks together. Default: as many as there are ranks.",
    "output_dir": "Where the job's own log goes. Default: the --out of the benchmark.",
    "venv": "Activate this virtual environment. Default: the environment that dtk bench runs in.",
    "setup": "A line of bash to run before the benchmark starts, on the first node. Repeatable.",
    "dry_run": "Print the batch script, and stop.",
    "json": "Print JSON: the script in a dry run, else the job.",
}
"""What the options of `dtk submit` mean here, where that is not the same."""

_HELP = """Run the benchmark {name} as a SLURM job.

Options that are not in this list are the benchmark's: dtk bench {name} --help. The results go to its --out, which every
node has to see. With --dry-run, print the batch script instead."""


def submit(name: str, script: str, words: Sequence[str], behind: Sequence[str] = ()) -> None:
    """Check everything, submit the job and print its id. Raises PlanError, SubmitError.

    `script` is the benchmark's path; `behind`: the words from the script that it takes on, none of which are dtk's.
    """
    if name in HERE:
        raise PlanError(f"--slurm, but dtk bench {name} measures nothing; drop --slurm")
    given, args = split(name, words)
    facts = HostFacts.probe()
    settings = resolve(SubmitOptions, given, dict(facts.environ), facts.cwd)
    options = of_job(settings.options, name, given)
    nodes = _nodes(options)
    args = (*args, *((f"--nodes={nodes}",) if nodes > 1 else ()), *behind)
    try:
        check_forms(options)
        needs = checked(name, script, args, options, nodes, dict(facts.environ))
        job = build(name, args, options, facts, nodes, needs)
    except PlanError as error:
        raise PlanError(with_source(str(error), settings.sources)) from None
    if note := without_notice(job, options):
        print(f"dtk: note: {note}", file=sys.stderr)
    deliver(job, options, Slurm(), benchmark=name)


def split(name: str, words: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options of the job, None for what is not given, and the benchmark's words. Raises PlanError."""
    command = partial_command(name, SubmitOptions, (*TAKEN, *REFUSED), _HELP.format(name=name), _OWN_WORDS)
    for parameter in command.params:
        if parameter.name in REFUSED:
            parameter.hidden = True  # type: ignore[attr-defined]
    with command.make_context(f"dtk bench {name} --slurm", list(words)) as context:
        given: dict[str, Any] = command.invoke(context)
    for field, why in REFUSED.items():
        if given.pop(field) is not None:
            raise PlanError(f"{flag_of(field)} is for dtk submit, not for the job of a benchmark: {why}; drop it")
    return given, tuple(given.pop("args") or ())


def of_job(options: SubmitOptions, name: str, given: Mapping[str, Any]) -> SubmitOptions:
    """Without what files and variables say of training jobs: how many ranks and nodes, what strategy, which run."""
    kept = {field: getattr(options, field) for field in TAKEN}
    own = {field: given.get(field) or "" for field in ("name", "nodes")}
    script = {"script": f"bench-{name}", "args": ()}
    values = {field.name: field.default for field in fields(SubmitOptions)} | kept | own | script
    return SubmitOptions(**values)


def _nodes(options: SubmitOptions) -> int:
    fewest, nodes = parse_nodes(options.nodes or "1")
    if fewest < nodes:
        raise PlanError(f"--nodes={options.nodes}: a benchmark needs all of its nodes; pass --nodes {nodes}")
    return nodes


def checked(
    name: str, script: str, args: Sequence[str], options: SubmitOptions, nodes: int, environ: Mapping[str, str]
) -> dict[str, Any]:
    """What the benchmark needs (`out`, `cores`), in its own words. Raises PlanError with its own message."""
    gpus = (
        sum(int(part.rpartition(":")[2]) for part in options.gpus_per_node.split(",")) if options.gpus_per_node else 0
    )
    machine = {"cores": options.cpus_per_task or _MANY_CORES, "gpus": gpus}
    command = [sys.executable, script, *args]
    variables = {**environ, CHECK: json.dumps(machine)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        needs: dict[str, Any] = json.loads(done.stdout)
        return needs
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    said = said.removeprefix(f"dtk bench {name}: error: ")
    if nodes > 1 and "unrecognized arguments" in said and "--nodes" in said:
        said = f"--nodes={nodes}, but dtk bench {name} measures on one node; drop it"
    if "GPU" in said and not gpus:
        said += "; with --slurm, --gpus-per-node N asks for them"
    raise PlanError(f"dtk bench {name}: {said}")


def _asked(options: SubmitOptions) -> Asked:
    """With a notice to the driver before the time is up, so that it can write the report, where there is time for it.

    SLURM may give it up to a minute early.
    """
    found = asked(options, options.gpus_per_node)
    limit = minutes(options.time) if options.time else None
    short = limit is not None and 0 < limit < _LONG_ENOUGH
    return found if short or "signal" in dict(found) else (*found, ("signal", _NOTICE))


def without_notice(job: JobPlan, options: SubmitOptions) -> str:
    """What it means that the job ends without a notice before; '' of one that gets it."""
    if "signal" in dict(job.asked):
        return ""
    out = shlex.quote(str(job.run_dir))
    return (
        f"--time={options.time} is less than {_LONG_ENOUGH} minutes, so the benchmark has no notice before its end: if "
        f"it is not done by then, results.jsonl keeps what was measured, dtk bench report {out} writes its report, and "
        "--resume goes on"
    )


def build(
    name: str, args: Sequence[str], options: SubmitOptions, facts: HostFacts, nodes: int, needs: Mapping[str, Any]
) -> JobPlan:
    """The job. Raises PlanError."""
    own = dtk_there(options, facts.dtk)
    if own == facts.dtk:  # the nodes use what is installed here
        check_torch(facts)
    out = Path(needs["out"])
    exports = tuple(f"export {key}={shlex.quote(value)}" for key, value in parse_env(options.env))
    return JobPlan(
        launch=(*own, "bench", name, *args),
        nodes=nodes,
        name=run_name(options),
        run_dir=out,
        output_dir=facts.cwd / Path(options.output_dir or out).expanduser(),
        workdir=facts.cwd,
        asked=_asked(options),
        cpus_per_task=options.cpus_per_task or (0 if options.exclusive else int(needs["cores"])),
        setup=(*setup_lines(options, facts.cwd, dict(facts.environ)), *exports),
        template=facts.cwd / Path(options.template).expanduser() if options.template else None,
        requeue=False,
        alone=True,
    )
