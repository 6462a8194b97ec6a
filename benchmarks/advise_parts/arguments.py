"""The command line of `dtk bench advise`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_parts.arguments import (
    Parser,
    UsageError,
    add_output,
    choose_nproc,
    split_names,
    usable_cores,
    usable_gpus,
)
from bench_parts.processes import ANSWER_LIMIT
from throughput_parts.tables import MODELS, SIZES

from .candidates import DEFAULT, PLACE, STRATEGIES

_TEXT = """\
Which strategy and batch to take for a script, or for a model of dtk bench throughput, from some steps of each.

The script runs as it is, with its arguments, under `dtk launch` with each strategy, one after the other, and is ended
after --steps optimizer steps: it saves nothing on its way out, and checkpointers of dist_toolkit are given an empty
folder. What else it writes in those steps, it writes, and what else it resumes from, it resumes from: give it an output
folder of its own, and nothing to resume. Measured are the time of a step, the memory of a rank, and how long the sum of
its gradients over the ranks takes alone. With --batch, %s in its arguments is replaced by each size."""

_MORE = """\
examples:
  dtk bench advise resnet18
  dtk bench advise --nproc 2 train.py --epochs 5
  dtk bench advise --batch 64,128,256 train.py --batch-size {batch}
  dtk bench advise --batch 8,16 --batch-is rank run_clm.py --per_device_train_batch_size {batch}

A script that does not take its strategy from `--strategy` (see docs/other-libraries.md) is measured all the same, and
advised none. Options of this command stand before the script, its own behind it."""


@dataclass(frozen=True)
class Options:
    """What was asked for, checked."""

    target: str
    """Absolute path of the script, or name of the model."""
    given: str
    """The target as it was written."""
    words: tuple[str, ...]
    """The script's arguments."""
    size: str
    """Of a model; empty for a script."""
    strategies: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """Strategy -> the package that is missing."""
    nproc: int
    device: str
    precision: str
    batches: tuple[int, ...]
    batch_is: str
    rounds: int
    warmup: int
    steps: int
    seconds: float
    cores: int
    gpus: int
    out: Path
    json: bool
    resume: bool
    overwrite: bool = False

    def threads(self, nproc: int) -> int:
        """Threads of each of so many ranks: all candidates use the same cores."""
        return max(1, self.cores // nproc)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dtk bench advise",
        description=_TEXT % PLACE,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="dtk bench advise [OPTIONS] MODEL|SCRIPT [ARGS...]",
    )
    add = parser.add_argument
    add("target", metavar="MODEL|SCRIPT", nargs="?", help=f"a Python file, or one of {', '.join(MODELS)}")
    add("words", nargs=argparse.REMAINDER, metavar="ARGS", help="the script's own")
    add("--strategies", default=None, metavar="A,B", help=f"of {', '.join(STRATEGIES)} (default: {DEFAULT})")
    add("--nproc", type=int, metavar="N", help="ranks (default: every GPU; 2 without GPUs)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPUs if there are any")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="as of dtk launch")
    add(
        "--batch", default="", metavar="N,M", help=f"sizes to put in the place of {PLACE} (a model: its own, and twice)"
    )
    add(
        "--batch-is", choices=("global", "rank"), default="global",
        help="whether that is the batch of a step over all ranks, or of each rank (default: %(default)s)",
    )  # fmt: skip
    add("--size", choices=SIZES, help="of a model (default: full on GPUs, else small)")
    add("--rounds", type=int, default=2, metavar="N", help="starts of each, in turns (default: %(default)s)")
    add("--warmup", type=int, default=5, metavar="N", help="steps that do not count (default: %(default)s)")
    add("--steps", type=int, default=30, metavar="N", help="steps of a start (default: %(default)s)")
    add(
        "--seconds", type=float, default=30.0, metavar="S",
        help="or so long, if that is less (default: %(default)s); all steps together may take longer than "
        f"{ANSWER_LIMIT / 60:.0f} minutes, none of them, with what is loaded before it, may",
    )  # fmt: skip
    add_output(parser, "advise")
    return parser


