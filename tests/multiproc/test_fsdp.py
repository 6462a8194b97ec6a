"""The FSDP strategy on real ranks: what it trains equals what one process trains, and no rank holds the whole."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

import dist_toolkit as dtk
from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError, PeerError
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
        if not torch.compiler.is_compiling():
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


class Ranks:
    """One start of the ranks, for many checks: makes pairs of an engine and the same model for one process."""

    def __init__(self, rt: Any) -> None:
        self.rt, self.world, self.made = rt, rt.world, 0

    def pair(self, factory: Any = Net, optimizer: str = "sgd", **how: Any) -> tuple[Any, nn.Module]:
        how = {"strategy": dtk.FSDP(), **how}
        engine = self.rt.setup(factory, OPTIMIZERS[optimizer], **how)
        with seeding.common_stream(torch.device("cpu"), seeding.derive(0, "model", self.made)):
            model = factory()
        self.made += 1
        return engine, model

    def batch(self, samples: int = 8, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        """Global batch (samples, 5) of tokens, and this rank's rows of it."""
        whole = torch.randint(0, 11, (samples, 5), generator=torch.Generator().manual_seed(seed))
        return whole, whole.chunk(self.world.world_size)[self.world.rank]


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten())


def weights(engine: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.named_weights()}


def assert_close(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            mine[name], tensor.detach(), rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "adamw_fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
}


def parity(
    ranks: Ranks, strategy: dtk.FSDP, optimizer: str = "sgd", clip: float | None = None, tolerance: float = 1e-6
) -> Any:
    """Three steps equal those of one process; the weights at the start do to the last bit, and buffers too."""
    engine, model = ranks.pair(strategy=strategy, optimizer=optimizer)
    assert_close(weights(engine), dict(model.named_parameters()), 0.0)
    buffers = dict(model.named_buffers())
    for name, tensor in engine.module.named_buffers():
        assert torch.equal(tensor, buffers[name]), name
    theirs = OPTIMIZERS[optimizer](p for p in model.parameters() if p.requires_grad)
    for step in range(3):
        whole, mine = ranks.batch(seed=step)
        engine.backward(loss_of(engine, mine))
        loss_of(model, whole).backward()
        if clip is not None:
            norm = engine.clip_grad_norm(clip)
            expected = nn.utils.clip_grad_norm_(model.parameters(), clip)
            torch.testing.assert_close(norm, expected, rtol=1e-6, atol=1e-6)
            assert type(norm) is torch.Tensor
            assert len({float(n) for n in ranks.rt.gather(norm.reshape(1))}) == 1
        assert engine.step()
        theirs.step()
        theirs.zero_grad()
    assert_close(weights(engine), dict(model.named_parameters()), tolerance)
    assert engine.module.head.weight is engine.module.embed.weight
    return engine


ADAM = 2e-5  # where a gradient is near zero, AdamW's update turns a last bit into many


def accumulation(ranks: Ranks, strategy: dtk.FSDP) -> None:
    """Uneven micro-batches weighted by tokens give the gradient of the whole; reduced once a step."""
    engine, model = ranks.pair(strategy=strategy)
    whole, mine = ranks.batch(10)
    draws = torch.Generator().manual_seed(9)
    targets = torch.randint(0, 11, whole.shape, generator=draws)
    targets[torch.rand(whole.shape, generator=draws) < 0.4] = -100
    own = targets.chunk(ranks.world.world_size)[ranks.world.rank]
    with CommDebugMode() as counted:
        for x, y in engine.accumulate((mine, own), 3, weigh=lambda piece: (piece[1] >= 0).sum()):
            engine.backward(F.cross_entropy(engine(x).flatten(0, 1), y.flatten()))
    F.cross_entropy(model(whole).flatten(0, 1), targets.flatten()).backward()
    units = 3  # two blocks and the rest
    reductions = counted.get_comm_counts()[torch.ops.c10d._reduce_scatter_base_]
    assert reductions == (units if strategy.reduce_once else 3 * units)
    gradients = {name: tensor.clone() for name, tensor in engine.named_gradients()}
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for x, y in engine.accumulate((mine, own), 2):
        engine.backward(F.cross_entropy(engine(x).flatten(0, 1), y.flatten()))
        break  # a loop that is left early leaves nothing behind
    engine.zero_grad()
    model.zero_grad()
    engine.backward(loss_of(engine, mine))
    loss_of(model, whole).backward()
    gradients = {name: tensor.clone() for name, tensor in engine.named_gradients()}
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert engine.step()


