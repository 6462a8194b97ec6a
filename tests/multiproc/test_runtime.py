"""Statements 7, 11, 13 and 34, gradients, strategies, and the group, on real ranks."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset, random_split

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError, MismatchedCallError, PeerError
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.hygiene import Snapshot, leaks
from tests.multiproc.training import Noisy, digest, net

pytestmark = pytest.mark.multiproc


# --- data -----------------------------------------------------------------------------------------------------------


def evaluate(length: int, batch: int, workers: int) -> tuple[list[int], float, int]:
    with dtk.init(seed=1) as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        loader = rt.loader(Noisy(length), global_batch_size=batch, train=False, num_workers=workers, sample_rng=True)
        seen, accuracy, batches = [], rt.mean(), 0
        with engine.evaluating():
            for ids, x, y in loader:
                seen.append(ids)
                accuracy.update(engine(x).argmax(1) == y)
                batches += 1
        mine = torch.cat(seen) if seen else torch.empty(0, dtype=torch.int64)
        assert batches == len(loader)
        return sorted(rt.gather(mine).tolist()), accuracy.compute(), batches


@pytest.mark.parametrize(("length", "batch"), [(23, 4), (2, 4), (3, 8), (7, 100), (24, 6)])
def test_evaluation_sees_each_sample_once(length: int, batch: int) -> None:
    """N not divisible by W*B, N < W, N < B: the metric is the one-process value, to the last bit."""
    expected = run_ranks(evaluate, 1, length, batch, 0)[0]
    assert expected[0] == list(range(length))
    for seen, accuracy, _ in run_ranks(evaluate, 3, length, batch, 0):
        assert (seen, accuracy) == expected[:2]


def test_evaluation_with_workers_and_an_empty_share() -> None:
    results = run_ranks(evaluate, 3, 2, 4, 1)
    assert [seen for seen, _, _ in results] == [[0, 1]] * 3
    assert [batches for _, _, batches in results] == [1, 1, 0]


def epochs(workers: int, persistent: bool) -> list[list[int]]:
    with dtk.init(seed=1) as rt:
        options = {"num_workers": workers, "persistent_workers": persistent} if workers else {}
        loader = rt.loader(Noisy(12), global_batch_size=4, **options)
        return [torch.cat([ids for ids, _, _ in loader]).tolist() for _ in range(3)]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_epochs_have_different_orders_with_no_set_epoch(workers: int, persistent: bool) -> None:
    found = run_ranks(epochs, 2, workers, persistent)
    assert found == run_ranks(epochs, 2, 0, False)
    union = [sorted(a + b) for a, b in zip(*found, strict=True)]
    assert union == [list(range(12))] * 3
    assert found[0][0] != found[0][1] != found[0][2]


def adopted(kind: str) -> list[list[int]]:
    dataset = TensorDataset(torch.arange(20))
    with dtk.init(seed=4) as rt:
        if kind == "distributed":
            sampler = DistributedSampler(dataset, rt.world.world_size, rt.world.rank, seed=9, drop_last=True)
            loader = rt.shard(DataLoader(dataset, batch_size=2, sampler=sampler))
        else:
            loader = rt.shard(DataLoader(dataset, batch_size=4, shuffle=kind == "shuffle"))
        first = [[n for (batch,) in loader for n in batch.tolist()] for _ in range(2)]
        if kind == "sequential":
            return first
        state = loader.state_dict()
        next(iter(loader))
        loader.load_state_dict(state)
        whole = [batch.tolist() for (batch,) in loader]
        loader.load_state_dict({**state, "epoch": state["epoch"], "position": 8})
        rest = [batch.tolist() for (batch,) in loader]
        assert whole[2:] == rest
        return first


def test_adopted_loader_with_a_shuffling_sampler() -> None:
    first, second = run_ranks(adopted, 2, "shuffle")
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [list(range(20))] * 2
    assert first[0] != first[1]


def test_adopted_loader_with_a_sequential_sampler() -> None:
    assert run_ranks(adopted, 2, "sequential")[1] == [[2, 3, 6, 7, 10, 11, 14, 15, 18, 19]] * 2


def test_adopted_distributed_sampler_gets_its_epochs() -> None:
    """The script's own sampler and split, and set_epoch called for it: what DistributedSampler would give by hand."""
    dataset = TensorDataset(torch.arange(20))
    for rank, found in enumerate(run_ranks(adopted, 2, "distributed")):
        sampler = DistributedSampler(dataset, 2, rank, seed=9, drop_last=True)
        expected = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            expected.append(list(sampler))
        assert found == expected