def parse(
    argv: list[str],
    cores: int | None = None,
    gpus: int | None = None,
    installed: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> Options:
    """Read and check the arguments. Writes nothing.

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    if given.target is None:
        raise UsageError(f"MODEL or SCRIPT is missing: a Python file, or one of {', '.join(MODELS)}")
    cores = usable_cores() if cores is None else cores
    gpus = usable_gpus(given.device) if gpus is None or given.device == "cpu" else gpus
    wanted = split_names("--strategies", "strategy", given.strategies or DEFAULT, STRATEGIES)
    missing = tuple(
        (n, STRATEGIES[n].needs) for n in wanted if STRATEGIES[n].needs and not installed(STRATEGIES[n].needs)
    )
    if missing and given.strategies:
        raise UsageError(f"--strategies {missing[0][0]} needs {missing[0][1]}: pip install 'dist-toolkit[deepspeed]'")
    for name in ("rounds", "warmup", "steps", "seconds"):
        if not getattr(given, name) > 0:
            raise UsageError(f"--{name} {getattr(given, name)} is not a positive number")
    nproc = choose_nproc(given, cores, gpus)
    size = (given.size or ("full" if gpus else "small")) if given.target in MODELS else ""
    target, batches = _target(given), _batches(given, size)
    if target in MODELS:
        _check_batches(batches, nproc, given.batch_is)
    return Options(
        target=target,
        given=given.target,
        words=tuple(given.words),
        size=size,
        strategies=tuple(name for name in wanted if name not in dict(missing)),
        left_out=missing,
        nproc=nproc,
        device="cuda" if gpus else "cpu",
        precision=given.precision,
        batches=batches,
        batch_is=given.batch_is,
        rounds=given.rounds,
        warmup=given.warmup,
        steps=given.steps,
        seconds=given.seconds,
        cores=cores,
        gpus=nproc if gpus else 0,
        out=given.out,
        json=given.json,
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _target(given: argparse.Namespace) -> str:
    target: str = given.target
    if target in MODELS:
        missing = [name for name in MODELS[target].needs if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"model {target} needs {', '.join(missing)}: pip install 'dist-toolkit[bench]'")
        if given.words:
            raise UsageError(f"arguments behind the model {target}: {' '.join(given.words)}; options stand before it")
        return target
    if not Path(target).is_file():
        raise UsageError(f"{target} is neither a file nor a model; models: {', '.join(MODELS)}")
    if not os.access(target, os.R_OK):
        raise UsageError(f"{target} cannot be read")
    if given.size:
        raise UsageError(f"--size {given.size} is for a model, and {target} is a script; leave it out")
    return str(Path(target).absolute())


def _batches(given: argparse.Namespace, size: str) -> tuple[int, ...]:
    has_place = given.target in MODELS or any(PLACE in word for word in given.words)
    if not given.batch:
        if given.target in MODELS:
            usual = MODELS[given.target].at(size).batch
            return (usual, 2 * usual)
        if has_place:
            raise UsageError(f"{PLACE} in the script's arguments, and no --batch; pass --batch 64,128 or such")
        return ()
    if not has_place:
        raise UsageError(
            f"--batch {given.batch}, and no {PLACE} in the script's arguments: --batch-size {PLACE}, or such"
        )
    try:
        batches = tuple(int(part) for part in given.batch.split(","))
    except ValueError:
        raise UsageError(f"--batch {given.batch!r} is not a list of numbers, such as 64,128") from None
    if min(batches) < 1 or len(set(batches)) < len(batches):
        raise UsageError(f"--batch {given.batch} has a size below 1, or one twice")
    return batches


def _check_batches(batches: tuple[int, ...], nproc: int, batch_is: str) -> None:
    for batch in batches:
        if batch_is == "global" and batch % nproc:
            raise UsageError(f"--batch {batch} cannot be divided evenly among {nproc} ranks")
