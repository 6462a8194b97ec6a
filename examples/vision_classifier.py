"""ResNet-18/50 or VGG-11/16 of torchvision on small images, with augmentation, label smoothing and SyncBatchNorm.

dtk launch --nproc 2 --precision bf16 examples/vision_classifier.py --model resnet18

`python examples/vision_classifier.py` is the same program on one process.

Killed at any moment and started again, it goes on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from shared import images, practice
from torch import nn
from torchvision import models, transforms

import dist_toolkit as dtk

MODELS = ["resnet18", "resnet50", "vgg11", "vgg16"]


def build(name: str, dropout: float, sync_batchnorm: bool) -> nn.Module:
    """A model of torchvision, with random weights, for small images of ten classes."""
    if name.startswith("vgg"):
        model: nn.Module = getattr(models, f"{name}_bn")()
        model.avgpool = nn.AdaptiveAvgPool2d(1)  # its own head has 120 million weights, for images of 224 x 224
        model.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, images.CLASSES))
    else:
        model = getattr(models, name)()
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # its own first layers leave a quarter of each side,
        model.maxpool = nn.Identity()  # too little of a small image (He et al. 2016, section 4.2)
        model.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(model.fc.in_features, images.CLASSES))
    return dtk.sync_batchnorm(model) if sync_batchnorm else model


def loss_of(args: argparse.Namespace, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The mean loss to one-hot targets that share --label-smoothing out over all classes (Szegedy et al. 2016)."""
    target = F.one_hot(label, images.CLASSES) * (1 - args.label_smoothing) + args.label_smoothing / images.CLASSES
    return F.mse_loss(output, target) if args.loss == "mse" else F.cross_entropy(output, target)


def colours(image: torch.Tensor) -> torch.Tensor:
    """Three channels, from -1 to 1."""
    return image.expand(3, -1, -1) * 2 - 1


def preparation(side: int, augment: bool) -> transforms.Compose:
    """From an image to what the model is given: side x side pixels, to augment turned, moved and scaled a little."""
    as_they_are = [transforms.Resize((side, side), antialias=True), transforms.Lambda(colours)]
    changed = transforms.RandomAffine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1))
    return transforms.Compose([changed, *as_they_are] if augment else as_they_are)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet18", help="default: resnet18")
    parser.add_argument("--side", type=practice.number(int, 8), default=32, help="pixels of an image (default: 32)")
    parser.add_argument("--loss", choices=["cross-entropy", "mse"], default="cross-entropy")
    parser.add_argument("--label-smoothing", type=practice.number(float, 0, 1), default=0.1, help="default: 0.1")
    parser.add_argument("--sync-batchnorm", action="store_true", help="batch statistics over the samples of all ranks")
    practice.add_options(
        parser, epochs=5, optimizer="momentum", lr=0.05, weight_decay=5e-4, warmup=0.1, global_batch_size=64
    )
    images.add_options(parser)
    args = parser.parse_args()
    if args.model.startswith("vgg") and args.side < 32:
        parser.error(f"--side {args.side}: {args.model} halves an image five times; give it 32 pixels or more")
    return args


def main() -> None:
    args = parse_args()
    with dtk.init(seed=args.seed) as rt:
        with rt.main_first():  # rank 0 alone downloads
            train_set, test_set = images.open_images(args)
        train_set, held_out = images.hold_out(train_set)
        augmented, plain = preparation(args.side, True), preparation(args.side, False)
        train = practice.train_loader(rt, args, images.Transformed(train_set, augmented))
        validation = rt.loader(images.Transformed(held_out, plain), global_batch_size=256, train=False)
        test = rt.loader(images.Transformed(test_set, plain), global_batch_size=256, train=False)

        model = partial(build, args.model, args.dropout, args.sync_batchnorm)
        engine = practice.setup(rt, args, model, steps=args.epochs * len(train))
        stop = practice.early_stopping(rt, args)
        ckpt = rt.checkpointer(engine=engine, loader=train, state={"stop": stop}, every=args.save_every, keep_last=2)

        def accuracy(data: dtk.Loader) -> float:
            correct = rt.mean()
            with engine.evaluating():
                for image, label in data:
                    correct.update(engine(image).argmax(1) == label)
            return correct.compute()

        for step, batch in practice.steps(ckpt, train, args, stop):
            for image, label in engine.accumulate(batch, args.accumulate):
                loss = loss_of(args, engine(image), label)
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0:
                found = accuracy(validation)
                rt.print(f"step {step}: validation accuracy {found:.3f}")
                if stop.update(found):
                    ckpt.save()
                    break
        rt.print(f"{args.model}: test accuracy {accuracy(test):.3f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
