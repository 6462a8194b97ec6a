"""What a step costs beyond torch's own: collectives, waits and memory, counted on real ranks. No clock is read."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.testing import run_ranks

pytestmark = pytest.mark.multiproc

STEPS = 6
LOG_EVERY = 20
BUCKET_MB = 0.002  # several buckets
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
COLLECTIVES = ("c10d::", "gloo:", "nccl:")
WAIT = "aten::_local_scalar_dense"


@dataclass(frozen=True)
class Cost:
    """What some steps did on this rank.

    Attributes:
        collectives: calls, by name.
        waits: tensors whose value Python asked for.
        tensors: tensors alive afterwards, less those before, without a run of the garbage collector.
        kept: bytes of their storages, the same way.
    """

    collectives: Counter[str]
    waits: int
    tensors: int
    kept: int


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(512, 16, generator=generator), torch.randint(4, (512,), generator=generator))


def alive() -> tuple[int, int]:
    """Number of tensors that Python can reach, and bytes of their storages."""
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, nn.Parameter)]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (each.untyped_storage() for each in tensors)}
    return len(tensors), sum(storages.values())


def settled() -> tuple[int, int]:
    """What is alive once nothing is left to free: a call of `gc.collect` does nothing while another thread collects."""
    found, last = alive(), None
    while found != last:
        gc.collect()
        time.sleep(0.05)
        found, last = alive(), found
    return found


def cost_of(run: Callable[[int], None], steps: int = STEPS) -> Cost:
    """Of `run(steps)`, after two steps of warm-up."""
    run(2)
    gc.disable()  # what only the collector frees would hold a GPU's memory until it comes round
    try:
        before = settled()
        run(steps)
        after = alive()
    finally:
        gc.enable()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run(steps)
    names = Counter(event.name for event in seen.events())
    collectives = Counter({name: count for name, count in names.items() if name.startswith(COLLECTIVES)})
    return Cost(collectives, names[WAIT], after[0] - before[0], after[1] - before[1])


def by_hand(rt: dtk.Runtime) -> Callable[[int], None]:
    """DDP with dist_toolkit's options."""
    model = DistributedDataParallel(net(), bucket_cap_mb=BUCKET_MB, gradient_as_bucket_view=True)
    optimizer = SGD(model.parameters())
    x, y = data()[:8]

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def with_engine(rt: dtk.Runtime) -> Callable[[int], None]:
    engine = rt.setup(net, SGD, strategy=dtk.DDP(bucket_cap_mb=BUCKET_MB))
    x, y = data()[:8]

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = F.cross_entropy(engine(x), y)
            engine.backward(loss)
            engine.step()

    return run


def in_steps(rt: dtk.Runtime, root: str) -> Callable[[int], None]:
    """The loop of the README."""
    engine = rt.setup(net, SGD, strategy=dtk.DDP(bucket_cap_mb=BUCKET_MB))
    loader = rt.loader(data(), global_batch_size=8)
    checkpointer = rt.checkpointer(root, engine=engine, loader=loader)
    steps_to_come = checkpointer.steps(loader, until=63)  # one epoch holds 64

    def run(steps: int) -> None:
        for _ in range(steps):
            step, (x, y) = next(steps_to_come)
            loss = F.cross_entropy(engine(x), y)
            engine.backward(loss)
            engine.step()
            rt.log(step, loss=loss, extra=1.0)

    return run


def measure(root: str, guard: bool) -> dict[str, Cost | bool]:
    with dtk.init(log_every=LOG_EVERY, desync_guard=guard) as rt:
        watched = rt.group.watched("something") is not rt.group.watched("something else")
        loop = in_steps(rt, root)
        return {
            "watched": watched,
            "hand": cost_of(by_hand(rt)),
            "engine": cost_of(with_engine(rt)),
            "steps": cost_of(loop),  # steps 1 to 14: no line of metrics
            "log": cost_of(loop, LOG_EVERY),  # any 20 steps: one line
        }


@pytest.fixture(scope="module", params=[True, False], ids=["guard", "no guard"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Cost]]:
    folder = tmp_path_factory.mktemp("cost")
    found = run_ranks(measure, 2, str(Path(folder) / "checkpoints"), request.param, env={"DTK_RUN_DIR": str(folder)})
    assert [each.pop("watched") for each in found] == [request.param] * 2
    return found


def all_reduces(cost: Cost) -> int:
    assert cost.collectives, "the profiler saw no collective at all"
    assert set(cost.collectives) <= {"c10d::allreduce_", "gloo:all_reduce"}, "no barrier, broadcast or gather"
    return cost.collectives["c10d::allreduce_"]


def test_a_step_communicates_what_ddp_does_by_hand(measured: list[dict[str, Cost]]) -> None:
    for seen in measured:
        assert all_reduces(seen["hand"]) >= 2 * STEPS, "several buckets"
        assert seen["engine"].collectives == seen["hand"].collectives


def test_the_whole_loop_adds_at_most_one_reduction_a_step_and_one_a_line(measured: list[dict[str, Cost]]) -> None:
    """That a preemption was asked for, and the metrics."""
    for seen in measured:
        buckets = all_reduces(seen["hand"]) // STEPS
        assert STEPS * buckets <= all_reduces(seen["steps"]) <= STEPS * (buckets + 1)
        assert LOG_EVERY * buckets + 1 <= all_reduces(seen["log"]) <= LOG_EVERY * (buckets + 1) + 1


def test_no_step_waits_for_the_device(measured: list[dict[str, Cost]]) -> None:
    """The one value that is read in the whole loop is the answer about preemption, a CPU tensor of the step before."""
    for seen in measured:
        assert seen["hand"].waits == 0
        assert seen["engine"].waits == 0
        assert seen["steps"].waits <= STEPS


def test_steps_keep_no_memory(measured: list[dict[str, Cost]]) -> None:
    for seen in measured:
        for name, cost in seen.items():
            assert (cost.tensors, cost.kept) == (0, 0), name


def forbidden() -> Cost:
    """A loop that does what these tests are there to find."""
    with dtk.init() as rt:
        engine = rt.setup(net, SGD, strategy=dtk.DDP(bucket_cap_mb=BUCKET_MB))
        x, y = data()[:8]
        losses = []

        def run(steps: int) -> None:
            for _ in range(steps):
                loss = F.cross_entropy(engine(x), y)
                engine.backward(loss)
                engine.step()
                rt.group.barrier()
                losses.append(loss.detach())
                float(losses[-1])

        return cost_of(run)


def test_these_counts_can_fail() -> None:
    for seen in run_ranks(forbidden, 2):
        assert any("barrier" in name for name in seen.collectives)
        assert seen.waits == STEPS
        assert seen.tensors == STEPS
        assert seen.kept == 4 * STEPS