def refused_loaders() -> list[str]:
    words = []
    with dtk.init() as rt:
        data = TensorDataset(torch.arange(10))

        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self) -> Any:
                return iter([])

        attempts = [
            lambda: rt.shard(DataLoader(data, batch_size=None)),
            lambda: rt.shard(DataLoader(data, sampler=DistributedSampler(data, 5, 0))),
            lambda: rt.shard(DataLoader(Stream())),
            lambda: rt.loader(Stream(), global_batch_size=2, shuffle=True),
            lambda: rt.loader(data, global_batch_size=3),
            lambda: rt.loader(data, global_batch_size=0),
            lambda: rt.loader(data, global_batch_size=12),
            lambda: rt.loader({1, 2}, global_batch_size=2),
            lambda: rt.loader(TensorDataset(torch.empty(0)), global_batch_size=2),
        ]
        for attempt in attempts:
            with pytest.raises(ConfigError) as error:
                attempt()
            words.append(str(error.value))
    return words


def test_loaders_that_cannot_be_exact_are_refused_by_name() -> None:
    one, other = run_ranks(refused_loaders, 2)
    assert one != other  # the second names its own rank
    expected = [
        "batch_size=None", "for rank 0 of 5", "pass train=True or train=False", "shuffle in the data set",
        "does not divide over 2 ranks", "not a positive number", "no whole batch", "neither a map-style", "empty",
    ]  # fmt: skip
    for words in (one, other):
        assert all(part in text for part, text in zip(expected, words, strict=True))


def evaluation_loader_in_training(root: str) -> list[str]:
    words = []
    with dtk.init() as rt:
        loader = rt.shard(DataLoader(TensorDataset(torch.arange(8)), batch_size=4))
        ckpt = rt.checkpointer(root)
        for attempt in (lambda: rt.checkpointer(root, loader=loader), lambda: next(ckpt.steps(loader, until=3))):
            with pytest.raises(ConfigError) as error:
                attempt()
            words.append(str(error.value))
        again = rt.shard(DataLoader(TensorDataset(torch.arange(8)), batch_size=4), train=True)
        rt.checkpointer(root, loader=again)
    return words


def test_a_loader_that_keeps_no_position_is_refused_for_training(tmp_path: Path) -> None:
    for words in run_ranks(evaluation_loader_in_training, 2, str(tmp_path)):
        assert all("pass train=True" in text for text in words)


# --- random numbers -------------------------------------------------------------------------------------------------


def streams() -> dict[str, Any]:
    with dtk.init(seed=3) as rt:
        split = random_split(range(100), [80, 20])[1].indices
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        second = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        mask = F.dropout(torch.ones(200), 0.5)
        weights = {k: v for k, v in engine.state_dict().items() if k.startswith("model.")}
        other = {k: v for k, v in second.state_dict().items() if k.startswith("model.")}
        return {"split": split, "mask": mask.tolist(), "weights": digest(weights), "other": digest(other)}


def test_dropout_differs_and_weights_and_splits_match() -> None:
    one, other = run_ranks(streams, 2)
    assert one["mask"] != other["mask"]
    assert one["split"] == other["split"]
    assert one["weights"] == other["weights"]
    assert one["other"] == other["other"] != one["weights"]
    alone = run_ranks(streams, 1)[0]
    assert alone == one, "one process is rank 0 of two"


# --- gradients ------------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).squeeze(1)


def bucket_views() -> bool:
    with dtk.init() as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        engine.backward(engine(torch.ones(4, 6)).sum())
        gradients = [parameter.grad for parameter in engine.module.parameters()]
        return len({gradient.untyped_storage().data_ptr() for gradient in gradients}) < len(gradients)


def test_gradients_are_views_of_the_buckets_that_are_sent() -> None:
    assert run_ranks(bucket_views, 2) == [True, True]
    assert run_ranks(bucket_views, 1) == [False]


def one_step(count: int, clip: float) -> tuple[dict[str, list[float]], float, int]:
    """A step on 12 samples, in `count` micro-batches a rank; the weights after, the norm, the number of all-reduces."""
    reductions = []
    with dtk.init(seed=2) as rt:
        engine = rt.setup(Counted, partial(torch.optim.SGD, lr=0.5))
        if rt.world.launched and engine.strategy == "ddp":
            engine._ddp.register_comm_hook(reductions, _count_hook)
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(12, 4, generator=generator), torch.randn(12, generator=generator)
        share = 12 // rt.world.world_size
        mine = slice(rt.world.rank * share, (rt.world.rank + 1) * share)
        for piece, target in engine.accumulate((x[mine], y[mine]), count):
            engine.backward(F.mse_loss(engine(piece), target))
        norm = engine.clip_grad_norm(clip).item()
        engine.step()
        assert all(parameter.grad is None for parameter in engine.module.parameters())
        weights = {name: p.reshape(-1).tolist() for name, p in engine.module.named_parameters()}
    return weights, norm, len(reductions)


