"""ResNet-18/50 or VGG-11/16 of torchvision on small images: augmentation, label smoothing, SyncBatchNorm, mixed precision.

dtk launch --nproc 2 --precision bf16 examples/vision_classifier.py --model resnet18

`python examples/vision_classifier.py` is the same program on one process. Started again, it goes on where it was.
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
    """A model of torchvision for images of 32 x 32 and ten classes, with random weights."""
    if name.startswith("vgg"):
        whole = models.vgg.make_layers(models.vgg.cfgs[{"vgg11": "A", "vgg16": "D"}[name]], batch_norm=True)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(512, images.CLASSES)]
        model: nn.Module = nn.Sequential(whole, *head)  # its own classifier is made for images of 224 x 224
    else:
        model = getattr(models, name)(num_classes=images.CLASSES)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # the stem of He et al. (2016) for CIFAR: on small
        model.maxpool = nn.Identity()  # images 7 x 7 with stride 2 and pooling would leave little
        model.fc = nn.Sequential(nn.Dropout(dropout), model.fc)
    return dtk.sync_batchnorm(model) if sync_batchnorm else model


def augmentation(side: int) -> transforms.Compose:
    """To train: moved, turned a little, in front of what is left of the border."""
    return transforms.Compose([
        transforms.RandomAffine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1)), as_seen(side),
    ])  # fmt: skip


def as_seen(side: int) -> transforms.Compose:
    """Three channels of side x side, from about -1 to 1."""
    return transforms.Compose([
        transforms.Lambda(lambda image: image.expand(3, -1, -1)), transforms.Resize((side, side), antialias=True),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ])  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image, after resizing (default: 32)")
    parser.add_argument("--label-smoothing", type=float, default=0.1, help="in 0..1 (default: 0.1)")
    parser.add_argument("--sync-batchnorm", action="store_true", help="batch statistics over the samples of all ranks")
    practice.add_options(
        parser, epochs=5, optimizer="momentum", lr=0.05, weight_decay=5e-4, warmup=0.1, global_batch_size=64
    )
    images.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with dtk.init(seed=args.seed) as rt:
        train_set, test_set = images.open_images(args)
        train = practice.train_loader(rt, args, images.Transformed(train_set, augmentation(args.side)))
        test = rt.loader(images.Transformed(test_set, as_seen(args.side)), global_batch_size=512, train=False)
        model = partial(build, args.model, args.dropout, args.sync_batchnorm)
        engine = practice.setup(rt, args, model, steps=args.epochs * len(train))
        stop = practice.early_stopping(rt, args)
        ckpt = rt.checkpointer(engine=engine, loader=train, state={"stop": stop}, every=args.save_every, keep_last=2)

        def accuracy() -> float:
            correct = rt.mean()
            with engine.evaluating():
                for image, label in test:
                    correct.update(engine(image).argmax(1) == label)
            return correct.compute()

        for step, batch in ckpt.steps(train, epochs=args.epochs):
            for image, label in engine.accumulate(batch, args.accumulate):
                loss = F.cross_entropy(engine(image), label, label_smoothing=args.label_smoothing)
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0 and stop.update(accuracy()):
                break
        if not ckpt.is_saved():
            ckpt.save()
        rt.print(f"{args.model}: test accuracy {accuracy():.3f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
