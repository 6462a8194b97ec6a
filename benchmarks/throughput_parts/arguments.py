"""The command line of `dtk bench throughput`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Iterable, Mapping
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

from .tables import MODELS, STRATEGIES


@dataclass(frozen=True)
class Options:
    """One comparison, checked."""

    strategies: tuple[str, ...]
    models: tuple[str, ...]
    nproc: int
    device: str
    cores: int
    """That this process may use."""
    gpus: int
    """That are used: `nproc` on a machine with GPUs, else 0."""
    batches: Mapping[str, int]
    """Model -> global batch size."""
    rounds: int
    block_seconds: float
    out: Path
    seed: int
    json: bool
    resume: bool = False

    def threads(self, strategy: str) -> int:
        """Threads of each process of a strategy: all strategies use the same number of cores in total."""
        each = max(1, self.cores // self.nproc)
        return each if STRATEGIES[strategy].launched else each * self.nproc

    def ranks(self, strategy: str) -> int:
        """Processes of a strategy that train."""
        return self.nproc if STRATEGIES[strategy].launched else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dtk bench throughput",
        description="Samples per second of training strategies on the same work, in blocks that take turns.",
    )
    add = parser.add_argument
    add("--strategies", default="dp,ddp", metavar="A,B", help=f"of {', '.join(STRATEGIES)} (default: %(default)s)")
    add("--models", default="mlp,resnet18", metavar="A,B", help=f"of {', '.join(MODELS)} (default: %(default)s)")
    add("--global-batch-size", type=int, metavar="N", help="samples a step, over all ranks (default: the model's)")
    add("--block-seconds", type=float, default=1.5, metavar="S", help="length of a block (default: %(default)s)")
    add_common(parser, "throughput", "ranks of ddp, and GPUs of dp", rounds=15, rounds_of="strategy")
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
    check_numbers(given, "rounds", "nproc", "global_batch_size")
    if not (math.isfinite(given.block_seconds) and given.block_seconds > 0):
        raise UsageError(f"--block-seconds {given.block_seconds} is not a positive number of seconds")
    _check_needs(models)
    nproc = choose_nproc(given, cores, gpus)
    return Options(
        strategies=strategies,
        models=models,
        nproc=nproc,
        device="cuda" if gpus else "cpu",
        cores=cores,
        gpus=nproc if gpus else 0,
        batches={model: _batch(model, given.global_batch_size, nproc) for model in models},
        rounds=given.rounds,
        block_seconds=given.block_seconds,
        out=given.out,
        seed=given.seed,
        json=given.json,
        resume=given.resume,
    )


def _check_needs(models: Iterable[str]) -> None:
    for model in models:
        missing = [name for name in MODELS[model].needs if importlib.util.find_spec(name) is None]
        if missing:
            without = ",".join(name for name, spec in MODELS.items() if not spec.needs)
            raise UsageError(
                f"model {model} needs {', '.join(missing)}, which is not installed; "
                f"pip install 'dist-toolkit[bench]', or pass --models {without}"
            )


def _batch(model: str, wanted: int | None, nproc: int) -> int:
    """The global batch size: the one asked for, or the model's, rounded up so that every rank gets the same share."""
    if wanted is None:
        return -(-MODELS[model].batch // nproc) * nproc
    if wanted % nproc:
        below, above = wanted // nproc * nproc, (wanted // nproc + 1) * nproc
        fitting = f"{below} or {above}" if below else str(above)
        raise UsageError(f"--global-batch-size {wanted} cannot be divided evenly among {nproc} ranks; pass {fitting}")
    return wanted