def _count_hook(calls: list[int], bucket: Any) -> Any:
    calls.append(1)
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    return allreduce_hook(dist.group.WORLD, bucket)


# DDP compares the annotations themselves, and in this file they are strings
_count_hook.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("clip", [1e9, 0.1])
def test_one_step_is_that_of_one_process(count: int, clip: float) -> None:
    """Accumulated in uneven micro-batches (6 samples in 4), on two ranks: weights and norm to 1e-6, one reduction."""
    expected, norm, _ = run_ranks(one_step, 1, 1, clip, env={"RANK": "0"})[0]
    for weights, found, reductions in run_ranks(one_step, 2, count, clip):
        assert found == pytest.approx(norm, rel=1e-6)
        assert reductions == 1
        for name in expected:
            assert weights[name] == pytest.approx(expected[name], abs=1e-6)


# --- strategies -----------------------------------------------------------------------------------------------------


def strategy_errors() -> list[str]:
    words = []
    with dtk.init() as rt:
        sgd = partial(torch.optim.SGD, lr=0.1)
        frozen = net().requires_grad_(False)
        attempts = [
            lambda: rt.setup(net, sgd, strategy="dpp"),
            lambda: rt.setup(net, sgd, strategy="single"),
            lambda: rt.setup(frozen, sgd),
            lambda: rt.setup(net(), torch.optim.SGD(net().parameters(), lr=0.1)),
            lambda: rt.setup(lambda: 3, sgd),
            lambda: rt.setup(None, sgd),
            lambda: rt.setup(net, lambda parameters: None),
            lambda: rt.setup(net, "adam"),
            lambda: rt.checkpointer("x", state=[1]),
            lambda: rt.checkpointer("x", state={"mine": 3}),
            lambda: rt.checkpointer("x", state={"rng": nn.Linear(1, 1)}),
            lambda: rt.checkpointer("x", engine=3),
            lambda: rt.checkpointer("x", every=2.5),
            lambda: rt.checkpointer("x", keep_last=0),
            lambda: rt.checkpointer("x", keep_best="max:"),
            lambda: rt.checkpointer("x", waive="rng"),
            lambda: rt.checkpointer("x", waive=["rgn"]),
            lambda: rt.checkpointer("x").save(-1),
            lambda: next(rt.checkpointer("x").steps([], until=3, epochs=1)),
            lambda: next(rt.checkpointer("x").steps([], until=3)),
            lambda: rt.shard([1, 2]),
            lambda: rt.loader([1, 2], global_batch_size="2"),
            lambda: dtk.init(seed=2**64),
            lambda: dtk.init(log_every=0),
            lambda: dtk.init(timeout=0),
            lambda: dtk.init(device="tpu"),
        ]
        for attempt in attempts:
            with pytest.raises(ConfigError) as error:
                attempt()
            words.append(str(error.value))
    return words


def test_what_a_strategy_cannot_do_is_refused_at_setup() -> None:
    expected = [
        "did you mean ddp?", "unrelated models", "nothing to train", "pass a factory", "returned a int",
        "the model is a NoneType", "the optimizer is a NoneType", "the optimizer is a str", "is not a dict",
        "give it both", "reserved", "is not an engine", "every=2.5", "keep_last=0", "max:METRIC", "waive=['rng']",
        "the parts are rng", "step=-1", "pass one of", "gives no batch", "not a list", "global_batch_size='2'",
        "64-bit", "log_every=0", "timeout=0", "known: auto, cpu, cuda",
    ]  # fmt: skip
    for words in run_ranks(strategy_errors, 2):
        assert [(part, text) for part, text in zip(expected, words, strict=True) if part not in text] == []


def chosen_strategy(wanted: Any = None) -> str:
    with dtk.init() as rt:
        return rt.setup(net, partial(torch.optim.SGD, lr=0.1), strategy=wanted).strategy


