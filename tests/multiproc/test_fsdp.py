"""The FSDP strategy on real ranks: what it trains equals what one process trains, and no rank holds the whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dist_toolkit as dtk
from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.testing import run_ranks

pytestmark = pytest.mark.multiproc


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.inner.weight.dtype)
        return x + self.outer(F.gelu(self.inner(self.norm(x))))


class Net(nn.Module):
    """Tied embedding and head, a frozen layer, a parameter of one element, buffers of both kinds."""

    def __init__(self, width: int = 6, blocks: int = 2, tokens: int = 11) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.frozen = nn.Linear(width, width)
        self.frozen.requires_grad_(False)
        self.gain = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(width, tokens)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.rand(3))
        self.register_buffer("shift", torch.rand(width), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.shift
        for block in self.blocks:
            x = block(x)
        return self.head(self.gain * self.frozen(x) * self.scale.mean())


def reference(index: int, factory: Any = Net) -> nn.Module:
    """The model that the `index`-th `rt.setup` of a run with seed 0 makes."""
    with seeding.common_stream(torch.device("cpu"), seeding.derive(0, "model", index)):
        return factory()


def batch(rt: Any, samples: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Global batch (samples, 5) of tokens, and this rank's rows of it."""
    whole = torch.randint(0, 11, (samples, 5), generator=torch.Generator().manual_seed(seed))
    return whole, whole.chunk(rt.world.world_size)[rt.world.rank]


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten())


def assert_same(engine: Any, model: nn.Module, tolerance: float = 1e-6) -> None:
    mine = {name: tensor.clone() for name, tensor in engine.named_weights()}
    theirs = dict(model.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            mine[name], tensor.detach(), rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def train_both(
    rt: Any, engine: Any, model: nn.Module, optimizer: Any, steps: int = 3, clip: float | None = None
) -> None:
    theirs = optimizer([p for p in model.parameters() if p.requires_grad])
    for step in range(steps):
        whole, mine = batch(rt, 8, seed=step)
        engine.backward(loss_of(engine, mine))
        loss_of(model, whole).backward()
        if clip is not None:
            norm = engine.clip_grad_norm(clip)
            expected = nn.utils.clip_grad_norm_(model.parameters(), clip)
            torch.testing.assert_close(norm, expected, rtol=1e-5, atol=1e-6)
            assert type(norm) is torch.Tensor and len({float(n) for n in rt.gather(norm.reshape(1))}) == 1
        assert engine.step()
        theirs.step()
        theirs.zero_grad()


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "adamw_fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
}


def parity() -> None:
    with dtk.init(seed=0) as rt:
        made = 0

        def compare(options: dtk.FSDP, optimizer: str = "adamw", **how: Any) -> Any:
            nonlocal made
            engine = rt.setup(Net, OPTIMIZERS[optimizer], strategy=options)
            model = reference(made)
            made += 1
            assert_same(engine, model, 0.0)
            buffers = dict(model.named_buffers())
            for name, tensor in engine.module.named_buffers():
                assert torch.equal(tensor, buffers[name.replace("_orig_mod.", "")]), name
            train_both(rt, engine, model, OPTIMIZERS[optimizer], **how)
            # torch's fused and foreach updates round differently; AdamW divides by small numbers
            assert_same(engine, model, 1e-6 if optimizer == "sgd" else 2e-5)
            return engine

        compare(dtk.FSDP(), "sgd", clip=0.5)
        compare(dtk.FSDP(init="full"), "adamw", clip=0.5)
        compare(dtk.FSDP(wrap=(Block,), activation_checkpointing=True))
        compare(dtk.FSDP(wrap=("Block",), compile="eager", activation_checkpointing=True), "adamw_fused")
        compare(dtk.FSDP(wrap=50, reshard_after_forward=False), "sgd")


def test_parity() -> None:
    run_ranks(parity, 2)
