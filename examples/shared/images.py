"""Small images with labels: scikit-learn's digits, which need no network, or a data set of torchvision."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, Subset, TensorDataset

from shared.ending import refuse

KNOWN = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
CLASSES = 10


class Transformed(Dataset):
    """Each image of `data` through `transform`, each time it is read: augmentation is another in each epoch."""

    def __init__(self, data: Dataset, transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        image, label = self.data[index]
        return self.transform(image), label


def add_options(parser: argparse.ArgumentParser) -> None:
    """--data, --root and --download."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", choices=["digits", *KNOWN], default="digits", help="default: scikit-learn's digits")
    group.add_argument("--root", type=Path, default=Path("data"), help="where torchvision's data are (default: data)")
    group.add_argument("--download", action="store_true", help="fetch them if they are not there")
    group.add_argument("--limit", type=int, metavar="N", help="train on the first N samples only")


def open_images(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """To train on and to test with: pairs of an image, (channels, side, side) from 0 to 1, and its class.

    Raises:
        SystemExit: 2, with a line on stderr: the data set is not there.
    """
    train, test = _digits() if args.data == "digits" else _of_torchvision(args)
    return (Subset(train, range(min(args.limit, len(train)))) if args.limit else train), test


def hold_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """Nine tenths to train on; every tenth sample to decide with, such as when to stop."""
    numbers = range(len(data))
    return Subset(data, [n for n in numbers if n % 10 != 9]), Subset(data, [n for n in numbers if n % 10 == 9])


def _of_torchvision(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    from torchvision import datasets, transforms

    known, to_tensor = getattr(datasets, KNOWN[args.data]), transforms.ToTensor()
    try:
        train, test = (known(args.root, train, to_tensor, download=args.download) for train in (True, False))
    except (RuntimeError, OSError) as error:
        why = str(error).splitlines()[0]
        refuse(f"no {args.data} in {args.root} ({why}); pass --download, or the --root that holds it")
    return train, test


def _digits() -> tuple[Dataset, Dataset]:
    """1,797 digits of 8 x 8 pixels: four fifths to train on, every fifth to test with."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    to_test = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~to_test], labels[~to_test]), TensorDataset(images[to_test], labels[to_test])