def test_strategy_comes_from_the_launcher_or_the_script() -> None:
    assert run_ranks(chosen_strategy, 2) == ["ddp", "ddp"]
    assert run_ranks(chosen_strategy, 1) == ["single"]
    assert run_ranks(chosen_strategy, 1, env={"DTK_STRATEGY": "ddp"}) == ["ddp"]
    assert run_ranks(chosen_strategy, 1, dtk.DDP(bucket_cap_mb=1)) == ["ddp"]
    with pytest.raises(RanksFailed, match="the script asks for strategy 'ddp', the launcher for 'single'"):
        run_ranks(chosen_strategy, 1, "ddp", env={"DTK_STRATEGY": "single"})


def chosen_tuning(strategy: Any = None, precision: str | None = None) -> tuple[str, str, int, bool]:
    with dtk.init() as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1), strategy=strategy, precision=precision)
        units = sum(isinstance(module, FSDPModule) for module in engine.module.modules())
        return engine.strategy, engine.precision, units, engine.forward_is_collective


def test_tuning_comes_from_the_launcher_or_the_script() -> None:
    whole = {"DTK_STRATEGY": "fsdp", "DTK_PRECISION": "bf16", "DTK_FSDP_WRAP": "none"}
    assert run_ranks(chosen_tuning, 2, env=whole) == [("fsdp", "bf16", 2, True)] * 2  # the BatchNorm stays in fp32
    parts = {"DTK_STRATEGY": "fsdp", "DTK_FSDP_WRAP": "1"}
    assert run_ranks(chosen_tuning, 1, None, "bf16", env=parts)[0][2] == 4
    zero = {"DTK_STRATEGY": "deepspeed", "DTK_ZERO_STAGE": "3"}
    assert run_ranks(chosen_tuning, 1, env=zero) == [("deepspeed", "fp32", 0, True)]  # at stage 2, False
    with pytest.raises(RanksFailed, match=r"precision 'fp16', the launcher for 'bf16' \(DTK_PRECISION\)"):
        run_ranks(chosen_tuning, 1, "fsdp", "fp16", env=whole)
    with pytest.raises(RanksFailed, match=r"DeepSpeed\(stage=1\), the launcher for 3 \(DTK_ZERO_STAGE\)"):
        run_ranks(chosen_tuning, 1, dtk.DeepSpeed(stage=1), env={"DTK_ZERO_STAGE": "3"})


def test_ddp_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with dtk.init(device="cpu") as rt, pytest.raises(ConfigError, match="dtk launch"):
        rt.setup(net, partial(torch.optim.SGD, lr=0.1), strategy="ddp")


def modes_after_evaluation() -> list[bool]:
    with dtk.init() as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        engine.module[1].eval()  # a frozen normalisation
        with engine.evaluating():
            assert not engine.module[3].training
        return [module.training for module in engine.module.children()]


def test_evaluation_gives_each_layer_its_own_mode_back() -> None:
    assert run_ranks(modes_after_evaluation, 1)[0] == [True, False, True, True, True]


def test_variables_left_over_in_a_shell_are_named() -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR is not: left over in this shell"):
        dtk.init(device="cpu", env={"RANK": "0", "WORLD_SIZE": "1"})


def buffers_in_evaluation() -> tuple[float, float]:
    with dtk.init(seed=1) as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        engine(torch.full((4, 6), float(rt.world.rank))).sum()
        mine = engine.module[1].running_mean.sum().item()
        with engine.evaluating():
            assert not engine.module.training
            shared = engine.module[1].running_mean.sum().item()
        assert engine.module.training
        return mine, shared


def test_all_ranks_evaluate_with_rank_0s_buffers() -> None:
    (mine, shared), (other, also) = run_ranks(buffers_in_evaluation, 2)
    assert mine != other
    assert mine == shared == also


# --- the group ------------------------------------------------------------------------------------------------------


def messages() -> dict[str, Any]:
    with dtk.init() as rt:
        group, rank = rt.group, rt.world.rank
        rows = torch.arange(rank * 3).reshape(rank, 3)
        answer = {
            "gather": group.all_gather_json({"rank": rank, "text": "é" * rank}),
            "broadcast": group.broadcast_json([rank, None, 1.5]),
            "sum": group.all_reduce(torch.tensor([rank + 1.0])).item(),
            "max": group.start_all_reduce(torch.tensor([rank]), "max").wait().item(),
            "rows": [tuple(part.shape) for part in group.all_gather(rows)],
            "first": group.broadcast(torch.tensor([rank])).item(),
        }
        group.barrier()
        group.agree("nothing", None)
        with pytest.raises(PeerError) as error:
            group.agree("reading", "no such file" if rank == rt.world.world_size - 1 else None)
        answer["error"] = str(error.value)
        return answer


