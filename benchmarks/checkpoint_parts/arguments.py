"""The command line of `dtk bench checkpoint`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
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
)

from .tables import BASELINE, CASES, METHODS, Layout, layout_of

_TEXT = """\
Seconds to save and to load the same bytes on the same filesystem: as bare files, with dist_toolkit, torch.save,
torch.distributed.checkpoint, Accelerate and Lightning Fabric. Durable for all: every file and its directory are
fsynced within the clock. All methods live in the same ranks and the same process group and take turns, in an order
that is drawn anew (from --seed) in each round. Reported are medians over rounds of the rate relative to the bare files
of the same round, with quartiles and a 95 % interval of the median; how long training is held up by a save in the
background, against a copy of the same bytes in memory; and whether the same bytes came back."""

_MORE = """\
methods:
{methods}

cases:
{cases}

A library that is not installed is left out, and the report says so. Close other programs that write to the disk.
results.jsonl has every time, so that the report can be checked."""

_QUICK = {"rounds": 1, "mib": 4, "tensors": 50, "settle": 0.0}


@dataclass(frozen=True)
class Options:
    """One comparison, checked."""

    methods: tuple[str, ...]
    cases: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """Method -> the package that is missing."""
    nproc: int
    cores: int
    rounds: int
    mib: int
    tensors: int
    settle: float
    """Seconds to wait after files were deleted."""
    dir: Path
    """Where a temporary folder is made for the checkpoints."""
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

    def layout(self, case: str) -> Layout:
        """The state of a case."""
        return layout_of(case, self.nproc, self.mib, self.tensors)


def _parser() -> argparse.ArgumentParser:
    more = _MORE.format(
        methods="\n".join(f"  {name:<15} {spec.title}" for name, spec in METHODS.items()),
        cases="\n".join(f"  {name:<15} {words}" for name, words in CASES.items()),
    )
    parser = Parser(
        prog="dtk bench checkpoint",
        description=_TEXT,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--methods", metavar="A,B", help=f"which; {BASELINE} is always there (default: all)")
    add("--cases", default=",".join(CASES), metavar="A,B", help="which states (default: %(default)s)")
    add("--mib", type=int, default=800, metavar="N", help="size of the large state (default: %(default)s)")
    add("--tensors", type=int, default=5000, metavar="N", help="number of small tensors (default: %(default)s)")
    add(
        "--dir", type=Path, default=Path(), metavar="DIR",
        help="where checkpoints are written, in a temporary folder that is removed (default: the current directory)",
    )  # fmt: skip
    add(
        "--settle", type=float, default=0.5, metavar="S",
        help="seconds to wait after older files were deleted and the disk was synced (default: %(default)s)",
    )  # fmt: skip
    add_common(parser, "checkpoint", "ranks", rounds=10, rounds_of="method", devices=False)
    add("--quick", action="store_true", help="see that it works: one round of small states; the times mean nothing")
    return parser


def parse(
    argv: list[str],
    cores: int | None = None,
    installed: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> Options:
    """Read and check the arguments. Writes nothing.

    Args:
        cores: of this machine (default: look).
        installed: whether a module can be imported.

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    cores = usable_cores() if cores is None else cores
    cases = split_names("--cases", "case", given.cases, CASES)
    wanted = tuple(METHODS) if given.methods is None else split_names("--methods", "method", given.methods, METHODS)
    check_numbers(given, "rounds", "mib", "tensors", "nproc")
    if not 0 <= given.settle <= 60:
        raise UsageError(f"--settle {given.settle} is not between 0 and 60 seconds")
    missing = tuple((n, METHODS[n].package) for n in wanted if METHODS[n].needs and not installed(METHODS[n].needs))
    methods = (BASELINE, *(name for name in wanted if name != BASELINE and name not in dict(missing)))
    if given.quick:
        vars(given).update(_QUICK)
    options = Options(
        methods=methods,
        cases=cases,
        left_out=missing,
        nproc=choose_nproc(given, cores, 0),
        cores=cores,
        **{
            name: getattr(given, name)
            for name in ("rounds", "mib", "tensors", "settle", "out", "seed", "quick", "json", "resume", "overwrite")
        },
        dir=given.dir.absolute(),
    )
    _check_room(options, given.dir)
    return options


def _check_room(options: Options, shown: Path) -> None:
    """Refuse a directory that cannot be written to, or on a disk too full for two checkpoints."""
    if not options.dir.is_dir() or not os.access(options.dir, os.W_OK | os.X_OK):
        raise UsageError(f"--dir {shown} is not a directory that can be written to; pass another --dir")
    needed = 2 * max(options.layout(case).bytes for case in options.cases)
    free = shutil.disk_usage(options.dir).free
    if free < needed:
        raise UsageError(
            f"--dir {shown} has {free >> 20} MiB free, and {needed >> 20} MiB are needed; "
            "pass another --dir, or a smaller --mib or --tensors"
        )
