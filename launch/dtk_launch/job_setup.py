"""What a job does before its ranks start, and what they run in: modules, environments, containers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.errors import PlanError, unknown
from dtk_launch.options import RUNTIMES, SubmitOptions
from dtk_launch.schedulers.base import Container


def setup_lines(options: SubmitOptions, cwd: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Lines of bash: modules, the environment to activate, then the user's own. Raises PlanError."""
    if options.venv and options.conda:
        raise PlanError(f"--venv={options.venv} and --conda={options.conda}: one environment can be active; keep one")
    for name in options.load:
        if not name.strip() or not name.isprintable():
            raise PlanError(f"--load={name!r} names no module; pass for example cuda/12.4, or leave it out")
    lines = [f"module load {shlex.quote(name)} || exit 1" for name in options.load]
    if options.venv:
        script = cwd / Path(options.venv).expanduser() / "bin" / "activate"
        if not script.is_file():
            raise PlanError(f"--venv={options.venv}: {script} is not there; pass the folder of a virtual environment")
        lines.append(f"source {shlex.quote(str(script))} || exit 1")
    if options.conda:
        program = environ.get("CONDA_EXE") or "conda"
        shell = f'eval "$({shlex.quote(program)} shell.bash hook)"'
        lines.append(f"{{ {shell} && conda activate {shlex.quote(options.conda)} ; }} || exit 1")
    for line in options.setup:
        if "\n" in line or "\r" in line:
            raise PlanError(f"--setup={line!r} has a line break; give each line its own --setup")
        lines.append(line)
    return tuple(lines)


def dtk_there(options: SubmitOptions, own: tuple[str, ...]) -> tuple[str, ...]:
    """The words that start dtk on the nodes: this one, or that of the environment which they activate."""
    return ("dtk",) if options.venv or options.conda or options.container_image else own


def container(options: SubmitOptions, workdir: Path, run_dir: Path) -> Container | None:
    """The container of the ranks, None without one. Raises PlanError."""
    if not options.container_image:
        for flag, value in (
            ("--container-runtime", options.container_runtime),
            ("--container-mounts", options.container_mounts),
        ):
            if value:
                raise PlanError(f"{flag}={value}, but there is no container; pass --container-image, or drop it")
        return None
    runtime = options.container_runtime or ("apptainer" if options.container_image.endswith(".sif") else "pyxis")
    if runtime not in RUNTIMES:
        raise PlanError(f"--container-runtime={runtime}: {unknown('runtime', runtime, RUNTIMES)}")
    for folder in (workdir, run_dir):
        if not {":", ","}.isdisjoint(str(folder)):
            raise PlanError(f"{folder} has a colon or a comma in its name, so no container can have it; rename it")
    apart = () if run_dir.is_relative_to(workdir) else (run_dir,)
    own = [f"{folder}:{folder}" for folder in (workdir, *apart)]
    further = [mount for mount in options.container_mounts.split(",") if mount]
    for mount in further:
        source, _, target = mount.partition(":")
        if not (source and target):
            raise PlanError(f"--container-mounts: {mount!r} is not SOURCE:TARGET; pass for example /data:/data")
    return Container(options.container_image, runtime, (*own, *further))
