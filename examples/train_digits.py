"""Train a three-layer MLP (or a small CNN) on scikit-learn's 1,797 handwritten digits, or on MNIST.

dtk launch --nproc 2 examples/train_digits.py

`python examples/train_digits.py` is the same program on one process.

Killed at any moment and started again, it goes on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import dist_toolkit as dtk


def mlp(pixels: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def cnn(pixels: int) -> nn.Module:
    side = int(pixels**0.5) // 2
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * side * side, 10),
    )  # fmt: skip


def open_digits() -> tuple[Dataset, Dataset]:
    """scikit-learn's digits, 8 x 8 pixels: four fifths to train on, every fifth held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    held_out = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~held_out], labels[~held_out]), TensorDataset(images[held_out], labels[held_out])


def open_mnist(root: Path, download: bool) -> tuple[Dataset, Dataset]:
    """MNIST with torchvision, 28 x 28 pixels."""
    from torchvision import datasets, transforms

    to_tensor = transforms.ToTensor()
    try:
        return tuple(datasets.MNIST(root, train, to_tensor, download=download) for train in (True, False))
    except RuntimeError as error:
        raise SystemExit(f"no MNIST in {root} ({error}); pass --download, or the --root that holds it") from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--model", choices=["mlp", "cnn"], default="mlp")
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--lr", type=float, help="learning rate (default: 0.003 for adam, 0.1 for sgd)")
    parser.add_argument("--global-batch-size", type=int, default=96, help="samples of a step over all ranks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where MNIST is")
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not there")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    optimizers = {
        "adam": partial(torch.optim.Adam, lr=args.lr or 3e-3),
        "sgd": partial(torch.optim.SGD, lr=args.lr or 0.1, momentum=0.9),
    }
    with dtk.init(seed=args.seed) as rt:
        train_set, test_set = open_digits() if args.data == "digits" else open_mnist(args.root, args.download)
        pixels = train_set[0][0].numel()
        engine = rt.setup(partial({"mlp": mlp, "cnn": cnn}[args.model], pixels), optimizers[args.optimizer])
        train = rt.loader(train_set, global_batch_size=args.global_batch_size)
        test = rt.loader(test_set, global_batch_size=512, train=False)
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=3)

        def accuracy() -> float:
            correct = rt.mean()
            with engine.evaluating():
                for images, labels in test:
                    correct.update(engine(images).argmax(1) == labels)
            return correct.compute()

        steps = args.epochs * len(train)
        for step, (images, labels) in ckpt.steps(train, epochs=args.epochs):
            loss = F.cross_entropy(engine(images), labels)
            engine.backward(loss)
            engine.step()
            if rt.progress.wanted:
                rt.progress.update(f"step {step}/{steps}  loss {loss.item():.3f}")
            if step % (5 * len(train)) == 0:
                rt.print(
                    f"step {step}/{steps}  epoch {step // len(train)}/{args.epochs}  test accuracy {accuracy():.3f}"
                )
        rt.print(f"test accuracy {accuracy():.3f}")


if __name__ == "__main__":
    main()