class Branches(nn.Module):
    """Rank `rank` uses one of two layers of one shape."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.rank = rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[self.rank](x)


def unused(ranks: Ranks) -> None:
    """Ranks that use different parameters: torch adds up gradients of one with those of another, which is refused."""
    factory = partial(Branches, ranks.world.rank)
    engine, _ = ranks.pair(factory)
    engine.backward(engine(torch.ones(2, 3)).mean())
    with pytest.raises(ConfigError, match=r"layers.0.bias, layers.0.weight, layers.1.bias, layers.1.weight; use"):
        engine.step()
    engine, _ = ranks.pair(factory, strategy=dtk.FSDP(find_unused_parameters=True))
    for _ in range(2):
        engine.backward(engine(torch.ones(2, 3)).mean())
        for name, gradient in engine.named_gradients():
            torch.testing.assert_close(gradient, torch.full_like(gradient, 1 / 6), msg=name)
        assert engine.step()


def averages(ranks: Ranks) -> None:
    engine, model = ranks.pair(ema=dtk.EMA(decay=0.5))
    expected = {name: tensor.clone() for name, tensor in weights(engine).items()}
    _, mine = ranks.batch()
    for _ in range(3):
        engine.backward(loss_of(engine, mine))
        engine.step()
        for name, tensor in weights(engine).items():
            expected[name].lerp_(tensor, 0.5)
    trained = weights(engine)
    with engine.evaluating():
        before = engine(mine)  # the outermost weights stay gathered after this: they must not be used below
        with engine.averaged():
            inside = engine(mine)
            assert_close(weights(engine), expected)
            engine(mine)
        after = engine(mine)
    assert torch.equal(before, after)
    assert not torch.allclose(before, inside)
    model.load_state_dict(expected, strict=False)
    torch.testing.assert_close(inside, model(mine).detach())
    assert_close(weights(engine), trained, 0.0)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.last = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(x))


def adversaries(ranks: Ranks) -> None:
    """Two engines: the generator's loss leaves no gradient in the critic, and each learns as in one process."""
    maker, maker_ref = ranks.pair(lambda: nn.Linear(3, 4))
    critic, critic_ref = ranks.pair(Critic)
    maker_opt, critic_opt = OPTIMIZERS["sgd"](maker_ref.parameters()), OPTIMIZERS["sgd"](critic_ref.parameters())
    for step in range(2):
        draws = torch.Generator().manual_seed(step)
        noise, real = torch.randn(6, 3, generator=draws), torch.randn(6, 4, generator=draws)
        z, x = (tensor.chunk(ranks.world.world_size)[ranks.world.rank] for tensor in (noise, real))
        critic.backward(critic(maker(z).detach()).mean() - critic(x).mean())
        (critic_ref(maker_ref(noise).detach()).mean() - critic_ref(real).mean()).backward()
        kept = {name: tensor.clone() for name, tensor in critic.named_gradients()}
        with torch.no_grad():
            critic(x)  # which leaves the outermost weights gathered
        with critic.frozen():
            maker.backward(-critic(maker(z)).mean())
        assert_close({name: tensor.clone() for name, tensor in critic.named_gradients()}, kept, 0.0)
        critic_grads = [p.grad.clone() for p in critic_ref.parameters()]
        (-critic_ref(maker_ref(noise)).mean()).backward()
        for parameter, gradient in zip(critic_ref.parameters(), critic_grads, strict=True):
            parameter.grad = gradient
        for engine, optimizer in ((maker, maker_opt), (critic, critic_opt)):
            assert engine.step()
            optimizer.step()
            optimizer.zero_grad()
    assert_close(weights(maker), dict(maker_ref.named_parameters()))
    assert_close(weights(critic), dict(critic_ref.named_parameters()))


COMPILED: list[str] = []


@torch._dynamo.register_backend(name="counting")
def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
    COMPILED.append(graph.code)
    return graph.forward


