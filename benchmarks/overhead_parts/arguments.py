"""The command line of `dtk bench overhead`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_parts.arguments import (
    Parser,
    UsageError,
    add_common,
    check_numbers,
    choose_nproc,
    split_names,
    usable_cores,
    usable_gpus,
)

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

A library that is not installed is left out, and the report says so. Close other programs: a step takes some ms, and
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
    resume: bool = False
    overwrite: bool = False

    @property
    def threads(self) -> int:
        """Threads of each rank."""
        return max(1, self.cores // self.nproc)


def _parser() -> argparse.ArgumentParser:
    more = _MORE.format(
        loops="\n".join(f"  {name:<13} {spec.title}" for name, spec in LOOPS.items()),
        feeds="\n".join(f"  {name:<13} {words}" for name, words in FEEDS.items()),
    )
    parser = Parser(
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
    add("--steps", type=int, default=50, metavar="N", help="steps of a block (default: %(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="samples of a step on each rank (default: %(default)s)")
    add("--width", type=int, default=512, metavar="N", help="of the model's layers (default: %(default)s)")
    add_common(parser, "overhead", "ranks", rounds=60, rounds_of="loop")
    add("--quick", action="store_true", help="see that it works: few steps of a tiny model; the times mean nothing")
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
    cores = usable_cores() if cores is None else cores
    gpus = usable_gpus(given.device) if gpus is None or given.device == "cpu" else gpus
    feeds = split_names("--feeds", "feed", given.feeds, FEEDS)
    wanted = _loops(given.loops, feeds)
    check_numbers(given, "rounds", "steps", "batch", "width", "nproc")
    missing = tuple((name, LOOPS[name].package) for name in wanted if not _is_there(name, installed))
    loops = (BASELINE, *(name for name in wanted if name != BASELINE and name not in dict(missing)))
    return Options(
        loops=loops,
        feeds=feeds,
        left_out=missing,
        nproc=choose_nproc(given, cores, gpus),
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
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _is_there(loop: str, installed: Callable[[str], bool]) -> bool:
    needs = LOOPS[loop].needs
    return not needs or installed(needs)


def _loops(text: str | None, feeds: tuple[str, ...]) -> tuple[str, ...]:
    """The loops that are named, which must all fit one of `feeds`; all that do where none is named."""
    fitting = [name for name, spec in LOOPS.items() if set(spec.feeds) & set(feeds)]
    if text is None:
        return tuple(fitting)
    names = split_names("--loops", "loop", text, LOOPS)
    for name in names:
        if name not in fitting:
            has = " or ".join(LOOPS[name].feeds)
            raise UsageError(
                f"--loops {name} takes its batches from {has}, and --feeds is {','.join(feeds)}; "
                f"add {LOOPS[name].feeds[0]} to --feeds, or drop {name}"
            )
    return names
