"""What GPUs can do at most, by their names and the precision: the denominators of MFU. Pure.

Dense matrix products, in TFLOP/s, as the vendor's data sheets give them (halved where the sheet counts sparsity):
NVIDIA's data sheets of H100, H200, A100, A30, A10, A40, L4, L40S, V100 and T4; for GeForce the Ada and Ampere
architecture white papers, with accumulation in float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PEAKS: tuple[tuple[str, Mapping[str, float]], ...] = (
    (r"H200(?! NVL)", {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4}),
    (r"H200 NVL", {"fp32": 60.0, "tf32": 417.5, "bf16": 835.5, "fp16": 835.5}),
    (r"H100 PCIe", {"fp32": 51.0, "tf32": 378.0, "bf16": 756.5, "fp16": 756.5}),
    (r"H100 NVL", {"fp32": 60.0, "tf32": 417.5, "bf16": 835.5, "fp16": 835.5}),
    (r"H100", {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4}),
    (r"A100", {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0, "fp16": 312.0}),
    (r"A30", {"fp32": 10.3, "tf32": 82.0, "bf16": 165.0, "fp16": 165.0}),
    (r"A40", {"fp32": 37.4, "tf32": 74.8, "bf16": 149.7, "fp16": 149.7}),
    (r"A10", {"fp32": 31.2, "tf32": 62.5, "bf16": 125.0, "fp16": 125.0}),
    (r"L40S", {"fp32": 91.6, "tf32": 183.0, "bf16": 362.1, "fp16": 362.1}),
    (r"L4", {"fp32": 30.3, "tf32": 60.0, "bf16": 121.0, "fp16": 121.0}),
    (r"V100-SXM", {"fp32": 15.7, "fp16": 125.0}),
    (r"V100-PCIE", {"fp32": 14.0, "fp16": 112.0}),
    (r"T4", {"fp32": 8.1, "fp16": 65.0}),
    (r"RTX 4090", {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2, "fp16": 165.2}),
    (r"RTX 3090(?! Ti)", {"fp32": 35.6, "tf32": 35.6, "bf16": 71.0, "fp16": 71.0}),
)


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of one GPU, by torch's name of it; None where it is not in the table."""
    for pattern, peaks in _PEAKS:
        if re.search(rf"\b{pattern}\b", device):
            found = peaks.get(precision)
            return None if found is None else found * 1e12
    return None
