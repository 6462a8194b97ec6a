"""The command line of `dtk bench comm`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench_parts.arguments import (
    Parser,
    UsageError,
    add_output,
    check_numbers,
    choose_nproc,
    split_names,
    usable_cores,
    usable_gpus,
)
from bench_parts.elsewhere import is_elsewhere
from bench_parts.nodes import check_nodes
from bench_parts.words import binary

from .sizes import check_few, parse_sizes
from .tables import BACKENDS, DTYPES, OPERATIONS, SOURCE

_TEXT = f"""\
Time, algorithm bandwidth and bus bandwidth of collective operations over sizes, as nccl-tests has them:
algbw = S/t, busbw = algbw x a factor of the operation and the number of ranks ({SOURCE}).
All operations and sizes take turns in rounds, in an order that is drawn anew (from --seed) in each. Reported are
medians over rounds with quartiles. The time of an operation is that of the slowest rank. Every result is checked."""

_MORE = """\
operations, and whose size S is:
{operations}

backends:
{backends}

With several nodes, the ranks of one node and all ranks are measured in turn: within and across nodes. --nodes N needs
an allocation of SLURM; with --slurm, dtk submits this benchmark as a job."""

_SIZES = "16:64M"
_MEMORY_SHARE = 0.5
_BUFFERS = 4  # of the largest size, on a rank: sent, received, and what gloo keeps


@dataclass(frozen=True)
class Options:
    """One measurement, checked."""

    operations: tuple[str, ...]
    sizes: tuple[int, ...]
    """In bytes, from the smallest."""
    backends: tuple[str, ...]
    nproc: int
    """Ranks on each node."""
    nodes: int
    dtype: str
    cores: int
    rounds: int
    iterations: int
    """Operations in a block; 0: so many that it takes a while."""
    out: Path
    seed: int
    json: bool
    resume: bool
    overwrite: bool = False

    @property
    def device(self) -> str:
        """What `dtk launch` is to give the ranks."""
        return "cuda" if "nccl" in self.backends else "cpu"

    @property
    def threads(self) -> int:
        """Threads of each rank."""
        return max(1, self.cores // self.nproc)


def _parser() -> argparse.ArgumentParser:
    more = _MORE.format(
        operations="\n".join(
            f"  {name:<15} {spec.of} (busbw = algbw x {spec.formula})" for name, spec in OPERATIONS.items()
        ),
        backends="\n".join(f"  {name:<15} {words}" for name, words in BACKENDS.items()),
    )
    parser = Parser(
        prog="dtk bench comm",
        description=_TEXT,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--operations", default=",".join(OPERATIONS), metavar="A,B", help="which (default: %(default)s)")
    add("--sizes", metavar="MIN:MAX", help=f"in bytes; MIN:MAX:FACTOR, or A,B (default: {_SIZES}:4)")
    add("--backend", default="auto", metavar="A,B", help="gloo, nccl or both (default: nccl with GPUs, else gloo)")
    add("--nproc", type=int, metavar="N", help="ranks on each node (default: every GPU; 2 without GPUs)")
    add("--nodes", type=int, default=1, metavar="N", help="nodes of a SLURM allocation (default: %(default)s)")
    add("--dtype", default="float32", metavar="D", help=f"{', '.join(DTYPES)} (default: %(default)s)")
    add("--rounds", type=int, default=20, metavar="N", help="blocks of each case (default: %(default)s)")
    add(
        "--iterations", default="auto", metavar="N",
        help="operations in a block (default: as many as take 50 ms, at least 2)",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of the order of turns (default: %(default)s)")
    add_output(parser, "comm")
    return parser


def parse(
    argv: list[str],
    cores: int | None = None,
    gpus: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Options:
    """Read and check the arguments. Writes nothing.

    Args:
        cores, gpus: of this machine (default: look).

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    cores = usable_cores() if cores is None else cores
    gpus = usable_gpus("auto") if gpus is None else gpus
    operations = split_names("--operations", "operation", given.operations, OPERATIONS)
    (dtype, *others) = split_names("--dtype", "dtype", given.dtype, DTYPES)
    if others:
        raise UsageError(f"--dtype {given.dtype} names several; pass one of {', '.join(DTYPES)}")
    sizes = parse_sizes(given.sizes or _SIZES)
    check_few(sizes)
    backends = _backends(given.backend, gpus)
    check_numbers(given, "rounds", "nproc", "nodes")
    iterations = _iterations(given.iterations)
    check_nodes(given.nodes, "comm", environ)
    given.device = "cuda" if "nccl" in backends else "cpu"
    nproc = choose_nproc(given, cores, gpus if "nccl" in backends else 0)
    _check_world(given.nodes, nproc, backends)
    least = DTYPES[dtype] * given.nodes * nproc
    if given.sizes is None:
        sizes = tuple(size for size in sizes if size >= least)
    _check_sizes(given.sizes or _SIZES, sizes, least, dtype)
    if not is_elsewhere(environ):
        _check_memory(given.sizes or _SIZES, sizes[-1], nproc)
    return Options(
        operations=operations,
        sizes=sizes,
        backends=backends,
        nproc=nproc,
        nodes=given.nodes,
        dtype=dtype,
        cores=cores,
        rounds=given.rounds,
        iterations=iterations,
        out=given.out,
        seed=given.seed,
        json=given.json,
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _backends(text: str, gpus: int) -> tuple[str, ...]:
    if text == "auto":
        return ("nccl",) if gpus else ("gloo",)
    backends = split_names("--backend", "backend", text, BACKENDS)
    if "nccl" in backends and not gpus:
        raise UsageError(f"--backend {text}, but there is no GPU here, and nccl needs one; pass --backend gloo")
    return backends


def _iterations(text: str) -> int:
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0 and len(text) < 9):
        raise UsageError(f"--iterations {text} is neither auto nor a positive number")
    return int(text)


def _check_world(nodes: int, nproc: int, backends: tuple[str, ...]) -> None:
    if nodes * nproc > 1 or "gloo" not in backends:
        return
    more = "--backend nccl alone can measure copies in one GPU" if "nccl" in backends else "--nproc 2 needs two cores"
    raise UsageError(f"--nproc {nproc} on one node is one rank, which has nobody to send to by gloo; {more}")


def _check_sizes(text: str, sizes: tuple[int, ...], least: int, dtype: str) -> None:
    if not sizes or sizes[0] < least:
        raise UsageError(
            f"--sizes {text}: {binary(sizes[0] if sizes else least)} is less than one {dtype} for each of "
            f"{least // DTYPES[dtype]} ranks; begin with {binary(least)}"
        )


def _check_memory(text: str, largest: int, nproc: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = _BUFFERS * largest * nproc
    if needed > _MEMORY_SHARE * memory:
        most = binary(_MEMORY_SHARE * memory / _BUFFERS / nproc)
        raise UsageError(
            f"--sizes {text}: {nproc} ranks need {binary(needed)} for {binary(largest)}, and this machine has "
            f"{binary(memory)}; end at {most} or less"
        )
