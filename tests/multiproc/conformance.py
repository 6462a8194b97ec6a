"""What every strategy must do: programs that run on each of its ranks, and give what they saw.

A check is called as `check(rt, setup, folder)`: `setup(model, optimizer, **options)` is `rt.setup` with the strategy
under test. All checks of a strategy run one after the other in the same ranks; each is compared with what one process
(strategy `single`) gives on the same global batches.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.runtime import Runtime
from dist_toolkit.strategies import Strategy
from dist_toolkit.strategies.request import BatchWeight
from tests.multiproc.training import digest

Setup = Callable[..., dtk.Engine]
Check = Callable[[Runtime, Setup, Path], Any]

ADAM = partial(
    torch.optim.AdamW, lr=0.01, weight_decay=0.1, eps=1e-4
)  # eps: Adam blows rounding up where gradients are 0
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Block(nn.Module):
    """A residual block: the unit that is sharded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Words(nn.Module):
    """A small language model whose embedding is its output layer too; a bias of one element; a buffer."""

    def __init__(self, words: int = 11, width: int = 8, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.out = nn.Linear(width, words, bias=False)
        self.shift = nn.Linear(width, 1)
        self.register_buffer("scale", torch.tensor([2.0]))
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.out(x) * (self.scale + self.shift(x))


def tokens_and_targets(samples: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of 6 words, and next words with padding (-100) of another length in each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 11, (samples, 7), generator=generator)
    targets = tokens[:, 1:].clone()
    for row in range(samples):
        targets[row, 1 + row * 5 % 6 :] = -100
    return tokens[:, :-1], targets


def token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over real tokens."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def count_tokens(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """What `token_loss` is a mean over."""
    return (batch[1] != -100).sum()


def share(rt: Runtime, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """This rank's contiguous part of each, on its device."""
    ranks, rank = rt.world.world_size, rt.world.rank
    return [t[len(t) * rank // ranks : len(t) * (rank + 1) // ranks].to(rt.device) for t in tensors]


def weights_of(engine: dtk.Engine) -> dict[str, list[float]]:
    """All weights, whole."""
    return {name: tensor.flatten().tolist() for name, tensor in engine.named_weights()}


def gradients_of(engine: dtk.Engine) -> dict[str, list[float]]:
    """All gradients, whole."""
    return {name: tensor.flatten().tolist() for name, tensor in engine.named_gradients()}


# --- the checks -----------------------------------------------------------------------------------------------------


def parity(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Four steps of AdamW on whole sequences: losses' means and weights."""
    engine = setup(Words, ADAM)
    losses = []
    for step in range(4):
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        loss = token_loss(engine(mine), target)
        engine.backward(loss)
        assert engine.step()
        losses.append(rt.group.all_reduce(loss.detach().clone()).item() / rt.world.world_size)
    names = {name for name, _ in engine.named_weights()}
    assert not any(part in name for name in names for part in ("module.", "_orig_mod", "_fsdp", "_checkpoint"))
    return {"losses": losses, "weights": weights_of(engine)}


def momentum(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Three steps of SGD with momentum."""
    engine = setup(partial(Words, tied=False), SGD)
    for step in range(3):
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        engine.backward(token_loss(engine(mine), target))
        engine.step()
    return weights_of(engine)


def accumulation(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Windows of uneven micro-batches, by samples and by tokens, the last window partial: gradients and weights."""
    engine = setup(Words, ADAM)
    alone = rt.world.world_size == 1
    tokens, targets = tokens_and_targets(10)
    mine = tuple(share(rt, tokens, tokens.roll(-1, 1)))
    for piece, target in engine.accumulate(mine, 1 if alone else 3):  # 5 samples a rank: 1, 2, 2
        engine.backward(token_loss(engine(piece), target))
    found = [gradients_of(engine)]
    engine.step()
    mine = tuple(share(rt, tokens, targets))
    for piece, target in engine.accumulate(mine, 1 if alone else 3, weigh=count_tokens):
        engine.backward(token_loss(engine(piece), target))
    found.append(gradients_of(engine))
    engine.step()
    window = [tuple(share(rt, *tokens_and_targets(4, seed=9))), tuple(share(rt, *tokens_and_targets(2, seed=8)))]
    if alone:
        window = [tuple(torch.cat(parts) for parts in zip(*window, strict=True))]
    for piece, target in engine.accumulate(window, weigh=count_tokens):
        engine.backward(token_loss(engine(piece), target))
    found.append(gradients_of(engine))
    engine.step()
    for piece, target in engine.accumulate([(piece, piece.roll(-1, 1)) for piece, _ in window]):  # by samples
        engine.backward(token_loss(engine(piece), target))
    found.append(gradients_of(engine))
    engine.step()
    return {"gradients": found, "weights": weights_of(engine)}


def uneven_batch(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """The last batch of an epoch: 3 samples, then 1, over all ranks; a rank without one has a copy of weight 0."""
    engine = setup(Words, ADAM)
    weight: BatchWeight = engine._batch_weight
    found = []
    for size in (3, 1):
        tokens, _ = tokens_and_targets(size, seed=size)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        weight.handed_out(0, len(mine) * rt.world.world_size / size)
        if not len(mine):
            mine, target = tokens.to(rt.device), tokens.to(rt.device)
        engine.backward(token_loss(engine(mine), target))
        found.append(gradients_of(engine))
        engine.step()
    weight.ended(0)
    return {"gradients": found, "weights": weights_of(engine)}


def clipping(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Norms before clipping, and weights after, with a bound that bites and one that does not."""
    engine = setup(Words, SGD)
    norms = []
    for step, bound in enumerate((0.05, 1e6, 0.3)):
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        engine.backward(token_loss(engine(mine), target))
        norm = engine.clip_grad_norm(bound)
        assert type(norm) is torch.Tensor
        assert norm.ndim == 0
        norms.append(norm.item())
        norms.append(engine.clip_grad_norm(1e6).item())  # a second look sees the clipped gradients
        engine.step()
    return {"norms": norms, "weights": weights_of(engine)}


def no_gradients(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """What is asked of gradients before the first backward of a step finds none, and does no harm."""
    engine = setup(Words, SGD)
    found: list[float] = []
    for step in range(2):
        found += [engine.clip_grad_norm(1.0).item(), len([*engine.named_gradients()])]
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        engine.backward(token_loss(engine(mine), target))
        engine.step()
    return {"found": found, "weights": weights_of(engine)}


def frozen_parameters(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """A block and the embedding do not train; what is left does."""

    def make() -> nn.Module:
        model = Words(tied=False)
        model.embed.requires_grad_(False)
        model.blocks[0].requires_grad_(False)
        return model

    engine = setup(make, ADAM)
    before = weights_of(engine)
    for step in range(2):
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        engine.backward(token_loss(engine(mine), target))
        engine.step()
    after = weights_of(engine)
    still = sorted(name for name in before if before[name] == after[name])
    words = []
    for module, trained in ((engine.module.embed, True), (engine.module.blocks[1], False)):
        module.requires_grad_(trained)
        try:
            engine.step()
        except ConfigError as error:
            words.append(str(error))
        module.requires_grad_(not trained)
    return {"still": still, "weights": after, "words": words}


def dropout(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """What dropout does to the same input on each rank."""
    engine = setup(lambda: nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 64)), SGD)
    output = engine(torch.ones(1, 4, device=rt.device))
    engine.backward(output.sum())
    engine.step()
    return output.flatten().tolist()


class Rows(nn.Module):
    """The gradient of each row of the table is `factors` of that row: an overflow can be put into one row alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.line = nn.Embedding(4, 4), nn.Linear(4, 4)

    def forward(self, factors: torch.Tensor) -> torch.Tensor:
        return (self.table.weight * factors[:, None]).sum() + self.line(torch.ones(1, 4, device=factors.device)).sum()


def skipped_step(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """fp16: an overflow on the last rank, in the row of the table that the first rank may hold; then a good step."""
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    try:
        engine = setup(Rows, SGD, scheduler=schedule, precision="fp16", ema=dtk.EMA(0.5))
    except ConfigError as error:
        return {"refused": str(error)}
    seen = []
    for overflow in (False, True, False):
        before = weights_of(engine)
        factors = torch.ones(4, device=rt.device)
        if overflow and rt.world.rank == rt.world.world_size - 1:
            factors[0] = math.inf
        engine.backward(engine(factors) / 16)  # else the first scale, 65536, overflows by itself
        norm = engine.clip_grad_norm(100.0).item()
        updated = engine.step()
        rate = engine.optimizer.param_groups[0]["lr"]
        scale = engine.extra_parts()["scaler"].state_dict()["scale"]
        seen.append([updated, math.isfinite(norm), rate, scale, weights_of(engine) != before])
    return {"seen": seen, "weights": weights_of(engine)}


def dropped_step(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """fp16: a batch whose gradients are clipped, looked at and thrown away; the norms of it and of those around it."""
    engine = setup(Words, SGD, precision="fp16")
    norms = []
    for step in range(3):
        mine, target = share(rt, *tokens_and_targets(8, seed=step))
        for piece, wanted in engine.accumulate((mine, target), 1, weigh=count_tokens):
            engine.backward(token_loss(engine(piece), wanted) / 64)
        norms.append(engine.clip_grad_norm(1e6).item())
        if step == 1:
            assert list(engine.named_gradients())
            engine.zero_grad()
        else:
            engine.step()
    return norms


def schedule(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """A learning-rate schedule of two phases: the rate before each step."""

    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, total_iters=2)
        cool = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [2])

    engine = setup(Words, SGD, scheduler=make)
    rates = []
    for step in range(5):
        rates.append(engine.optimizer.param_groups[0]["lr"])
        mine, target = share(rt, *tokens_and_targets(8, seed=step))
        for piece, wanted in engine.accumulate((mine, target), 1, weigh=count_tokens):
            engine.backward(token_loss(engine(piece), wanted))
        engine.step()
    return {"rates": rates, "weights": weights_of(engine)}


def averages(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Averaged weights after three steps, and the trained ones after the averages were in their place."""
    engine = setup(Words, ADAM, ema=dtk.EMA(0.6))
    for step in range(3):
        tokens, _ = tokens_and_targets(8, seed=step)
        mine, target = share(rt, tokens, tokens.roll(-1, 1))
        engine.backward(token_loss(engine(mine), target))
        engine.step()
    trained = weights_of(engine)
    tokens = tokens_and_targets(2)[0].to(rt.device)
    with engine.averaged(), engine.evaluating():
        averaged = weights_of(engine)
        output = engine(tokens).flatten().tolist()
    assert weights_of(engine) == trained
    return {"averaged": averaged, "output": output, "trained": trained}


def gan(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Two engines: each learns from the other's output, and neither gets the other's gradients."""
    generator = setup(lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)), ADAM)
    critic = setup(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)), ADAM)
    source = torch.Generator().manual_seed(3)
    for _ in range(3):
        noise, real = share(rt, torch.randn(8, 3, generator=source), torch.randn(8, 5, generator=source))
        with generator.frozen():
            fake = generator(noise)
        critic.backward(critic(fake.detach()).mean() - critic(real).mean() + critic(real).square().mean())
        critic.step()
        with critic.frozen():
            loss = -critic(generator(noise)).mean()
            generator.backward(loss)
        generator.step()
        assert all(parameter.grad is None for parameter in critic.module.parameters())
    return {"generator": weights_of(generator), "critic": weights_of(critic)}


def evaluation(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """A mean over 5 samples in batches of 2 and 1 (ranks have different numbers of them), then over 1 sample."""
    engine = setup(Words, ADAM)
    engine.train(True)
    means = []
    for length in (5, 1):
        tokens, _ = tokens_and_targets(length)
        loader = rt.loader(TensorDataset(tokens), global_batch_size=2, train=False)
        mean = rt.mean()
        with engine.evaluating():
            for (batch,) in loader:
                assert not engine.module.training
                mean.update(engine(batch).mean((1, 2)))
            means.append(mean.compute())  # a collective, while a rank may have no batch left
    assert engine.module.training
    other = setup(Words, ADAM)
    for length in (5, 1):
        tokens, _ = tokens_and_targets(length)
        mean = rt.mean()
        with engine.evaluating(), other.evaluating():
            for (batch,) in rt.loader(TensorDataset(tokens), global_batch_size=2, train=False):
                mean.update((engine(batch) - 2 * other(batch)).mean((1, 2)))
        means.append(mean.compute())
    return means


def resume(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Two steps, a save, two more, a way back, and the same two again: the state is the same to the last bit."""
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    engine = setup(Words, ADAM, scheduler=schedule, ema=dtk.EMA(0.9))
    ckpt = rt.checkpointer(folder / "resume", engine=engine)

    def steps(first: int, last: int) -> None:
        for step in range(first, last):
            tokens, _ = tokens_and_targets(8, seed=step)
            mine, target = share(rt, tokens, tokens.roll(-1, 1))
            engine.backward(token_loss(engine(mine), target))
            engine.step()

    def state() -> list[str]:
        with engine.averaged():
            averaged = digest(dict(engine.named_weights()))
        local = {key: value for key, value in engine.state_dict().items() if isinstance(value, torch.Tensor)}
        shards = {key: value.to_local() if hasattr(value, "to_local") else value for key, value in local.items()}
        rate = json.dumps(engine.scheduler.state_dict(), default=str)
        return [digest(dict(engine.named_weights())), averaged, digest(shards), rate, *sorted(local)]

    steps(0, 2)
    ckpt.save(2)
    saved = state()
    steps(2, 4)
    after = state()
    assert after != saved
    assert ckpt.restore() == 2
    assert state() == saved
    steps(2, 4)
    assert state() == after
    assert {"model.embed.weight", "optim.embed.weight.exp_avg", "optim.embed.weight.step"} <= set(after)
    return {"weights": weights_of(engine), "keys": sorted(set(after[4:]))}


def unused(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """A layer that the loss does not depend on: what is said of it at the first step."""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("dist_toolkit")
    log.addHandler(handler)
    try:
        engine = setup(Idle, SGD)
        engine.backward(engine(torch.ones(2, 4, device=rt.device)).sum())
        engine.step()
    except ConfigError as error:
        said.append(str(error))
    finally:
        log.removeHandler(handler)
    return " ".join(said) if rt.world.is_main else None


class Witness(nn.Module):
    """Notes the types that a layer computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.out = nn.Linear(8, 8), nn.Linear(8, 1)
        self.seen: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.line(x)
        self.seen.append(str(hidden.dtype))
        return self.out(hidden)


def bf16(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Computed in bf16, kept in fp32; learns."""
    engine = setup(Witness, partial(torch.optim.AdamW, lr=0.05), precision="bf16")
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    y = x.sum(1, keepdim=True)
    mine, target = share(rt, x, y)
    losses = []
    for _ in range(20):
        output = engine(mine)
        assert output.dtype == torch.float32
        loss = F.mse_loss(output, target)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    types = {str(tensor.dtype) for _, tensor in engine.named_weights()}
    moments = {str(t.dtype) for key, t in engine.state_dict().items() if key.endswith("exp_avg")}
    return {
        "seen": sorted(set(engine.module.seen)),
        "weights": sorted(types | moments),
        "ratio": losses[-1] / losses[0],
    }


def memory(rt: Runtime, setup: Setup, folder: Path) -> Any:
    """Live tensor memory that an engine of 1.05 million weights brought, between backward and step of AdamW."""
    before = live_bytes()
    engine = setup(lambda: nn.Sequential(*[nn.Linear(256, 256) for _ in range(16)]), ADAM)
    for _ in range(2):
        engine.backward(engine(torch.ones(2, 256, device=rt.device)).square().mean())
        engine.step()
    engine.backward(engine(torch.ones(2, 256, device=rt.device)).square().mean())
    total = live_bytes() - before
    engine.step()
    return total / (4 * sum(t.numel() for _, t in engine.named_weights()))


def live_bytes() -> int:
    """Bytes of the distinct storages of all tensors alive in this process."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        try:
            if isinstance(thing, torch.Tensor):
                for tensor in (getattr(thing, "_local_tensor", thing), getattr(thing, "grad", None)):
                    if tensor is not None and type(tensor) in (torch.Tensor, nn.Parameter):
                        storage = tensor.untyped_storage()
                        storages[storage.data_ptr()] = storage.nbytes()
        except (ReferenceError, RuntimeError, AttributeError):
            continue
    return sum(storages.values())


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        memory, parity, momentum, accumulation, uneven_batch, clipping, no_gradients, frozen_parameters, dropout,
        skipped_step, dropped_step, schedule, averages, gan, evaluation, resume, bf16, unused,
    )
}  # fmt: skip


def train_two(strategies: Sequence[Strategy], folder: str) -> Any:
    """A GAN whose engines have a strategy each."""
    with dtk.init(seed=7) as rt:
        given = iter(strategies)
        return gan(rt, lambda *args, **options: rt.setup(*args, strategy=next(given), **options), Path(folder))


@dataclass(frozen=True)
class Case:
    """A strategy under test, and the number of its ranks."""

    strategy: Strategy
    ranks: int
    env: dict[str, str] = field(default_factory=dict)


def run_checks(strategy: Strategy, folder: str) -> dict[str, Any]:
    """On one rank: what each check saw, or the traceback of what went wrong in it."""
    found: dict[str, Any] = {}
    with dtk.init(seed=7) as rt:
        setup = partial(rt.setup, strategy=strategy)
        for name, check in CHECKS.items():
            rt._engines = 0  # each check starts from the same weights
            torch.manual_seed(100 + rt.world.rank)
            try:
                found[name] = {"saw": check(rt, setup, Path(folder))}
            except Exception:
                found[name] = {"error": traceback.format_exc()}
                rt.print(f"{name} on rank {rt.world.rank}: {found[name]['error']}")
                raise
    return found
