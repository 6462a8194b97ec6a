"""The options of good practice that the examples share: optimizer, schedule, batch, clipping, early stopping."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import dist_toolkit as dtk

NEVER = 10**9  # evaluations
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": partial(torch.optim.RMSprop, alpha=0.9, momentum=0.9),
}


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Options of training, with the defaults of this script; docs/guide/practice.md says what each is for."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=int, help="passes over the training data (default: %(default)s)")
    add("--global-batch-size", type=int, default=96, help="samples of a step over all ranks (default: %(default)s)")
    add("--accumulate", type=int, default=1, metavar="N", help="micro-batches of a step on each rank (default: 1)")
    add("--optimizer", choices=sorted(OPTIMIZERS), default="adamw", help="default: %(default)s")
    add("--lr", type=float, default=1e-3, help="peak learning rate, at --base-batch-size (default: %(default)s)")
    add("--scale-lr", choices=["no", "linear", "sqrt"], default="no", help="with global batch / base batch (default: no)")
    add("--base-batch-size", type=int, metavar="N", help="the batch that --lr was found for (default: the global batch)")
    add("--schedule", choices=["constant", "linear", "cosine"], default="cosine", help="default: %(default)s")
    add("--warmup", type=float, default=0.0, metavar="SHARE", help="of the steps, in 0..1, to reach --lr (default: 0)")
    add("--weight-decay", type=float, default=0.0, help="of weights, not of biases and norms (default: %(default)s)")
    add("--dropout", type=float, default=0.0, metavar="P", help="default: %(default)s")
    add("--clip-grad", type=float, default=None, metavar="NORM", help="largest norm of the gradient (default: none)")
    add("--patience", type=int, metavar="N", help="evaluations without progress after which all ranks stop")
    add("--seed", type=int, default=0, help="of weights, data order, augmentation and dropout (default: 0)")
    add("--save-every", type=int, default=100, metavar="N", help="steps between checkpoints (default: %(default)s)")
    parser.set_defaults(**defaults)


def learning_rate(args: argparse.Namespace) -> float:
    """The peak: scaled with the global batch as Goyal et al. (2017) do for SGD, or by the root as Krizhevsky (2014)."""
    factor = args.global_batch_size / (args.base_batch_size or args.global_batch_size)
    return float(args.lr * {"no": 1.0, "linear": factor, "sqrt": math.sqrt(factor)}[args.scale_lr])


def optimizer(args: argparse.Namespace) -> Any:
    """A factory for rt.setup: from parameters to the optimizer that was asked for."""
    return partial(OPTIMIZERS[args.optimizer], lr=learning_rate(args), weight_decay=args.weight_decay)


def share_of_rate(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Of the peak learning rate, in 0..1, at `step` (from 0): a linear warm-up, then the schedule down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def scheduler(args: argparse.Namespace, steps: int) -> Any:
    """A factory for rt.setup: from the optimizer to its schedule over `steps` steps."""
    share = partial(share_of_rate, steps=steps, warmup=round(args.warmup * steps), schedule=args.schedule)
    return partial(LambdaLR, lr_lambda=share)


def train_loader(rt: dtk.Runtime, args: argparse.Namespace, data: Any, **options: Any) -> dtk.Loader:
    """Global batches of --global-batch-size, which --accumulate divides."""
    return rt.loader(data, global_batch_size=args.global_batch_size, micro_batches=args.accumulate, **options)


def setup(rt: dtk.Runtime, args: argparse.Namespace, model: Any, steps: int, **options: Any) -> dtk.Engine:
    """An engine with the optimizer and the schedule that were asked for."""
    return rt.setup(model, optimizer(args), scheduler=scheduler(args, steps), **options)


def early_stopping(rt: dtk.Runtime, args: argparse.Namespace, mode: str = "max") -> Any:
    """Of a metric that is given to its `update`: all ranks stop together, after --patience without progress; else never."""
    return rt.early_stopping(args.patience or NEVER, mode=mode)


def update(engine: dtk.Engine, args: argparse.Namespace) -> None:
    """The optimizer's step, of gradients whose norm over all ranks is at most --clip-grad."""
    if args.clip_grad is not None:
        engine.clip_grad_norm(args.clip_grad)
    engine.step()
