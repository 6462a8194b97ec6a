from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.bench.machine_record import MACHINE

Records = list[dict[str, Any]]

THROUGHPUT = {
    **MACHINE,
    "options": {
        "strategies": ["dp", "ddp"],
        "models": ["mlp"],
        "size": "small",
        "precision": ["fp32"],
        "nproc": [2],
        "scaling": "strong",
        "batches": None,
        "device": "cpu",
        "gpus": 0,
        "rounds": 5,
        "block_seconds": 1.0,
        "at_once": None,
        "find_batch": False,
        "memory_limit": None,
        "seed": 0,
    },
}
RANKS = {"single": 1, "dp": 1}
PARTS = {"data": 1.0, "forward": 30.0, "backward": 50.0, "optimizer": 2.0}


def mode_key(strategy: str, nproc: int = 2, model: str = "mlp") -> dict[str, Any]:
    nproc = 1 if strategy == "single" else nproc
    return {"model": model, "precision": "fp32", "batch": 100, "strategy": strategy, "nproc": nproc}


def setup_record(strategy: str, nproc: int, together: list[str]) -> dict[str, Any]:
    key = mode_key(strategy, nproc)
    ranks = RANKS.get(strategy, nproc)
    threads = key["nproc"] // ranks
    return {
        "kind": "setup",
        **key,
        "together": together,
        "ranks": ranks,
        "threads": threads,
        "device": "cpu",
        "global_batch_size": 100,
        "data_mib": 0.1,
    }


def block_record(strategy: str, nproc: int, number: int, rate: float, others: float = 0.0) -> dict[str, Any]:
    return {
        "kind": "block",
        **mode_key(strategy, nproc),
        "round": number,
        "warmup": number == 0,
        "position": 0,
        "steps": 10,
        "samples": 1000,
        "seconds": 1000 / rate,
        "step_ms": [1e5 / rate] * 9 + [1.1e5 / rate],
        "loss": 2.3,
        "cpu_seconds": 1.5 * 1000 / rate,
        "others_cpu_seconds": others * 1000 / rate,
        "rss_mib": {"most": 800.0, "sum": 800.0 * RANKS.get(strategy, nproc)},
        "samples_per_s": rate,
    }


def phases_record(strategy: str, nproc: int, number: int) -> dict[str, Any]:
    parts = PARTS if strategy in RANKS else PARTS | {"communication": 7.0}
    return {"kind": "phases", **mode_key(strategy, nproc), "round": number, "steps": 2, "parts": parts}


@pytest.fixture
def run_of() -> Callable[..., Records]:
    """Makes the records of a run on mlp: strategy -> samples/s by round, the first of which is the warm-up.

    A number at the end of a strategy's name is that of its shares, else 2: `ddp4`.
    """

    def make(others: tuple[float, ...] = (0.0,) * 9, status: str | None = "complete", **rates: list[float]) -> Records:
        modes = {(name.rstrip("0123456789"), int(name.lstrip("abcdefgilnps") or 2)): v for name, v in rates.items()}
        together = [f"{strategy} x{nproc}" for strategy, nproc in modes]
        records: Records = [THROUGHPUT, {"kind": "model", "model": "mlp", "size": "small"}]
        records[1] |= {"parameters": 1_000_000, "flops_per_sample": 6e6}
        records += [setup_record(*mode, together) for mode in modes]
        records.append({"kind": "steps", "model": "mlp", "precision": "fp32", "batch": 100, "steps": 10})
        for number in range(max(len(values) for values in modes.values())):
            for mode, values in modes.items():
                if number < len(values):
                    records.append(block_record(*mode, number, values[number], others[number]))
                    if number:
                        records.append(phases_record(*mode, number))
        return [*records, {"kind": "end", "status": status}] if status else records

    return make