def half_precision(ranks: Ranks) -> None:
    """Weights are gathered in 16 bits, kept in 32; an overflow on one rank skips the step on all."""
    _, mine = ranks.batch()
    engine, _ = ranks.pair(precision="bf16")
    output = engine(mine)
    assert output.dtype == torch.float32
    assert set(engine.module.blocks[0].seen) == {torch.bfloat16}
    engine.backward(F.cross_entropy(output.flatten(0, 1), mine.roll(1, 1).flatten()))
    assert {p.grad.dtype for p in engine.module.parameters() if p.grad is not None} == {torch.float32}
    assert engine.step()
    assert {tensor.dtype for tensor in weights(engine).values()} == {torch.float32}

    for precision in ("bf16", "fp16"):
        layers = lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))  # noqa: E731
        engine, _ = ranks.pair(layers, precision=precision, strategy=dtk.FSDP(wrap=8))
        engine.backward(engine(torch.rand(8, 5)).mean())
        assert engine.step()
        assert engine.module[1].running_mean.dtype == torch.float32

    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    engine, model = ranks.pair(precision="fp16", scheduler=scheduler)
    before, scale = weights(engine), engine._scaler.value
    engine.backward(loss_of(engine, mine))
    for parameter in engine.module.parameters():
        if ranks.world.rank == 1 and parameter.grad is not None and parameter.shape == (12, 6):
            parameter.grad.to_local()[0, 0] = torch.inf  # only this rank's part holds it
    assert not engine.step()
    assert_close(weights(engine), before, 0.0)
    assert (engine._scaler.value, engine.scheduler.last_epoch) == (scale / 2, 0)
    engine.backward(loss_of(engine, mine))
    norm = engine.clip_grad_norm(1e9)
    loss_of(model, ranks.batch()[0]).backward()
    expected = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(norm, expected, rtol=1e-2, atol=1e-3)
    assert engine.step()
    assert engine.scheduler.last_epoch == 1


def uneven_evaluation(ranks: Ranks) -> None:
    """Ranks that call the engine 3 and 1 and 0 times in evaluation: outputs are right, and nobody waits for ever."""
    engine, model = ranks.pair()
    whole, _ = ranks.batch(4)
    rank = ranks.world.rank
    for calls in ([3, 1], [0, 2], [1, 0], [0, 0], [2, 2]):
        with engine.evaluating():
            outputs = [engine(tokens=whole[i : i + 2]) for i in range(calls[rank])]
        for i, output in enumerate(outputs):
            torch.testing.assert_close(output, model(whole[i : i + 2]).detach())
    other, other_model = ranks.pair()
    mean = ranks.rt.mean()
    with engine.evaluating(), other.evaluating():
        for tokens in whole[: 1 + 2 * rank].split(1):  # one batch, and three
            mean.update(engine(tokens).sum((1, 2)))
            mean.update(other(tokens).sum((1, 2)))
        first = mean.compute()  # a collective before the end of the block
        again = [engine(tokens) for tokens in whole[: 1 - rank].split(1) if len(tokens)]
        assert len(ranks.rt.gather(torch.ones(len(again)))) == 1
    values = torch.cat([model(whole).sum((1, 2)), other_model(whole).sum((1, 2))])
    both = values[[0, 4, 0, 4, 1, 5, 2, 6]]
    assert first == pytest.approx(both.mean().item(), rel=1e-5)
    with pytest.raises(KeyError, match="a mistake of the script"):
        fail_in_evaluation(engine, whole)
    engine.backward(loss_of(engine, whole))  # and training goes on
    assert engine.step()


def fail_in_evaluation(engine: Any, tokens: torch.Tensor) -> None:
    with engine.evaluating():
        engine(tokens)
        raise KeyError("a mistake of the script's, on every rank")


