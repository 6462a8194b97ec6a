"""The same with dist_toolkit: any number of ranks and any strategy. The last of four: docs/road.md.

dtk launch --nproc 2 examples/road_4_dist_toolkit.py

`python examples/road_4_dist_toolkit.py` is the same program on one process.

Killed at any moment and started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from shared import images
from torch import nn

import dist_toolkit as dtk


def mlp(pixels: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, images.CLASSES),
    )  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training data (default: 20)")
    parser.add_argument("--batch-size", type=int, default=96, help="samples of a step over all ranks (default: 96)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (default: 0.003)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data order and dropout (default: 0)")
    images.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with dtk.init(seed=args.seed) as rt:
        with rt.main_first():  # rank 0 alone downloads
            train_set, test_set = images.open_images(args)
        train = rt.loader(train_set, global_batch_size=args.batch_size)
        test = rt.loader(test_set, global_batch_size=512, train=False)

        model = partial(mlp, train_set[0][0].numel())
        engine = rt.setup(model, partial(torch.optim.AdamW, lr=args.lr))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=len(train), keep_last=2)

        for _, (image, label) in ckpt.steps(train, epochs=args.epochs):
            loss = F.cross_entropy(engine(image), label)
            engine.backward(loss)
            engine.step()

        correct = rt.mean()
        with engine.evaluating():
            for image, label in test:
                correct.update(engine(image).argmax(1) == label)
        rt.print(f"test accuracy {correct.compute():.3f}")


if __name__ == "__main__":
    main()
