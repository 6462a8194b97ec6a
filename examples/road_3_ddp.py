"""The same with DistributedDataParallel by hand: a process for each GPU. The third of four: docs/road.md.

dtk launch --nproc 2 examples/road_3_ddp.py      (or: torchrun --nproc-per-node 2 examples/road_3_ddp.py)

Killed at any moment and started again, it goes on from its last whole epoch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from shared import images
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler


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
    parser.add_argument("--checkpoint", type=Path, default=Path("runs", Path(__file__).stem + ".pt"))
    images.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(args.seed)
    if rank > 0:
        dist.barrier()  # rank 0 is first: it alone downloads
    train_set, test_set = images.open_images(args)
    if rank == 0:
        dist.barrier()
    sampler = DistributedSampler(train_set, seed=args.seed, drop_last=True)
    train = DataLoader(train_set, args.batch_size // ranks, sampler=sampler, drop_last=True)
    test = DataLoader(test_set, 512, sampler=range(rank, len(test_set), ranks))  # each sample on one rank, once

    model = mlp(train_set[0][0].numel()).to(device)
    parallel = DistributedDataParallel(model)  # weights are rank 0's; gradients are averaged while backward runs
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    first = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epochs"]

    for epoch in range(first, args.epochs):
        sampler.set_epoch(epoch)  # without it all epochs have the order of the first
        torch.manual_seed((args.seed + epoch) * ranks + rank)  # dropout is of the epoch, and another on each rank
        model.train()
        for image, label in train:
            loss = F.cross_entropy(parallel(image.to(device)), label.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
        if rank == 0:
            args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            unfinished = args.checkpoint.with_suffix(".tmp")
            torch.save(state, unfinished)
            unfinished.replace(args.checkpoint)  # whoever is killed leaves the old file or the new one, both whole

    model.eval()
    correct = torch.zeros((), device=device)
    with torch.no_grad():
        for image, label in test:
            correct += (model(image.to(device)).argmax(1) == label.to(device)).sum()
    dist.all_reduce(correct)
    if rank == 0:
        print(f"test accuracy {correct.item() / len(test_set):.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
