"""The command line of `dtk bench throughput`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path

from bench_parts.arguments import Parser, UsageError, add_common, check_numbers, split_names, usable_cores, usable_gpus

from .cases import Mode, Workload, default_batch, modes_on, needs_gib
from .room import available_gib
from .tables import EXTRAS, MODELS, PRECISIONS, SIZES, STRATEGIES

_SHARE = 0.6  # of the memory that is free, to be used


@dataclass(frozen=True)
class Options:
    """One comparison, checked."""

    strategies: tuple[str, ...]
    models: tuple[str, ...]
    size: str
    precision: tuple[str, ...]
    nproc: tuple[int, ...]
    scaling: str
    batches: tuple[int, ...] | None
    """Of each workload; None: the models' own."""
    device: str
    cores: int
    """That this process may use."""
    gpus: int
    """That are used: the most of `nproc` on a machine with GPUs, else 0."""
    rounds: int
    block_seconds: float
    at_once: int | None
    """Modes that are alive at once; None: as many as fit into memory."""
    find_batch: bool
    memory_limit: float | None
    """GiB that all processes may take together; None: `room_gib`."""
    room_gib: float
    """GiB that they may take, on the machine as it is now."""
    out: Path
    seed: int
    json: bool
    resume: bool
    overwrite: bool = False

    def workloads(self) -> Iterator[Workload]:
        """In the order in which they are measured."""
        for model in self.models:
            for precision in self.precision:
                own = default_batch(model, self.size, self.nproc, self.scaling == "weak")
                for batch in self.batches or (own,):
                    yield Workload(model, precision, batch)

    def modes(self, workload: Workload) -> list[Mode]:
        """Those that take turns on it."""
        return modes_on(
            workload, self.strategies, self.nproc, cores=self.cores, gpus=bool(self.gpus), weak=self.scaling == "weak"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dtk bench throughput",
        description="Training strategies on the same work, in blocks that take turns: samples per second, step times, "
        "the parts of a step, peak memory, scaling.",
    )
    add = parser.add_argument
    add("--strategies", default="dp,ddp", metavar="A,B", help=f"of {', '.join(STRATEGIES)} (default: %(default)s)")
    add("--models", default="mlp,resnet18", metavar="A,B", help=f"of {', '.join(MODELS)} (default: %(default)s)")
    add(
        "--size", choices=("auto", *SIZES), default="auto",
        help="of models and samples; auto: full on GPUs, small on the CPU",
    )  # fmt: skip
    add("--precision", default="fp32", metavar="A,B", help=f"of {', '.join(PRECISIONS)} (default: %(default)s)")
    add(
        "--scaling", choices=("strong", "weak"), default="strong",
        help="whether more ranks share the same batch, or each has one of the same size (default: %(default)s)",
    )  # fmt: skip
    add("--global-batch-size", metavar="N,M", help="samples a step, over all ranks (default: the model's)")
    add("--batch-per-rank", metavar="N,M", help="samples a step of each rank, for --scaling weak")
    add("--block-seconds", type=float, default=1.5, metavar="S", help="length of a block (default: %(default)s)")
    add("--at-once", type=int, metavar="N", help="strategies alive at once (default: as many as fit into memory)")
    add("--find-batch", action="store_true", help="also find the largest batch that fits, of each strategy")
    add(
        "--memory-limit", type=float, metavar="GIB",
        help=f"of all processes that are alive at once (default: {_SHARE:.0%} of what is free)".replace("%", "%%"),
    )  # fmt: skip
    nproc = "ranks of ddp, fsdp and zero, and GPUs of dp; several for scaling"
    add_common(parser, "throughput", nproc, rounds=15, rounds_of="strategy", several=True)
    return parser


