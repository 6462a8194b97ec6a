"""The options of training that the examples share: optimizer, schedule, batch, clipping, early stopping."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import dist_toolkit as dtk

NEVER = 10**9  # evaluations
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Options of training, with the defaults of this script; docs/practice.md says what each is for."""
    count, amount, share = number(int, 1), number(float, 0.0), number(float, 0.0, 1.0)
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=count, default=10, help="passes over the training data (default: %(default)s)")
    add("--global-batch-size", type=count, default=96, help="samples of a step over all ranks (default: %(default)s)")
    add("--accumulate", type=count, default=1, metavar="N", help="micro-batches of a step on each rank (default: 1)")
    add("--optimizer", choices=sorted(OPTIMIZERS), default="adamw", help="default: %(default)s")
    add("--lr", type=amount, default=1e-3, help="peak learning rate, at --base-batch-size (default: %(default)s)")
    add("--base-batch-size", type=count, metavar="N", help="the batch that --lr is for (default: --global-batch-size)")
    add("--scale-lr", choices=["no", "linear", "sqrt"], default="no", help="by global / base batch size (default: no)")
    add("--schedule", choices=["constant", "linear", "cosine"], default="cosine", help="default: %(default)s")
    add("--warmup", type=share, default=0.0, help="share of the steps, in 0..1, to reach --lr (default: %(default)s)")
    add("--weight-decay", type=amount, default=0.0, help="of weights, not of biases and norms (default: %(default)s)")
    add("--dropout", type=share, default=0.0, metavar="P", help="default: %(default)s")
    add("--clip-grad", type=amount, metavar="NORM", help="largest norm of the gradient (default: any)")
    add("--patience", type=count, metavar="N", help="stop after N evaluations without progress (default: never)")
    add("--seed", type=int, default=0, help="of weights, data order, augmentation and dropout (default: 0)")
    add("--save-every", type=count, default=100, metavar="N", help="steps between checkpoints (default: %(default)s)")
    parser.set_defaults(**defaults)


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], Any]:
    """A type for argparse: a number of this kind from `least` to `most`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in {least:g}..{most:g}")
        return value

    parse.__name__ = kind.__name__  # argparse calls it so where the text is no number
    return parse


def learning_rate(args: argparse.Namespace) -> float:
    """--lr times how much larger the batch is (Goyal et al. 2017, for SGD), or its root (Malladi et al. 2022, Adam)."""
    larger = args.global_batch_size / (args.base_batch_size or args.global_batch_size)
    return args.lr * {"no": 1.0, "linear": larger, "sqrt": math.sqrt(larger)}[args.scale_lr]


def optimizer(args: argparse.Namespace) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """A factory for rt.setup: from parameters to the optimizer that was asked for."""
    make = partial(OPTIMIZERS[args.optimizer], lr=learning_rate(args))
    return lambda parameters: make(parameter_groups(parameters, args.weight_decay))


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels, which decay; biases and the scales of norms, which have one dimension and do not."""
    parameters = list(parameters)
    decayed = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (decayed, others) if group["params"]]


def scheduler(args: argparse.Namespace, steps: int) -> Callable[[torch.optim.Optimizer], LambdaLR]:
    """A factory for rt.setup: from the optimizer to its schedule over `steps` steps."""
    share = partial(share_of_rate, steps=steps, warmup=round(args.warmup * steps), schedule=args.schedule)
    return partial(LambdaLR, lr_lambda=share)


def share_of_rate(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Of the peak learning rate, in 0..1, at `step` (from 0): `warmup` steps up a line, then down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def train_loader(rt: dtk.Runtime, args: argparse.Namespace, data: Any, **options: Any) -> dtk.Loader:
    """Global batches of --global-batch-size, which --accumulate divides."""
    return rt.loader(data, global_batch_size=args.global_batch_size, micro_batches=args.accumulate, **options)


def setup(rt: dtk.Runtime, args: argparse.Namespace, model: Any, steps: int, **options: Any) -> dtk.Engine:
    """An engine with the optimizer and the schedule that were asked for."""
    return rt.setup(model, optimizer(args), scheduler=scheduler(args, steps), **options)


def early_stopping(rt: dtk.Runtime, args: argparse.Namespace, mode: str = "max") -> Any:
    """Its `update(metric)` says on all ranks together whether to stop: --patience evaluations brought no progress."""
    return rt.early_stopping(args.patience or NEVER, mode=mode)


def steps(ckpt: dtk.Checkpointer, loader: dtk.Loader, args: argparse.Namespace, stop: Any) -> Iterator[tuple[int, Any]]:
    """The steps of --epochs that are left to do; none where the run that is restored had stopped early."""
    ckpt.restore()
    return ckpt.steps(loader, until=ckpt.step) if stop.stopped else ckpt.steps(loader, epochs=args.epochs)


def update(engine: dtk.Engine, args: argparse.Namespace) -> None:
    """The optimizer's step, with a gradient whose norm over all ranks is at most --clip-grad."""
    if args.clip_grad is not None:
        engine.clip_grad_norm(args.clip_grad)
    engine.step()
