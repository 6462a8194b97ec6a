"""What a save and a restore cost a rank: peak memory beyond what it holds anyway, and bytes that it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import dist_toolkit as dtk
from dist_toolkit.storage import LocalStorage
from dist_toolkit.strategies import Strategy
from dist_toolkit.testing import run_ranks

pytestmark = [pytest.mark.multiproc, pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs" / "strategies-and-checkpoints.md"
ADAM = partial(torch.optim.AdamW, lr=0.01)
LARGEST = 4 * 1021 * 256
"""Bytes of the largest parameter."""

WRAP = (nn.Linear, nn.Embedding)
STRATEGIES: dict[str, Strategy] = {
    "ddp": dtk.DDP(),
    "fsdp": dtk.FSDP(wrap=WRAP),
    "hybrid": dtk.FSDP(wrap=WRAP, replicas=2),
    "zero1": dtk.DeepSpeed(stage=1),
    "zero2": dtk.DeepSpeed(stage=2),
    "zero3": dtk.DeepSpeed(stage=3),
}
COPIES = {"ddp": 4, "hybrid": 2}
"""How many copies of the state 4 ranks hold together, where it is not one."""

SAVERS, READERS = ("ddp", "fsdp", "zero3"), ("fsdp", "zero1", "zero3")
"""Who reads, on 2 ranks, whose files that were saved on 4."""

CASES = [(name, 4) for name in STRATEGIES] + [(name, 2) for name in READERS]
"""What is measured: strategy and number of ranks."""

SLACK = 0.2
"""Of the largest parameter: random states, buffers for small chunks, step counts."""


def net() -> nn.Module:
    return nn.Sequential(nn.Embedding(1021, 256), *[nn.Linear(256, 256) for _ in range(8)])


def setup(rt: dtk.Runtime, name: str) -> dtk.Engine:
    return rt.setup(net, ADAM, strategy=STRATEGIES[name])


def train(engine: dtk.Engine) -> None:
    engine.backward(engine(torch.arange(16)).square().mean())
    engine.step()


def peak(call: Callable[[], Any]) -> int:
    """Most bytes that the CPU's allocator had given out beyond those at the beginning.

    What another thread gives back is not seen, which can only make it more.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        call()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert events, "the profiler saw no allocation at all"
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@contextmanager
def reads() -> Iterator[list[int]]:
    """The length of each read of a file of tensors while it is open."""
    lengths: list[int] = []
    plain = LocalStorage.open

    def counting(storage: LocalStorage, name: str) -> Any:
        reader: Any = plain(storage, name)
        read_into = reader.read_into
        reader.read_into = lambda offset, view: (lengths.append(view.nbytes), read_into(offset, view))[1]
        return reader

    with mock.patch.object(LocalStorage, "open", counting):
        yield lengths


def share_of(engine: dtk.Engine) -> int:
    """Bytes of the weights and moments that this rank holds for the update."""
    tensors = [value for value in engine.state_dict().values() if isinstance(value, torch.Tensor)]
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def on_four(root: str) -> dict[str, dict[str, int]]:
    """See `measure`."""
    with dtk.init(seed=1) as rt:
        return measure(rt, root, STRATEGIES)


def on_two(root: str) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """See `measure`; and bytes read of what was saved on 4 ranks, by `saver reader`."""
    others = {}
    with dtk.init(seed=1) as rt:
        own = measure(rt, root, READERS)
        for reader in READERS:
            engine = setup(rt, reader)
            for saver in SAVERS:
                with reads() as lengths:
                    rt.checkpointer(f"{root}/{saver}-4", engine=engine, waive=["strategy"]).restore()
                others[f"{saver} {reader}"] = sum(lengths)
    return own, others


def measure(rt: dtk.Runtime, root: str, names: Iterable[str]) -> dict[str, dict[str, int]]:
    """By strategy: peaks of a save, of a restore over a trained engine, and of one into a new engine; bytes read."""
    found = {}
    for name in names:
        folder = f"{root}/{name}-{rt.world.world_size}"
        old = setup(rt, name)
        train(old)
        ckpt = rt.checkpointer(folder, engine=old)
        ckpt.save(1)
        saving = peak(partial(ckpt.save, 2))
        with reads() as lengths:
            ckpt.restore()
        new = setup(rt, name)
        again = rt.checkpointer(folder, engine=new)
        found[name] = {
            "share": share_of(old),
            "save": saving,
            "restore": peak(ckpt.restore),
            "first restore": peak(again.restore),
            "read": sum(lengths),
        }
    return found


