"""A whole training script: `dtk launch train.py`, or `python train.py` for the same on one process.

Kill it and start it again: it goes on from its last checkpoint. Replace Net and open_dataset by your own.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import dist_toolkit as dtk


def Net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def open_dataset(seed: int) -> Dataset:
    """Points of the plane; the class is whether they lie inside a ring."""
    points = torch.randn(4096, 2, generator=torch.Generator().manual_seed(seed))
    radius = points.norm(dim=1)
    return TensorDataset(points, ((radius > 0.8) & (radius < 1.6)).long())


def main() -> None:
    with dtk.init(seed=0) as rt:
        engine = rt.setup(Net, partial(torch.optim.AdamW, lr=3e-3))  # the strategy is that of --strategy
        train = rt.loader(open_dataset(seed=1), global_batch_size=256)  # over all ranks
        test = rt.loader(open_dataset(seed=2), global_batch_size=1024, train=False)
        ckpt = rt.checkpointer(engine=engine, loader=train, every=100, keep_last=2)  # in the run directory
        for step, (x, y) in ckpt.steps(train, until=300):  # restores, counts, saves, stops when asked to
            loss = F.cross_entropy(engine(x), y)
            engine.backward(loss)
            engine.step()
            rt.log(step, loss=loss)  # the mean over all ranks
        correct = rt.mean()
        with engine.evaluating():
            for x, y in test:
                correct.update(engine(x).argmax(1) == y)
        rt.print(f"test accuracy {correct.compute():.3f}")


if __name__ == "__main__":
    main()