def parse(argv: list[str], cores: int | None = None, gpus: int | None = None) -> Options:
    """Read and check the arguments. Writes nothing. `cores` and `gpus`: of this machine (default: look).

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    cores = usable_cores() if cores is None else cores
    gpus = usable_gpus(given.device) if gpus is None or given.device == "cpu" else gpus
    strategies = split_names("--strategies", "strategy", given.strategies, STRATEGIES)
    models = split_names("--models", "model", given.models, MODELS)
    precisions = split_names("--precision", "precision", given.precision, PRECISIONS)
    check_numbers(given, "rounds", "at_once")
    for flag, value in (("--block-seconds", given.block_seconds), ("--memory-limit", given.memory_limit)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag} {value} is not a positive number of {'GiB' if 'limit' in flag else 'seconds'}")
    _check_installed(strategies, models)
    nprocs = _nprocs(given, cores, gpus)
    if not gpus and "tf32" in precisions:
        raise UsageError("--precision tf32 needs a GPU, and none is used; known without one: fp32, bf16, fp16")
    free = available_gib()
    size = given.size if given.size != "auto" else "full" if gpus else "small"
    options = Options(
        strategies=strategies,
        models=models,
        size=size,
        precision=precisions,
        nproc=nprocs,
        scaling=given.scaling,
        batches=_batches(given, models, nprocs),
        device="cuda" if gpus else "cpu",
        cores=cores,
        gpus=max(nprocs) if gpus else 0,
        rounds=given.rounds,
        block_seconds=given.block_seconds,
        at_once=given.at_once,
        find_batch=given.find_batch,
        memory_limit=given.memory_limit,
        room_gib=given.memory_limit or round(_SHARE * free, 2),
        out=given.out,
        seed=given.seed,
        json=given.json,
        resume=given.resume,
        overwrite=given.overwrite,
    )
    _check_limit(options, free)
    return options


def _check_limit(options: Options, free: float) -> None:
    """Refuse a limit above what is free, or below what the processes of a mode need; on GPUs none applies."""
    if options.memory_limit is None or options.gpus:
        return
    if options.memory_limit > free:
        raise UsageError(
            f"--memory-limit {options.memory_limit:g}, and {free:.1f} GiB are free; pass at most that, or leave it out"
        )
    modes = [mode for workload in options.workloads() for mode in options.modes(workload)]
    most = max(modes, key=lambda mode: mode.processes * needs_gib(mode, options.size))
    each = needs_gib(most, options.size)
    need = round(most.processes * each, 2)
    if need > options.memory_limit:
        raise UsageError(
            f"--memory-limit {options.memory_limit:g}, but {most.label} on {most.workload.model} needs about {need:g} "
            f"GiB ({most.processes} x {each:g} GiB a process); pass --memory-limit {need:g} or more"
        )


def _check_installed(strategies: Sequence[str], models: Sequence[str]) -> None:
    for kind, names, known in (("strategy", strategies, STRATEGIES), ("model", models, MODELS)):
        for name in names:
            missing = [package for package in known[name].needs if importlib.util.find_spec(package) is None]  # type: ignore[attr-defined]
            if missing:
                without = ",".join(other for other, spec in known.items() if not spec.needs)  # type: ignore[attr-defined]
                flag = "--strategies" if kind == "strategy" else "--models"
                raise UsageError(
                    f"{kind} {name} needs {', '.join(missing)}, which is not installed; "
                    f"pip install 'dist-toolkit[{EXTRAS[missing[0]]}]', or pass {flag} {without}"
                )


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    """Positive numbers, each there once.

    Raises:
        UsageError: what is wrong with them.
    """
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(int(part))
        except ValueError:
            raise UsageError(f"{flag} {text}: {part.strip()!r} is not a number; write {flag} N or N,M") from None
        if numbers[-1] < 1:
            raise UsageError(f"{flag} {part.strip()} is not a positive number")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{flag} {text} names a number twice")
    return tuple(numbers)


def _nprocs(given: argparse.Namespace, cores: int, gpus: int) -> tuple[int, ...]:
    """Numbers of ranks, rising, which the machine has GPUs (where there are any) and cores for."""
    if given.device == "cuda" and gpus == 0:
        raise UsageError("--device cuda, but there is no GPU here; pass --device cpu")
    if given.nproc is None:
        return (gpus or min(2, cores),)
    numbers = tuple(sorted(_numbers("--nproc", given.nproc)))
    most = numbers[-1]
    if gpus and most > gpus:
        raise UsageError(
            f"--nproc {most} needs {most} GPUs, and {gpus} can be used; pass at most --nproc {gpus}, or --device cpu"
        )
    if most > cores:
        raise UsageError(f"--nproc {most} needs {most} cores, and {cores} can be used; pass at most --nproc {cores}")
    return numbers


def _batches(given: argparse.Namespace, models: Sequence[str], nprocs: Sequence[int]) -> tuple[int, ...] | None:
    """The batch sizes asked for, which all ranks can share evenly."""
    weak = given.scaling == "weak"
    wrong, why = ("global_batch_size", "weak") if weak else ("batch_per_rank", "strong")
    right = "batch_per_rank" if weak else "global_batch_size"
    if getattr(given, wrong) is not None:
        raise UsageError(
            f"--{wrong.replace('_', '-')} does not go with --scaling {why}; pass --{right.replace('_', '-')}, or "
            f"--scaling {'strong' if weak else 'weak'}"
        )
    if getattr(given, right) is None:
        return None
    flag = f"--{right.replace('_', '-')}"
    batches = _numbers(flag, getattr(given, right))
    for batch in batches:
        unit = 1 if weak else lcm(*nprocs)
        if batch % unit:
            below, above = batch // unit * unit, (batch // unit + 1) * unit
            fitting = f"{below} or {above}" if below else str(above)
            ranks = " or ".join(map(str, nprocs))
            raise UsageError(f"{flag} {batch} cannot be divided evenly among {ranks} ranks; pass {fitting}")
        share = batch if weak else batch // max(nprocs)
        few = [model for model in models if share < MODELS[model].least]
        if few:
            raise UsageError(
                f"{flag} {batch} leaves a rank {share} of {few[0]}'s samples, and batch normalisation needs "
                f"{MODELS[few[0]].least}; pass at least {MODELS[few[0]].least * batch // share}"
            )
    return batches
