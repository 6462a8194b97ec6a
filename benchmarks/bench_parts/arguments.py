"""The options that benchmarks of training take alike, and their checks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from dtk_launch.errors import unknown
from dtk_launch.facts import count_cores, count_gpus, installed_version

from . import elsewhere


class UsageError(Exception):
    """The arguments do not fit each other or the machine. One message that says what to do."""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print the usage and exit; says in words what int and float refuse."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", int, _whole)
        self.register("type", float, _number)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError. Called by argparse."""
        raise UsageError(f"{message}; {self.prog} --help lists the options")


def add_common(
    parser: argparse.ArgumentParser, name: str, nproc: str, rounds: int, rounds_of: str, *, devices: bool = True,
    several: bool = False,
) -> None:  # fmt: skip
    """--nproc, --device, --rounds, --seed, --out, --resume, --overwrite and --json of `dtk bench NAME`.

    Args:
        nproc: what it is the number of.
        rounds: the default of --rounds; a round has one block of each of `rounds_of`.
        several: whether --nproc may be a list, which is then handed on as text.
        devices: False where it measures on the CPU alone, and --device would have no choice.
    """
    add = parser.add_argument
    default = "every GPU; 2 without GPUs" if devices else "2"
    kind, shown = (str, "N,M") if several else (int, "N")
    add("--nproc", type=kind, metavar=shown, help=f"{nproc} (default: {default})")
    if devices:
        add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPUs if there are any")
    else:
        parser.set_defaults(device="cpu")
    add("--rounds", type=int, default=rounds, metavar="N", help=f"blocks of each {rounds_of} (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: %(default)s)")
    add_output(parser, name)


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """--out, --resume, --overwrite and --json of `dtk bench NAME`."""
    parser.add_argument(
        "--out", type=_folder, default=Path(f"runs/bench-{name}"), metavar="DIR",
        help="results.jsonl, report.md, report.html and its plots go here, over those of a complete run "
        "(default: %(default)s)",
    )  # fmt: skip
    unfinished = parser.add_mutually_exclusive_group()
    unfinished.add_argument(
        "--resume", action="store_true",
        help="go on with the interrupted run in --out; the other options must be those it was started with",
    )  # fmt: skip
    unfinished.add_argument(
        "--overwrite", action="store_true", help="begin anew in the place of an interrupted run in --out"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; pass a folder")
    return Path(text)


def split_names(flag: str, kind: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """The names in `A,B`, each of which is `known` and there once.

    Raises:
        UsageError: with the names there are.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    if not names or len(set(names)) < len(names):
        problem = "names none" if not names else "names one twice"
        raise UsageError(f"{flag} {text!r} {problem}; known: {', '.join(known)}")
    return names


def check_numbers(given: argparse.Namespace, *names: str) -> None:
    """Refuse a seed out of range, and what is not positive of these options (None passes)."""
    for name in names:
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a positive number")
    if not 0 <= given.seed < 2**63:
        raise UsageError(f"--seed {given.seed} is not between 0 and 2**63 - 1")


def usable_cores() -> int:
    """Cores that this process may use, or of the machine that the arguments are for."""
    if (cores := elsewhere.has("cores")) is not None:
        return cores
    return count_cores(os.environ, Path("/")).number


def usable_gpus(device: str) -> int:
    """GPUs that `--device` leaves to use, here or on the machine that the arguments are for."""
    if device != "cpu" and (gpus := elsewhere.has("gpus")) is not None:
        return gpus
    return 0 if device == "cpu" else count_gpus(os.environ, Path("/"), installed_version("torch")).number


def choose_nproc(given: argparse.Namespace, cores: int, gpus: int) -> int:
    """The number of ranks, which the machine has GPUs (where there are any) and cores for."""
    if given.device == "cuda" and gpus == 0:
        raise UsageError("--device cuda, but there is no GPU here; pass --device cpu")
    if given.nproc is None:
        return gpus or min(2, cores)
    nproc: int = given.nproc
    if gpus and nproc > gpus:
        raise UsageError(
            f"--nproc {nproc} needs {nproc} GPUs, and {gpus} can be used; pass at most --nproc {gpus}, or --device cpu"
        )
    if nproc > cores:
        raise UsageError(f"--nproc {nproc} needs {nproc} cores, and {cores} can be used; pass at most --nproc {cores}")
    return nproc