def held_bytes() -> int:
    """Bytes of the tensors made since `gc.freeze()` that are alive, by their storages."""
    gc.collect()
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):
            storage = (thing.to_local() if isinstance(thing, DTensor) else thing).untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def memory(ranks: Ranks) -> None:
    """A rank holds its part of weights, gradients and moments."""
    gc.freeze()
    engine = ranks.rt.setup(lambda: Net(32, 4), OPTIMIZERS["adamw"], strategy=dtk.FSDP(reshard_after_forward=True))
    ranks.made += 1
    whole = sum(4 * p.numel() for p in engine.module.parameters())
    frozen = sum(4 * p.numel() for p in engine.module.parameters() if not p.requires_grad)
    assert held_bytes() < 1.1 * whole / 2
    _, mine = ranks.batch()
    for _ in range(2):
        engine.backward(loss_of(engine, mine))
        engine.step()
    engine.backward(loss_of(engine, mine))
    state = whole + 3 * (whole - frozen)
    assert 0.9 * state / 2 < held_bytes() < 1.1 * state / 2
    gc.unfreeze()


def refusals(ranks: Ranks) -> None:
    def refused(words: str, model: Any = Net, optimizer: Any = OPTIMIZERS["sgd"], **options: Any) -> None:
        with pytest.raises(ConfigError, match=words):
            ranks.rt.setup(model, optimizer, strategy=dtk.FSDP(**options))
        ranks.made += 1

    given = Net()
    refused("pass a factory", given, torch.optim.SGD(given.parameters(), lr=0.1))
    refused("without a dimension: temperature", Scalar)
    refused("inner.bias is torch.float32, outer.bias is torch.bfloat16", lambda: mixed(Block(4)))
    refused("finds none in Linear", lambda: nn.Linear(3, 3), activation_checkpointing=True)
    refused("names Blok, which is not in the model; it has .*Block", wrap=("Blok",))
    refused("ModuleList, which is never called", wrap=(nn.ModuleList,))
    refused("no value: Net.gain, Net.scale, Net.shift", init="meta")
    refused("needs a factory", Net(), init="meta")
    refused("needs a GPU", cpu_offload=True)
    refused(r"replicas=3\) does not divide the 2 ranks", replicas=3)
    refused("Adafactor cannot be used with fsdp", optimizer=torch.optim.Adafactor)
    refused("LBFGS", optimizer=torch.optim.LBFGS)
    refused("fsdp cannot split the sparse gradients of Embedding", lambda: nn.Embedding(3, 2, sparse=True))
    rank = ranks.world.rank
    for init in ("rank0", "full"):
        refused(
            r"the model .* weight is \[3, 2\] float32 on rank 0 and \[4, 2\] float32 on rank 1",
            lambda: nn.Linear(2, 3 + rank),
            init=init,
        )
    refused("nothing to train", lambda: nn.Linear(2, 3).requires_grad_(rank == 0))
    with pytest.raises(PeerError if rank else FileNotFoundError, match="no such file"):
        ranks.rt.setup(FailsOnRank0, OPTIMIZERS["sgd"], strategy=dtk.FSDP())
    ranks.made += 1


