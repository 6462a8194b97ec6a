"""What a step costs on paper: weights, and floating-point operations a sample. In ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .tables import ModelSpec, Size
from .tasks import factories, samples, step

_SAMPLES = 2  # batch normalisation needs two


class Bare:
    """A model in the shape of an engine, without an optimizer."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The model's output."""
        return self._module(*inputs)

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Nothing."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Gradients flow through the model, and its parameters get none."""
        self._module.requires_grad_(False)
        try:
            yield
        finally:
            self._module.requires_grad_(True)


def count(spec: ModelSpec, size: Size) -> dict[str, Any]:
    """`parameters`, and `flops_per_sample` of a step's forward and backward passes: matrix products and convolutions,
    a multiplication and an addition as two (torch.utils.flop_counter). Tensors have no memory, only shapes.
    """
    with FakeTensorMode():
        models = [make() for make in factories(spec, size)]
        batch = samples(spec, size, _SAMPLES, None)
        # the counter does not know the CPU's fused attention
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            step(spec, size, [Bare(model) for model in models], batch, lambda name: nullcontext(), update=True)
    return {
        "parameters": sum(parameter.numel() for model in models for parameter in model.parameters()),
        "flops_per_sample": counter.get_total_flops() / _SAMPLES,
    }
