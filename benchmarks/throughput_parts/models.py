"""The models of `tables.MODELS`."""

from __future__ import annotations

from torch import nn


def mlp() -> nn.Module:
    """A multi-layer perceptron of about 1.9 million weights."""
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def resnet18() -> nn.Module:
    """torchvision's ResNet-18 with ten classes: 11.2 million weights, batch normalisation."""
    from torchvision import models

    model: nn.Module = models.resnet18(num_classes=10)
    return model
