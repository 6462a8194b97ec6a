"""`dtk bench NAME`: runs one of the scripts in benchmarks/ in place of this process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from dtk_launch.bench_words import SLURM, split_script
from dtk_launch.errors import PlanError, unknown
from dtk_launch.resources import find_data

_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # until benchmarks/_start.py is ready for them


def known() -> dict[str, str]:
    """Name -> path of the benchmarks that are there."""
    return {path.stem: str(path) for path in sorted(find_data("benchmarks").glob("[a-z]*.py"))}


def listing(scripts: Mapping[str, str]) -> str:
    """What there is, a line each: the first line of each script, which begins with its command."""
    lines = ["usage: dtk bench NAME [ARGS]...", ""]
    for name, path in scripts.items():
        with open(path, encoding="utf-8") as file:
            words = file.readline().strip().strip('"').partition("`: ")[2]
        lines.append(f"  {name:<12}{words}")
    lines += ["", "Each has its own --help. dtk bench NAME --slurm runs it as a job of SLURM; see --slurm --help."]
    return "\n".join(lines)


def run(name: str, args: tuple[str, ...]) -> NoReturn:
    """Replace this process by the benchmark, or with --slurm submit it. Raises PlanError for a name that is none."""
    scripts = known()
    if name in ("", "-h", "--help"):
        print(listing(scripts), file=sys.stdout if name else sys.stderr)
        sys.exit(0 if name else 2)
    if name.startswith("-"):
        raise PlanError(f"the name of a benchmark is missing before {name}; known: {', '.join(scripts)}")
    if name not in scripts:
        raise PlanError(unknown("benchmark", name, scripts))
    own, script = split_script(name, args)
    if SLURM in own:
        from dtk_launch import bench_job

        bench_job.submit(name, scripts[name], tuple(word for word in own if word != SLURM), script)
        sys.exit(0)
    if SLURM in script and "--" not in script:
        print(
            f"dtk: warning: {SLURM} stands after {script[0]} and so is handed to it; options of dtk stand before it",
            file=sys.stderr,
        )
    starter = str(Path(scripts[name]).with_name("_start.py"))
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    os.execv(sys.executable, [sys.executable, starter, name, *args])
