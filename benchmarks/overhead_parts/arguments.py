"""The command line of `dtk bench overhead`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dtk_launch.errors import unknown
from dtk_launch.facts import count_cores, count_gpus, installed_version
from throughput_parts.arguments import UsageError

from .tables import BASELINE, FEEDS, LOOPS

_TEXT = """\
Seconds per step of the same small DDP training loop: written by hand, with dist_toolkit, with Lightning Fabric and
with Accelerate. All loops live in the same ranks and the same process group, start from the same weights, see the same
batches, and take turns in blocks of equally many steps, in an order that is drawn anew (from --seed) in each round.
Reported are medians over rounds of the ratio to the hand-written loop's block of the same round, with quartiles and a
95 % interval of the median, and whether the loops ended with the same weights."""

_MORE = """\
loops:
{loops}

feeds:
{feeds}

A library that is not installed is left out, and the report says so. Close other programs: a step takes about 5 ms, and
what matters are fractions of it. results.jsonl has every block, so that the report can be checked."""

_QUICK_ROUNDS, _QUICK_STEPS = 2, 4


@dataclass(frozen=True)
class Options:
    """One comparison, checked."""

    loops: tuple[str, ...]
    feeds: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """Loop -> the package that is missing."""
    nproc: int
    device: str
    cores: int
    rounds: int
    steps: int
    batch: int
    """Samples of a step on each rank."""
    width: int
    """Of the hidden layers."""
    out: Path
    seed: int
    quick: bool
    json: bool

    @property
    def threads(self) -> int:
        """Threads of each rank."""
        return max(1, self.cores // self.nproc)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; dtk bench overhead --help lists the options")


def _parser() -> argparse.ArgumentParser:
    more = _MORE.format(
        loops="\n".join(f"  {name:<13} {spec.title}" for name, spec in LOOPS.items()),
        feeds="\n".join(f"  {name:<13} {words}" for name, words in FEEDS.items()),
    )
    parser = _Parser(
        prog="dtk bench overhead",
        description=_TEXT,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--loops", metavar="A,B",
        help=f"which; {BASELINE} is always there (default: all that take batches from the --feeds)",
    )  # fmt: skip
    add("--feeds", default=",".join(FEEDS), metavar="A,B", help="where batches come from (default: %(default)s)")
    add("--nproc", type=int, metavar="N", help="ranks (default: every GPU; 2 without GPUs)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPUs if there are any")
    add("--rounds", type=int, default=60, metavar="N", help="blocks of each loop (default: %(default)s)")
    add("--steps", type=int, default=50, metavar="N", help="steps of a block (default: %(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="samples of a step on each rank (default: %(default)s)")
    add("--width", type=int, default=512, metavar="N", help="of the model's layers (default: %(default)s)")
    add(
        "--out", type=Path, default=Path("runs/bench-overhead"), metavar="DIR",
        help="results.jsonl and report.md go here, over older ones (default: %(default)s)",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of weights, data and turns (default: %(default)s)")
    add("--quick", action="store_true", help="see that it works: few steps of a tiny model; the times mean nothing")
    add("--json", action="store_true", help="print the summary as JSON")
    return parser


def parse(
    argv: list[str],
    cores: int | None = None,
    gpus: int | None = None,
    installed: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> Options:
    """Read and check the arguments. Writes nothing.

    Args:
        cores, gpus: of this machine (default: look).
        installed: whether a module can be imported.

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    cores = count_cores(os.environ, Path("/")).number if cores is None else cores
    if given.device == "cpu":
        gpus = 0
    elif gpus is None:
        gpus = count_gpus(os.environ, Path("/"), installed_version("torch")).number
    feeds = _names("feed", given.feeds, FEEDS)
    wanted = _loops(given.loops, feeds)
    _check_ranges(given)
    missing = tuple((name, LOOPS[name].package) for name in wanted if not _is_there(name, installed))
    loops = (BASELINE, *(name for name in wanted if name != BASELINE and name not in dict(missing)))
    return Options(
        loops=loops,
        feeds=feeds,
        left_out=missing,
        nproc=_check_nproc(given, cores, gpus),
        device="cuda" if gpus else "cpu",
        cores=cores,
        rounds=_QUICK_ROUNDS if given.quick else given.rounds,
        steps=_QUICK_STEPS if given.quick else given.steps,
        batch=4 if given.quick else given.batch,
        width=16 if given.quick else given.width,
        out=given.out,
        seed=given.seed,
        quick=given.quick,
        json=given.json,
    )


def _is_there(loop: str, installed: Callable[[str], bool]) -> bool:
    needs = LOOPS[loop].needs
    return not needs or installed(needs)


def _names(kind: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    if not names or len(set(names)) < len(names):
        problem = "names none" if not names else "names one twice"
        raise UsageError(f"--{kind}s {text!r} {problem}; known: {', '.join(known)}")
    return names


def _loops(text: str | None, feeds: tuple[str, ...]) -> tuple[str, ...]:
    """The loops that are named, which must all fit one of `feeds`; all that do where none is named."""
    fitting = [name for name, spec in LOOPS.items() if set(spec.feeds) & set(feeds)]
    if text is None:
        return tuple(fitting)
    names = _names("loop", text, LOOPS)
    for name in names:
        if name not in fitting:
            has = " or ".join(LOOPS[name].feeds)
            raise UsageError(
                f"--loops {name} takes its batches from {has}, and --feeds is {','.join(feeds)}; "
                f"add {LOOPS[name].feeds[0]} to --feeds, or drop {name}"
            )
    return names


def _check_ranges(given: argparse.Namespace) -> None:
    for name in ("rounds", "steps", "batch", "width", "nproc"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value} is not a positive number")
    if not 0 <= given.seed < 2**63:
        raise UsageError(f"--seed {given.seed} is not between 0 and 2**63 - 1")


def _check_nproc(given: argparse.Namespace, cores: int, gpus: int) -> int:
    """The number of ranks, which the machine has GPUs or cores for."""
    if given.device == "cuda" and gpus == 0:
        raise UsageError("--device cuda, but there is no GPU here; pass --device cpu")
    if given.nproc is None:
        return gpus or min(2, cores)
    nproc: int = given.nproc
    there, what = (gpus, "GPUs") if gpus else (cores, "cores")
    if nproc > there:
        raise UsageError(f"--nproc {nproc} needs {nproc} {what}, and {there} can be used; pass at most --nproc {there}")
    return nproc