@cache
def measured() -> tuple[dict[int, list[dict[str, dict[str, int]]]], list[dict[str, int]], int]:
    """By number of ranks, and by rank; reads of other strategies' files, by rank; and bytes of a checkpoint's files."""
    with TemporaryDirectory(prefix="dtk-memory-") as root:
        found = {4: run_ranks(on_four, 4, root, timeout=240)}
        two = run_ranks(on_two, 2, root, timeout=240)
        size = sum(path.stat().st_size for path in Path(root, "ddp-4", "step-00000002").glob("*.safetensors"))
    return found | {2: [own for own, _ in two]}, [others for _, others in two], size


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_a_save_needs_no_memory(name: str, ranks: int) -> None:
    for rank in measured()[0][ranks]:
        assert rank[name]["save"] < SLACK * LARGEST


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_a_restore_needs_the_ranks_own_share_once_more(name: str, ranks: int) -> None:
    """What is read is new until all ranks have read theirs, so that a refused checkpoint changes nothing.

    Into a new engine as well: the moments that were read become its own.
    """
    whole = 3 * sum(4 * parameter.numel() for parameter in net().parameters())
    for rank in measured()[0][ranks]:
        share = rank[name]["share"]
        assert share < 1.02 * whole * COPIES.get(name, 1) / ranks
        assert rank[name]["restore"] < share + SLACK * LARGEST
        assert rank[name]["first restore"] < share + SLACK * LARGEST


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_each_rank_reads_what_it_needs(name: str, ranks: int) -> None:
    """All ranks together read as many bytes as they hold: a checkpoint once, but for copies."""
    found, _, size = measured()
    copies = COPIES.get(name, 1)
    read = [rank[name]["read"] for rank in found[ranks]]
    assert 0.99 < sum(read) / size / copies < 1.05
    assert max(read) < 1.1 * size * copies / ranks


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("reader", READERS)
def test_also_on_another_number_of_ranks(saver: str, reader: str) -> None:
    """A chunk is read as a whole, for its digest, by each rank that needs a part; small tensors of DDP are one each."""
    _, others, size = measured()
    shares = [rank[f"{saver} {reader}"] / size for rank in others]
    assert sum(shares) > 0.99
    assert max(shares) < (1.0 if saver == "ddp" else 0.65)


def large() -> nn.Module:
    """Its first weight has 32 MiB; saved by one rank, it has 8 chunks, and so have both moments."""
    return nn.Sequential(nn.Embedding(2048, 4096), nn.Linear(4096, 8))


def large_reads(root: str, name: str, save: bool) -> float:
    """The part of the checkpoint that a rank reads; before, it is saved."""
    with dtk.init(seed=1) as rt:
        engine = rt.setup(large, ADAM, strategy=STRATEGIES[name])
        ckpt = rt.checkpointer(root, engine=engine, waive=["strategy"])
        if save:
            train(engine)
            ckpt.save(1)
        with reads() as lengths:
            assert ckpt.restore() == 1
    return sum(lengths) / sum(path.stat().st_size for path in Path(root, "step-00000001").glob("*.safetensors"))


@pytest.mark.parametrize("reader", READERS)
def test_of_a_large_tensor_a_rank_reads_the_chunks_that_it_needs(tmp_path: Path, reader: str) -> None:
    """Also of one that DDP has saved as a whole."""
    assert run_ranks(large_reads, 1, str(tmp_path), "ddp", True) == [pytest.approx(1.0, abs=0.01)]
    for ranks in (2, 4):
        shares = run_ranks(large_reads, ranks, str(tmp_path), reader, False)
        border = 0.0 if reader == "fsdp" else 1 / 8  # ranges of ZeRO begin in the middle of a chunk
        assert max(shares) < 1 / ranks + border + 0.02, shares


PEAKS = {
    "`single`, `data_parallel`, `ddp`": "the whole state",
    "`fsdp`": "1/W of it",
    "`fsdp`, hybrid, R replicas": "R/W of it",
    "`deepspeed`, stages 1, 2, 3": "1/W of it",
}
"""The table of the page: what a restore holds more than before, at its peak; what these tests find."""


def test_the_page_says_what_was_measured() -> None:
    rows = [f"| {names} | nothing | {share} |" for names, share in PEAKS.items()]
    table = "\n".join(["| strategy | save | restore |", "|---|---|---|", *rows])
    assert table in PAGE.read_text(encoding="utf-8"), table
