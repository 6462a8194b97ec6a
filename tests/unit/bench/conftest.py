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
        "nproc": 2,
        "device": "cpu",
        "gpus": 0,
        "rounds": 5,
        "block_seconds": 1.0,
        "seed": 0,
    },
}


def setup_record(model: str, strategy: str) -> dict[str, Any]:
    ranks = 2 if strategy == "ddp" else 1
    return {
        "kind": "setup",
        "model": model,
        "strategy": strategy,
        "ranks": ranks,
        "threads": 2 // ranks,
        "device": "cpu",
        "parameters": 1_000_000,
        "global_batch_size": 100,
    }


def block_record(model: str, strategy: str, number: int, rate: float, others: float = 0.0) -> dict[str, Any]:
    return {
        "kind": "block",
        "model": model,
        "strategy": strategy,
        "round": number,
        "warmup": number == 0,
        "position": 0,
        "steps": 10,
        "samples": 1000,
        "seconds": 1000 / rate,
        "loss": 2.3,
        "cpu_seconds": 1.5 * 1000 / rate,
        "others_cpu_seconds": others * 1000 / rate,
        "samples_per_s": rate,
    }


@pytest.fixture
def run_of() -> Callable[..., Records]:
    """Makes the records of a run on mlp: strategy -> samples/s by round, the first of which is the warm-up."""

    def make(others: tuple[float, ...] = (0.0,) * 9, status: str | None = "complete", **rates: list[float]) -> Records:
        records: Records = [THROUGHPUT, *(setup_record("mlp", strategy) for strategy in rates)]
        for number in range(max(len(values) for values in rates.values())):
            for strategy, values in rates.items():
                if number < len(values):
                    records.append(block_record("mlp", strategy, number, values[number], others[number]))
        return [*records, {"kind": "end", "status": status}] if status else records

    return make