def gathers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with dtk.init() as rt:
        main = rt.world.is_main
        found["scalar"] = rt.gather(torch.tensor(float(rt.world.rank))).tolist()
        nothing = rt.gather(torch.empty(0) if main else torch.ones(2, 3, dtype=torch.int64))
        found["nothing"] = [nothing.dtype, nothing.shape]
        for name, tensor in {
            "type": torch.ones(2, dtype=torch.float32 if main else torch.int32),
            "shape": torch.ones(2, 3 if main else 4),
            "dimensions": torch.ones(2) if main else torch.ones(2, 1),
        }.items():
            with pytest.raises(ConfigError, match="may differ in dimension 0 alone") as error:
                rt.gather(tensor)
            found[name] = str(error.value)
        rt.group.barrier()
    return found


def test_tensors_that_do_not_fit_are_refused_on_every_rank() -> None:
    one, other = run_ranks(gathers, 2)
    assert one == other
    assert one["scalar"] == [0.0, 1.0]
    assert one["nothing"] == [torch.int64, torch.Size([2, 3])]
    assert "rank 0: float32 [2], rank 1: int32 [2]" in one["type"]
    assert "rank 0: float32 [2, 3], rank 1: float32 [2, 4]" in one["shape"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_messages_and_collectives(ranks: int) -> None:
    for answer in run_ranks(messages, ranks):
        assert answer == {
            "gather": [{"rank": rank, "text": "é" * rank} for rank in range(ranks)],
            "broadcast": [0, None, 1.5],
            "sum": ranks * (ranks + 1) / 2,
            "max": ranks - 1,
            "rows": [(rank, 3) for rank in range(ranks)],
            "first": 0,
            "error": f"reading failed on 1 rank(s): rank {ranks - 1}: no such file",
        }


def test_the_one_process_twin_answers_like_a_group_of_one() -> None:
    assert run_ranks(messages_alone, 1)[0] == run_ranks(messages, 1)[0]


def messages_alone() -> dict[str, Any]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"):
        del os.environ[name]
    answer = messages()
    assert not dist.is_initialized()
    return answer


def saves_other_steps(root: str) -> str:
    with dtk.init() as rt:
        engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
        with pytest.raises(MismatchedCallError) as error:
            rt.checkpointer(root, engine=engine).save(rt.world.rank)
        return str(error.value)


def test_a_save_of_different_steps_is_named(tmp_path: Path) -> None:
    for message in run_ranks(saves_other_steps, 2, str(tmp_path)):
        assert "rank 0: 0, rank 1: 1" in message


class Silent(Exception):
    pass


def what_is_left(way: str) -> list[str]:
    before = Snapshot.take()
    try:
        with dtk.init() as rt:
            engine = rt.setup(net, partial(torch.optim.SGD, lr=0.1))
            loader = rt.loader(Noisy(40), global_batch_size=4, num_workers=2, persistent_workers=True)
            for step, (_, x, y) in enumerate(loader):
                engine.backward(F.cross_entropy(engine(x), y))
                engine.step()
                if step == 2 and way != "exit":
                    raise {"exception": Silent, "ctrl-c": KeyboardInterrupt, "sys.exit": SystemExit}[way]
    except (Silent, KeyboardInterrupt, SystemExit):
        pass
    assert threading.current_thread() is threading.main_thread()
    return leaks(before, patience=6.0)


@pytest.mark.parametrize("way", ["exit", "exception", "ctrl-c", "sys.exit"])
def test_nothing_is_left(way: str) -> None:
    """Statement 34: no process (loader workers), thread, process group, /dev/shm entry or variable."""
    assert run_ranks(what_is_left, 2, way) == [[], []]


# --- what a script sees ---------------------------------------------------------------------------------------------


class Plain(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def logged(folder: str) -> None:
    os.environ["DTK_RUN_DIR"] = folder
    with dtk.init(log_every=4) as rt:
        for step in range(1, 9):
            sometimes = {"accuracy": 1.0} if step % 3 == 0 else {}
            rt.log(step, loss=torch.tensor(step + rt.world.rank), lr=0.5, **sometimes)
        rt.print("once")


def test_log_is_the_mean_over_steps_and_ranks(tmp_path: Path) -> None:
    import json

    run_ranks(logged, 2, str(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"], line["lr"]) for line in lines] == [(4, 3.0, 0.5), (8, 7.0, 0.5)]
    assert [line["accuracy"] for line in lines] == [1.0, 1.0], "a mean over the steps that gave it"
