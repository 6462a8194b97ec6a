"""Which optimizers and gradients a strategy can work with. Pure, but for a warning in the log."""

from __future__ import annotations

import logging

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.unused import listed

_LOG = logging.getLogger("dist_toolkit")

NOT_ELEMENTWISE = {
    "Adafactor": "it scales by means over rows and columns",
    "Muon": "it makes whole matrices orthogonal",
    "Shampoo": "it multiplies by roots of matrices over whole rows and columns",
    "SOAP": "it turns whole matrices",
    "LAMB": "it scales by norms of whole parameters",
    "LARS": "it scales by norms of whole parameters",
    "SparseAdam": "it takes sparse gradients only",
}
"""Optimizers, by the names of their classes, that need more of a parameter than a rank's part of it; and why."""

_KNOWN = ("torch.optim.", "deepspeed.ops.adam.", "deepspeed.ops.adagrad.", "deepspeed.ops.lion.")


def refuse_optimizer(optimizer: torch.optim.Optimizer, strategy: str, sharded: bool, warn: bool = True) -> None:
    """Refuse an optimizer that this strategy would step wrongly.

    Args:
        strategy: as the error names it.
        sharded: the optimizer sees only this rank's part of each parameter.
        warn: whether to log, where it is sharded and not a class of torch.optim, that its update must be elementwise.

    Raises:
        ConfigError: it needs a closure; or it is sharded, and known not to be elementwise.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS computes the loss several times a step and needs a closure, which engine.step() does not take; "
            "use an optimizer that steps on gradients, such as partial(torch.optim.AdamW, lr=3e-4)"
        )
    if not sharded:
        return
    for kind in type(optimizer).__mro__:
        reason = why_not_sharded(kind.__name__)
        if reason is not None:
            raise ConfigError(
                f"{type(optimizer).__name__} cannot be used with {strategy}, where a rank holds a part of each "
                f"parameter: {reason}; use AdamW or another elementwise optimizer, or strategy 'ddp'"
            )
    if warn and not f"{type(optimizer).__module__}.".startswith(_KNOWN):
        _LOG.warning(
            "%s is not of torch.optim, and %s gives it a part of each parameter: its update must be elementwise",
            type(optimizer).__name__,
            strategy,
        )


def why_not_sharded(name: str) -> str | None:
    """Why an optimizer of this class name is not elementwise; None where it is not known not to be."""
    plain = name.lower().removeprefix("fused").removeprefix("distributed")
    return next((reason for known, reason in NOT_ELEMENTWISE.items() if known.lower() == plain), None)


def refuse_sparse_gradients(module: nn.Module, strategy: str) -> None:
    """Refuse embeddings that give sparse gradients, which cannot be split over ranks.

    Raises:
        ConfigError: names them.
    """
    sparse = [
        name or type(part).__name__
        for name, part in module.named_modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) and part.sparse and part.weight.requires_grad
    ]
    if sparse:
        raise ConfigError(
            f"{strategy} cannot split the sparse gradients of {listed(sparse)}; "
            "make them with sparse=False, or use strategy 'ddp'"
        )
