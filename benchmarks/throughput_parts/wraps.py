"""What strategies of `tables.STRATEGIES` put around a model before it is trained."""

from __future__ import annotations

from torch import nn


def data_parallel(model: nn.Module, gpus: int) -> nn.Module:
    """torch's DataParallel over the first `gpus` GPUs; without any it only calls the model."""
    return nn.DataParallel(model, device_ids=list(range(gpus)) if gpus else None)