class Scalar(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.temperature = nn.Parameter(torch.tensor(1.0))


class FailsOnRank0(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        if self.weight.device.type == "cpu":
            raise FileNotFoundError("no such file")


def mixed(block: Block) -> Block:
    block.outer.bfloat16()
    return block


def starts(ranks: Ranks) -> None:
    """Other ways to the initial weights: a given module, a factory that reads values, and one without weights."""
    given = Net()
    expected = {name: p.detach().clone() for name, p in given.named_parameters()}
    with torch.no_grad():
        for parameter in given.parameters():
            parameter += ranks.world.rank
    engine = ranks.rt.setup(given, OPTIMIZERS["sgd"], strategy=dtk.FSDP())
    ranks.made += 1
    first = ranks.rt.group.broadcast(torch.cat([tensor.flatten() for tensor in expected.values()]))
    assert torch.equal(torch.cat([tensor.flatten() for tensor in weights(engine).values()]), first)
    engine, model = ranks.pair(lambda: Net(blocks=int(torch.linspace(0, 2, 3)[-1].item())))
    assert_close(weights(engine), dict(model.named_parameters()), 0.0)
    engine, _ = ranks.pair(lambda: nn.Sequential(Block(4), nn.BatchNorm1d(4), Block(4)), strategy=dtk.FSDP(init="meta"))
    again, _ = ranks.pair(lambda: nn.Sequential(Block(4), nn.BatchNorm1d(4), Block(4)), strategy=dtk.FSDP(init="meta"))
    mine = weights(engine)
    assert not torch.equal(mine["0.inner.weight"], mine["2.inner.weight"])
    assert not torch.equal(mine["0.inner.weight"], weights(again)["0.inner.weight"])
    assert mine["0.inner.weight"].abs().max() <= 0.5  # torch's own range for 4 inputs
    assert torch.equal(engine.module[1].running_var, torch.ones(4))


def two_ranks() -> None:
    with dtk.init(seed=0) as rt:
        ranks = Ranks(rt)
        parity(ranks, dtk.FSDP(), clip=0.5)
        parity(ranks, dtk.FSDP(init="full"), "adamw", clip=0.5, tolerance=ADAM)
        engine = parity(ranks, dtk.FSDP(wrap=(Block,), activation_checkpointing=True))
        assert len(engine.module.blocks[0].seen) == 6  # three steps, each forward twice
        parity(ranks, dtk.FSDP(wrap=("Block",), compile="counting", activation_checkpointing=True))
        assert COMPILED
        parity(ranks, dtk.FSDP(wrap=50, reshard_after_forward=False), "adamw_fused", tolerance=ADAM)
        accumulation(ranks, dtk.FSDP())
        accumulation(ranks, dtk.FSDP(reduce_once=False))
        unused(ranks)
        averages(ranks)
        adversaries(ranks)
        half_precision(ranks)
        uneven_evaluation(ranks)
        memory(ranks)
        refusals(ranks)
        starts(ranks)


def test_two_ranks() -> None:
    run_ranks(two_ranks, 2)


def saved(ranks: Ranks, root: str, kind: str, until: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restore, train for two steps, save; what was restored and what was saved, whole, as lists."""
    strategy = {"fsdp": dtk.FSDP(), "hybrid": dtk.FSDP(replicas=2)}.get(kind, kind)
    factory, optimizer = (Net, OPTIMIZERS["adamw"])
    engine = ranks.rt.setup(factory, optimizer, strategy=strategy, ema=dtk.EMA(0.9))
    checkpointer = ranks.rt.checkpointer(root, engine=engine, waive=["strategy"])
    checkpointer.restore()
    before = whole_state(engine)
    for step in range(2):
        _, mine = ranks.batch(24, seed=until + step)
        engine.backward(loss_of(engine, mine))
        engine.step()
    checkpointer.save(until)
    return before, whole_state(engine)


def whole_state(engine: Any) -> dict[str, Any]:
    state = {**engine.state_dict(), **engine.extra_parts()["ema"].state_dict()}
    groups = state.pop("optim_groups")
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    whole = {key: t.full_tensor() if isinstance(t, DTensor) else t for key, t in tensors.items()}
    return {**{key: t.tolist() for key, t in whole.items()}, "groups": groups["groups"]}


Saves = list[tuple[dict[str, Any], dict[str, Any]]]


def saves(root: str, kinds: tuple[str, ...], first: int) -> Saves:
    with dtk.init(seed=0) as rt:
        return [saved(Ranks(rt), root, kind, first + 2 * number) for number, kind in enumerate(kinds)]


def four_ranks(root: str) -> Saves:
    with dtk.init(seed=0) as rt:
        ranks = Ranks(rt)
        engine = parity(ranks, dtk.FSDP(replicas=2), clip=0.5)
        assert engine.module.head.bias.to_local().shape == (6,) if rt.world.rank % 2 == 0 else (5,)
        parity(ranks, dtk.FSDP(reshard_after_forward=2), clip=0.5)
        return [saved(ranks, root, "hybrid", 2)]


def test_four_ranks_then_other_numbers_and_strategies(tmp_path: Path) -> None:
    """A hybrid run goes on as FSDP on 1 and 2 ranks, as ddp, and as FSDP: state passes from each to the next."""
    root = str(tmp_path)
    runs = [
        run_ranks(four_ranks, 4, root),
        run_ranks(saves, 1, root, ("fsdp",), 4),
        run_ranks(saves, 2, root, ("fsdp", "ddp", "fsdp"), 6),
    ]
    previous = None
    for everyone in runs:
        for rank in everyone[1:]:
            assert rank == everyone[0]
        for restored, trained in everyone[0]:
            assert trained["model.head.bias"] != restored["model.head.bias"]
            assert previous in (None, restored)
            previous = trained
