"""Checks and conversions of single values, shared by launched and submitted runs. Pure; each raises PlanError."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.errors import PlanError, unknown
from dtk_launch.given import whole
from dtk_launch.options import CPU_BINDS, DEVICES, ON_HANG, ONE_PROCESS, STRATEGIES, LaunchOptions, flag_of
from dtk_launch.tuning import FLAGS

_MOST_RANKS = 4096
_MOST_NODES = 100_000
_LONGEST_NAME = 255

_ELASTIC = ("RESTART_COUNT", "MAX_RESTARTS", "RUN_ID", "USE_AGENT_STORE", "ERROR_FILE")
_RESERVED = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"), "leave it out"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "pass --nproc or --nodes"),
    **dict.fromkeys(("GROUP_WORLD_SIZE", "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE"), "leave it out"),
    **dict.fromkeys((f"TORCHELASTIC_{name}" for name in _ELASTIC), "leave it out"),
    **dict.fromkeys(("DTK_SUPERVISOR", "DTK_LIVE", "DTK_VITALS", "DTK_FAULTS", "DTK_STOP"), "leave it out"),
    "DTK_CPUS": "pass --cpu-bind",
    "DTK_RUN_DIR": "pass --run-dir",
    "DTK_RUN_NAME": "pass --name",
    "DTK_STRATEGY": "pass --strategy",
    "DTK_DEVICE": "pass --device",
    **{variable: f"pass {flag}" for variable, flag in FLAGS.items()},
}


def check_choices(options: LaunchOptions, sources: Mapping[str, str] | None = None) -> None:
    """Refuse a strategy or a device that nobody knows, and say where it came from. Used for submitted jobs too."""
    choices = {"strategy": STRATEGIES, "device": DEVICES, "cpu_bind": CPU_BINDS, "on_hang": ON_HANG}
    for name, known in choices.items():
        value = getattr(options, name)
        if value not in known:
            where = f" ({sources[name]})" if sources else ""
            raise PlanError(f"{flag_of(name)}={value}{where}: {unknown(name.replace('_', ' '), value, known)}")

    if options.hang_timeout == "off" and options.on_hang == "stop":
        raise PlanError(
            "--on-hang=stop ends a run that hangs, but with --hang-timeout=off nobody looks whether it does; drop one "
            "of the two, or pass --on-hang report"
        )


def check_topology(options: LaunchOptions, nodes: int, nproc: int) -> None:
    """Refuse the strategy that has one process when there are more."""
    if options.strategy in ONE_PROCESS and nodes * nproc > 1:
        raise PlanError(
            f"--strategy {options.strategy} is one process, but this is {nodes} x {nproc} ranks; "
            "pass --nproc 1 or --strategy ddp"
        )


def version_of(text: str) -> tuple[int, int]:
    """`2.14.1+cu130` -> (2, 14)."""
    major, minor = text.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def parse_nproc(asked: str) -> int:
    """`--nproc` as a number of at least 1, or PlanError."""
    if not whole(asked):
        raise PlanError(f"--nproc={asked!r} is neither a number nor auto, gpu or cpu")
    if len(asked) > 9 or int(asked) > _MOST_RANKS:
        raise PlanError(f"--nproc={asked} is more than {_MOST_RANKS} ranks on one node; pass --nproc cpu or gpu")
    if int(asked) < 1:
        raise PlanError(f"--nproc={asked}: a run has at least one rank; pass 1 or more, or auto")
    return int(asked)


def parse_nodes(asked: str) -> tuple[int, int]:
    """`--nodes` as (fewest, most), both at least 1, or PlanError."""
    low, colon, high = asked.partition(":")
    if not whole(low) or (colon and not whole(high)):
        raise PlanError(f"--nodes={asked}: pass a number of 1 or more, or MIN:MAX")
    if len(asked) > 19 or int(high if colon else low) > _MOST_NODES:
        raise PlanError(f"--nodes={asked} is more than {_MOST_NODES} nodes; pass the nodes that there are")
    fewest, most = int(low), int(high if colon else low)
    if fewest < 1 or most < fewest:
        raise PlanError(f"--nodes={asked}: pass 1 or more, and MIN:MAX with MIN up to MAX")
    return fewest, most


def run_name(options: LaunchOptions) -> str:
    """The run's name: as given, else the script's stem or the module's last part. Raises PlanError if unusable."""
    default = options.script.rpartition(".")[2] if options.module else Path(options.script).stem
    name, pass_one = options.name or default, "one" if options.name else "a --name"
    of = "module's" if options.module else "script's file"
    what = f"--name={name!r}" if options.name else f"the run's name is {name!r}, the {of} name, which"
    if any("\udc80" <= character <= "\udcff" for character in name):
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding == "utf-8" else "set PYTHONUTF8=1, or "
        raise PlanError(f"{what} cannot be read as text in this locale ({encoding}); {hint}pass {pass_one} of letters")
    if name.strip() in ("", ".", "..") or "/" in name or not name.isprintable():
        raise PlanError(
            f"{what} cannot be the name of a folder; pass {pass_one} without '/', and --run-dir for another place"
        )
    if len(os.fsencode(name)) > _LONGEST_NAME:
        shorter = "a shorter one" if options.name else "a shorter --name"
        raise PlanError(f"{what} is longer than {_LONGEST_NAME} bytes, too long for a folder; pass {shorter}")
    return name


def run_folder(options: LaunchOptions, name: str, cwd: Path) -> Path:
    """Absolute path of the run directory."""
    try:
        return cwd / Path(options.run_dir or Path("runs") / name).expanduser()
    except RuntimeError:
        raise PlanError(
            f"--run-dir={options.run_dir}: there is no such user; write ./~NAME for a folder of that name"
        ) from None


def check_threads(text: str, where: str) -> None:
    """Refuse an OMP_NUM_THREADS that OpenMP would ignore: each rank would take all cores."""
    if not re.fullmatch(r"\s*0*[1-9]\d*\s*(,\s*0*[1-9]\d*\s*)*", text):
        raise PlanError(
            f"OMP_NUM_THREADS={text!r} ({where}) is no number of threads, and OpenMP would ignore it; "
            "pass 1 or more, or unset it"
        )


def parse_env(pairs: tuple[str, ...], sources: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """`K=V` pairs of --env. Raises PlanError for what is none, and for what dtk or torchrun sets themselves.

    With `sources`, the message names the line of the file in which a pair stands.
    """
    parsed = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        source = (sources or {}).get(f"env {key}", "flag")
        env = "--env" if source.startswith("flag") else f"{source}: env"
        if not equals or not key.isidentifier() or not key.isascii() or "\0" in value:
            hint = "pass for example --env NCCL_DEBUG=INFO" if env == "--env" else "a NAME is of letters, digits and _"
            raise PlanError(f"{env} {pair!r} is not NAME=VALUE; {hint}")
        if key in _RESERVED:
            raise PlanError(f"{env} {key} is set by dtk or torchrun for each rank; {_RESERVED[key]}")
        parsed.append((key, value))
    return tuple(parsed)
