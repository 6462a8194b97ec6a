"""What a training step of a model is, and what it is made of: the data, the engines, the parts of the step. In ranks.

A part of a step is timed by `with part(name):`; where nothing is timed, `part` gives contexts that do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .tables import ModelSpec, Size, load

Part = Callable[[str], AbstractContextManager[Any]]
"""By name: `data`, `forward`, `backward`, `optimizer`."""
Tensors = Sequence[torch.Tensor]

_MASKED = 0.15  # of the tokens, as in BERT
_IGNORED = -100  # cross_entropy's own


def factories(spec: ModelSpec, size: Size) -> list[Callable[[], nn.Module]]:
    """What makes each model of a step, in the order of the engines."""
    build = load(spec.build)
    if spec.task == "gan":  # the other player is made and dropped: the random numbers are those of both
        return [partial(_player, build, size, number) for number in (0, 1)]
    return [partial(build, size)]


def _player(build: Callable[[Size], Sequence[nn.Module]], size: Size, number: int) -> nn.Module:
    return build(size)[number]


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=1e-4),
    "adam": partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999)),
}


def samples(spec: ModelSpec, size: Size, count: int, generator: torch.Generator | None) -> list[torch.Tensor]:
    """Synthetic samples: inputs and targets, samples along dimension 0; on the default device."""
    if spec.task == "classify":
        inputs = torch.randn(count, *size.shape, generator=generator)
        return [inputs, torch.randint(size.classes, (count,), generator=generator)]
    if spec.task == "gan":
        return [torch.rand(count, *size.shape, generator=generator) * 2 - 1]
    ids = torch.randint(size.classes, (count, *size.shape), generator=generator)
    if spec.task == "causal":
        targets = ids.roll(-1, dims=1)
        targets[:, -1] = _IGNORED
        return [ids, targets]
    chosen = max(1, round(_MASKED * size.shape[0]))  # the same number in every sample: loss terms weigh alike
    places = torch.rand(count, *size.shape, generator=generator).argsort(dim=1)[:, :chosen]
    targets = torch.full_like(ids, _IGNORED).scatter(1, places, ids.gather(1, places))
    return [ids.scatter(1, places, 0), targets]


def step(spec: ModelSpec, size: Size, engines: Sequence[Any], batch: Tensors, part: Part, update: bool) -> torch.Tensor:
    """One training step on this process's share of a batch; its loss.

    Args:
        update: False: clear the gradients in place of the optimizer's step.
    """
    if spec.task == "gan":
        return _play(engines[0], engines[1], batch[0], size.classes, part, update)
    (engine,), (inputs, targets) = engines, batch
    with part("forward"):
        output = engine(inputs)
        loss = F.cross_entropy(output.flatten(0, -2), targets.flatten(), ignore_index=_IGNORED)
    _descend(engine, loss, part, update)
    return loss


def _descend(engine: Any, loss: torch.Tensor, part: Part, update: bool) -> None:
    with part("backward"):
        engine.backward(loss)
    with part("optimizer"):
        if update:
            engine.step()
        else:
            engine.zero_grad()


def _play(maker: Any, judge: Any, real: torch.Tensor, noise: int, part: Part, update: bool) -> torch.Tensor:
    """The discriminator learns to tell real images from made ones, then the generator to be taken for real."""
    with part("forward"):
        made = maker(torch.randn(len(real), noise, device=real.device))
        logits = judge(torch.cat([real, made.detach()]))
        is_real = torch.cat([torch.ones(len(real)), torch.zeros(len(real))]).to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, is_real)
    _descend(judge, loss, part, update)
    with judge.frozen():
        with part("forward"):
            taken = judge(made)
            wanted = F.binary_cross_entropy_with_logits(taken, torch.ones_like(taken))
        _descend(maker, wanted, part, update)
    return loss.detach() + wanted.detach()
