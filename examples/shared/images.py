"""Small images with labels: scikit-learn's digits, which every machine has, or a data set of torchvision."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset
from torchvision import datasets, transforms

KNOWN = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
CLASSES = 10


class Transformed(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Each image through `transform`, at each look anew: augmentation draws other random numbers."""

    def __init__(self, data: Dataset[Any], transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self.data[index]
        return self.transform(image), label


def add_options(parser: argparse.ArgumentParser) -> None:
    """--data, --root and --download."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", choices=["digits", *KNOWN], default="digits", help="default: scikit-learn's digits")
    group.add_argument("--root", type=Path, default=Path("data"), help="where the data set of torchvision is")
    group.add_argument("--download", action="store_true", help="fetch it if it is not there")


def open_images(args: argparse.Namespace) -> tuple[Dataset[Any], Dataset[Any]]:
    """To train on and to test with: pairs of an image, (channels, side, side) from 0 to 1, and its class."""
    if args.data == "digits":
        return _digits()
    try:
        train, test = (
            KNOWN[args.data](args.root, train=train, transform=transforms.ToTensor(), download=args.download)
            for train in (True, False)
        )
    except RuntimeError as error:
        raise SystemExit(f"no {args.data} in {args.root} ({error}); pass --download, or the --root that holds it") from None
    return train, test


def _digits() -> tuple[Dataset[Any], Dataset[Any]]:
    """1,797 digits of 8 x 8 pixels: four fifths to train on, every fifth held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    held_out = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~held_out], labels[~held_out]), TensorDataset(images[held_out], labels[held_out])
