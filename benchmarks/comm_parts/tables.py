"""What can be measured, by name, and how a time becomes a bandwidth. Pure, so reading this needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SOURCE = "https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md"
"""Where the factors are derived."""


@dataclass(frozen=True)
class Operation:
    """A collective operation of torch.distributed."""

    of: str
    """Whose size is S."""
    formula: str
    factor: Callable[[int], float]
    """From the number of ranks to bus bandwidth over algorithm bandwidth."""
    in_place: bool = False
    """Whether one buffer is sent from and received in: then one rank alone has nothing to do, not even to copy."""


OPERATIONS = {
    "all-reduce": Operation("each rank's buffer", "2(n-1)/n", lambda n: 2 * (n - 1) / n, in_place=True),
    "all-gather": Operation("the gathered buffer", "(n-1)/n", lambda n: (n - 1) / n),
    "reduce-scatter": Operation("the buffer before it is scattered", "(n-1)/n", lambda n: (n - 1) / n),
    "broadcast": Operation("the buffer", "1", lambda n: 1.0, in_place=True),
}

BACKENDS = {
    "gloo": "between processes, in the memory of the host",
    "nccl": "between GPUs; with one rank, copies within a GPU",
}

DTYPES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
"""Name in torch -> bytes."""

SCOPES = {"within": "within a node", "across": "across nodes"}


def bandwidths(operation: str, ranks: int, size: int, seconds: float) -> tuple[float, float]:
    """Algorithm and bus bandwidth in GB/s (10^9 bytes).

    algbw = S/t, busbw = algbw x factor: nccl-tests' doc/PERFORMANCE.md.

    Args:
        size: S in bytes.
        seconds: t, of one operation.
    """
    algorithm = size / seconds / 1e9
    return algorithm, algorithm * OPERATIONS[operation].factor(ranks)
