"""The command line of `dtk bench throughput`, and every check that can be made before something is started."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dtk_launch.errors import unknown
from dtk_launch.facts import count_cores, count_gpus, installed_version

from .tables import MODELS, STRATEGIES

_OUT_HELP = "results.jsonl and report.md go here, over older ones (default: %(default)s)"


class UsageError(Exception):
    """The arguments do not fit each other or the machine. One message that says what to do."""


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

    def threads(self, strategy: str) -> int:
        """Threads of each process of a strategy: all strategies use the same number of cores in total."""
        each = max(1, self.cores // self.nproc)
        return each if STRATEGIES[strategy].launched else each * self.nproc

    def ranks(self, strategy: str) -> int:
        """Processes of a strategy that train."""
        return self.nproc if STRATEGIES[strategy].launched else 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; dtk bench throughput --help lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dtk bench throughput",
        description="Samples per second of training strategies on the same work, in blocks that take turns.",
    )
    add = parser.add_argument
    add("--strategies", default="dp,ddp", metavar="A,B", help=f"of {', '.join(STRATEGIES)} (default: %(default)s)")
    add("--models", default="mlp,resnet18", metavar="A,B", help=f"of {', '.join(MODELS)} (default: %(default)s)")
    add("--nproc", type=int, metavar="N", help="ranks of ddp, and GPUs of dp (default: every GPU; 2 without GPUs)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPUs if there are any")
    add("--global-batch-size", type=int, metavar="N", help="samples a step, over all ranks (default: the model's)")
    add("--rounds", type=int, default=15, metavar="N", help="blocks of each strategy (default: %(default)s)")
    add("--block-seconds", type=float, default=1.5, metavar="S", help="length of a block (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/bench-throughput"), metavar="DIR", help=_OUT_HELP)
    add("--seed", type=int, default=0, metavar="N", help="of weights and data (default: %(default)s)")
    add("--json", action="store_true", help="print the summary as JSON")
    return parser


def parse(argv: list[str], cores: int | None = None, gpus: int | None = None) -> Options:
    """Read and check the arguments. Writes nothing. `cores` and `gpus`: of this machine (default: look).

    Raises:
        UsageError: with the choices there are.
    """
    given = _parser().parse_args(argv)
    cores = count_cores(os.environ, Path("/")).number if cores is None else cores
    if given.device == "cpu":
        gpus = 0
    elif gpus is None:
        gpus = count_gpus(os.environ, Path("/"), installed_version("torch")).number
    strategies = _names("strategy", given.strategies, STRATEGIES)
    models = _names("model", given.models, MODELS)
    _check_ranges(given)
    _check_needs(models)
    nproc = _check_nproc(given, cores, gpus)
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
    )


def _names(kind: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    if not names or len(set(names)) < len(names):
        problem = "names none" if not names else "names one twice"
        flag = "--strategies" if kind == "strategy" else "--models"
        raise UsageError(f"{flag} {text!r} {problem}; known: {', '.join(known)}")
    return names


def _check_ranges(given: argparse.Namespace) -> None:
    for name in ("rounds", "nproc", "global_batch_size"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a positive number")
    if not (math.isfinite(given.block_seconds) and given.block_seconds > 0):
        raise UsageError(f"--block-seconds {given.block_seconds} is not a positive number of seconds")
    if not 0 <= given.seed < 2**63:
        raise UsageError(f"--seed {given.seed} is not between 0 and 2**63 - 1")


def _check_needs(models: Iterable[str]) -> None:
    for model in models:
        missing = [name for name in MODELS[model].needs if importlib.util.find_spec(name) is None]
        if missing:
            without = ",".join(name for name, spec in MODELS.items() if not spec.needs)
            raise UsageError(
                f"model {model} needs {', '.join(missing)}, which is not installed; "
                f"pip install 'dist-toolkit[bench]', or pass --models {without}"
            )


def _check_nproc(given: Any, cores: int, gpus: int) -> int:
    """The number of ranks, which the machine has GPUs or cores for."""
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


def _batch(model: str, wanted: int | None, nproc: int) -> int:
    """The global batch size: the one asked for, or the model's, rounded up so that every rank gets the same share."""
    if wanted is None:
        return -(-MODELS[model].batch // nproc) * nproc
    if wanted % nproc:
        below, above = wanted // nproc * nproc, (wanted // nproc + 1) * nproc
        fitting = f"{below} or {above}" if below else str(above)
        raise UsageError(f"--global-batch-size {wanted} cannot be divided evenly among {nproc} ranks; pass {fitting}")
    return wanted
