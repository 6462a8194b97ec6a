"""Which optimizers and gradients are refused, and which are warned of."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.optimizers import refuse_optimizer, refuse_sparse_gradients, why_not_sharded

ELEMENTWISE = ["Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


class Mine(torch.optim.SGD):
    """A script's own."""


class Lamb(torch.optim.SGD):
    """Named as one whose update is known."""


class Derived(Lamb):
    pass


def made(kind: Any) -> torch.optim.Optimizer:
    return kind([nn.Parameter(torch.ones(2, 2))], lr=0.1)


@pytest.fixture(scope="module", autouse=True)
def first_optimizer() -> None:
    """The first one of a process imports torch's compiler, which sets a variable of the environment for good."""
    made(torch.optim.SGD)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_ones_go_everywhere_without_a_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for sharded in (True, False):
        refuse_optimizer(made(getattr(torch.optim, name)), "fsdp", sharded)
    assert not caplog.records


def test_every_optimizer_of_torch_is_decided() -> None:
    names = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type) and name != "Optimizer"}
    assert names - set(ELEMENTWISE) - {"LBFGS"} == {name for name in names if why_not_sharded(name)}


@pytest.mark.parametrize("sharded", [True, False])
def test_a_closure_is_refused_everywhere(sharded: bool) -> None:
    with pytest.raises(ConfigError, match=r"LBFGS .* needs a closure"):
        refuse_optimizer(made(torch.optim.LBFGS), "ddp", sharded)


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, getattr(torch.optim, "Muon", Lamb), Lamb, Derived])
def test_what_needs_whole_parameters_is_refused_where_they_are_split(kind: Any) -> None:
    refuse_optimizer(made(kind), "ddp", sharded=False)
    with pytest.raises(ConfigError, match=rf"{kind.__name__} cannot be used with DeepSpeed stage 2.*; use AdamW"):
        refuse_optimizer(made(kind), "DeepSpeed stage 2", sharded=True)


def test_an_unknown_one_is_warned_of_once_where_it_is_split(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dist_toolkit"):
        refuse_optimizer(made(Mine), "fsdp", sharded=False)
        refuse_optimizer(made(Mine), "fsdp", sharded=True, warn=False)
        assert not caplog.records
        refuse_optimizer(made(Mine), "fsdp", sharded=True)
    (record,) = caplog.records
    assert "Mine" in record.getMessage()
    assert "elementwise" in record.getMessage()


def test_sparse_embeddings_are_named() -> None:
    model = nn.ModuleDict({
        "dense": nn.Embedding(3, 2),
        "words": nn.Embedding(3, 2, sparse=True),
        "bag": nn.EmbeddingBag(3, 2, sparse=True),
        "fixed": nn.Embedding(3, 2, sparse=True).requires_grad_(False),
    })  # fmt: skip
    with pytest.raises(ConfigError, match=r"fsdp cannot split the sparse gradients of words, bag; .*sparse=False"):
        refuse_sparse_gradients(model, "fsdp")
    del model["words"], model["bag"]
    refuse_sparse_gradients(model, "fsdp")
    with pytest.raises(ConfigError, match="of Embedding;"):
        refuse_sparse_gradients(nn.Embedding(3, 2, sparse=True), "fsdp")
