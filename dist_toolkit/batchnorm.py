"""Batch normalisation over the samples of all ranks: torch's SyncBatchNorm, which here runs on CPUs too."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from dist_toolkit.errors import ConfigError


def sync_batchnorm(model: nn.Module) -> nn.Module:
    """Have each BatchNorm of `model` take its mean and variance over the samples of all ranks; the model.

    Call it in the model's factory. It is what torch.nn.SyncBatchNorm computes, on CPUs too, where torch's own refuses
    to run over a process group. Parameters, buffers and hooks stay as they are, and so do the names of the state. In
    training each forward and each backward of such a module is collective; a rank without samples gives an empty batch.

    Args:
        model: changed in place.

    Raises:
        ConfigError: a lazy BatchNorm, which does not know its channels yet.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if isinstance(module, LazyModuleMixin):
            raise ConfigError(f"{name or 'the model'} is a {type(module).__name__}: give it its number of channels")
        converted: Any = module
        converted.process_group = getattr(module, "process_group", None)
        converted.__class__ = SyncBatchNorm
    return model


class SyncBatchNorm(_BatchNorm):
    """torch.nn.SyncBatchNorm, on CPUs as well; no subclass of it, since DDP refuses those on a CPU."""

    process_group: Any

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (samples, channels, ...) by channel. Collective in training.

        Raises:
            ValueError: all ranks together have fewer than two values for each channel; on every rank.
        """
        if input.device.type != "cpu":
            return nn.SyncBatchNorm.forward(cast(Any, self), input)
        if not self.training or _ranks(self.process_group) == 1:
            return super().forward(input)
        return self._normalised(input)

    def _normalised(self, input: torch.Tensor) -> torch.Tensor:
        """By two sums over ranks, each with a gradient: of the values, then of the squares about their mean."""
        self._check_input_dim(input)
        self._check_non_zero_input_channels(input)
        others = [0, *range(2, input.ndim)]
        by_channel = [1, -1, *[1] * (input.ndim - 2)]
        group = self.process_group or dist.group.WORLD
        values = input if input.dtype == torch.float64 else input.float()
        count = values.new_tensor([values.numel() // values.shape[1]])
        sums = _sum(torch.cat([values.sum(others), count]), group)
        total = int(sums[-1])
        if total < 2:
            raise ValueError(f"Expected more than 1 value per channel over all ranks when training, got {total}")
        mean = sums[:-1] / total
        centred = values - mean.view(by_channel)
        variance = _sum(centred.square().sum(others), group) / total
        self._track(mean.detach(), variance.detach() * total / (total - 1))
        output = centred * torch.rsqrt(variance + self.eps).view(by_channel)
        if self.weight is not None:
            output = output * self.weight.view(by_channel)
        if self.bias is not None:
            output = output + self.bias.view(by_channel)
        return output.to(input.dtype)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        nn.SyncBatchNorm._check_input_dim(cast(Any, self), input)

    def _check_non_zero_input_channels(self, input: torch.Tensor) -> None:
        nn.SyncBatchNorm._check_non_zero_input_channels(cast(Any, self), input)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Into the running statistics; `variance` is the unbiased one."""
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(new.to(running), share)


def _sum(tensor: torch.Tensor, group: Any) -> torch.Tensor:
    """The sum over the ranks of a group; its gradient is the sum of the ranks' gradients."""
    total: torch.Tensor = _Sum.apply(tensor, group)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _sum(gradient, ctx.group), None


def _ranks(group: Any) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1
