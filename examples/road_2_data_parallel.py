"""The same with torch.nn.DataParallel: one process, all GPUs of the machine. The second of four: docs/road.md.

python examples/road_2_data_parallel.py

Without a GPU it is the first script once more: DataParallel then only calls the model.

Killed at any moment and started again, it goes on from its last whole epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from shared import images
from torch import nn
from torch.utils.data import DataLoader


def mlp(pixels: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, images.CLASSES),
    )  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training data (default: 20)")
    parser.add_argument("--batch-size", type=int, default=96, help="samples of a step (default: 96)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (default: 0.003)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data order and dropout (default: 0)")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs", Path(__file__).stem + ".pt"))
    images.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    train_set, test_set = images.open_images(args)
    train = DataLoader(train_set, args.batch_size, shuffle=True, drop_last=True)
    test = DataLoader(test_set, 512)

    model = mlp(train_set[0][0].numel()).to(device)
    parallel = nn.DataParallel(model)  # each step: batch scattered, weights copied, outputs gathered on the first GPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    first = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epochs"]

    for epoch in range(first, args.epochs):
        torch.manual_seed(args.seed + epoch)  # the order of the samples and dropout are those of the epoch
        model.train()
        for image, label in train:
            loss = F.cross_entropy(parallel(image.to(device)), label.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        unfinished = args.checkpoint.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.replace(args.checkpoint)  # whoever is killed leaves the old file or the new one, both whole

    model.eval()
    correct = 0
    with torch.no_grad():
        for image, label in test:
            correct += (parallel(image.to(device)).argmax(1) == label.to(device)).sum().item()
    print(f"test accuracy {correct / len(test_set):.3f}")


if __name__ == "__main__":
    main()
