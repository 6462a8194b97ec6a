"""What cannot be done is refused at setup, by name, on every rank, without a hang."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError, DistToolkitError, PeerError, StateMismatch
from dist_toolkit.testing import run_ranks

pytestmark = pytest.mark.multiproc

SGD = partial(torch.optim.SGD, lr=0.1)


def line() -> nn.Module:
    return nn.Linear(4, 4)


def refused(folder: str) -> dict[str, str]:
    """What each attempt is answered with."""
    words: dict[str, str] = {}
    with dtk.init(seed=1) as rt:
        data = TensorDataset(torch.ones(32, 4))

        def one_rank_cannot() -> nn.Module:
            if rt.world.rank == 1:
                raise OSError("no such file: weights.bin")
            return line()

        def plateau(optimizer: torch.optim.Optimizer) -> Any:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

        def bad_schedule(optimizer: torch.optim.Optimizer) -> Any:
            if rt.world.rank == 1:
                raise OSError("no such file: schedule.json")
            return torch.optim.lr_scheduler.StepLR(optimizer, 1)

        def in_averages(action: str) -> None:
            engine = rt.setup(line, SGD, ema=dtk.EMA())
            engine.backward(engine(torch.ones(2, 4)).sum())
            with engine.averaged():
                engine.step() if action == "step" else engine.averaged().__enter__()

        attempts = {
            "no parameters": lambda: rt.setup(nn.Identity, SGD),
            "nothing to train": lambda: rt.setup(line().requires_grad_(False), SGD),
            "one rank cannot build": lambda: rt.setup(one_rank_cannot, SGD),
            "one rank cannot schedule": lambda: rt.setup(line, SGD, scheduler=bad_schedule),
            "other models": lambda: rt.setup(nn.Linear(4, 4 + rt.world.rank), SGD),
            "other rates": lambda: rt.setup(line, partial(torch.optim.SGD, lr=0.1 + 0.1 * rt.world.rank)),
            "other rates inside": lambda: rt.setup(line, lambda p: torch.optim.SGD(p, lr=0.1 + 0.1 * rt.world.rank)),
            "other precisions": lambda: rt.setup(line, SGD, precision="fp16" if rt.world.rank else "fp32"),
            "an unknown precision on one rank": lambda: rt.setup(
                line, SGD, precision="fp7" if rt.world.rank else "fp32"
            ),
            "other hooks": lambda: rt.setup(line, SGD, strategy=dtk.DDP(comm_hook="bf16" if rt.world.rank else None)),
            "other strategies": lambda: rt.setup(line, SGD, strategy=dtk.FSDP() if rt.world.rank else dtk.DDP()),
            "averages on one rank": lambda: rt.setup(line, SGD, ema=dtk.EMA() if rt.world.rank else None),
            "other schedules": lambda: rt.setup(
                line, SGD, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1 + rt.world.rank)
            ),
            "a part of the model": lambda: rt.setup(
                line, lambda parameters: torch.optim.SGD([*parameters][1:], lr=0.1)
            ),
            "another model": lambda: rt.setup(line, lambda parameters: torch.optim.SGD(line().parameters(), lr=0.1)),
            "a class": lambda: rt.setup(line, SGD, strategy=dtk.DDP),
            "bucket": lambda: dtk.DDP(bucket_cap_mb="25"),
            "decay in words": lambda: dtk.EMA("0.9"),
            "a step in averages": lambda: in_averages("step"),
            "averages in averages": lambda: in_averages("nest"),
            "no backward": lambda: rt.setup(line, SGD).step(),
            "no backward in fp16": lambda: rt.setup(line, SGD, precision="fp16", strategy="ddp").clip_grad_norm(1.0),
            "precision as a type": lambda: rt.setup(line, SGD, precision=torch.bfloat16),
            "precision": lambda: rt.setup(line, SGD, precision="fp8"),
            "schedule object": lambda: rt.setup(line, SGD, scheduler="cosine"),
            "schedule of a metric": lambda: rt.setup(line, SGD, scheduler=plateau),
            "schedule factory": lambda: rt.setup(line, SGD, scheduler=lambda optimizer: None),
            "averages": lambda: rt.setup(line, SGD, ema=0.9),
            "decay": lambda: dtk.EMA(decay=1.0),
            "averages every": lambda: dtk.EMA(every=0),
            "no averages": lambda: rt.setup(line, SGD).averaged().__enter__(),
            "no optimizer": lambda: rt.setup(line),
            "unknown strategy": lambda: rt.setup(line, SGD, strategy="deepsped"),
            "micro-batches": lambda: next(rt.setup(line, SGD).accumulate(torch.ones(3, 4), 4)),
            "no micro-batches": lambda: next(rt.setup(line, SGD).accumulate([])),
            "a batch without a count": lambda: next(rt.setup(line, SGD).accumulate(torch.ones(3, 4))),
            "empty": lambda: rt.loader(TensorDataset(torch.ones(0)), global_batch_size=4),
            "batch over ranks": lambda: rt.loader(data, global_batch_size=5),
            "batch over ranks and micro-batches": lambda: rt.loader(data, global_batch_size=12, micro_batches=4),
            "micro-batches of nothing": lambda: rt.loader(data, global_batch_size=12, micro_batches=0),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
            except DistToolkitError as error:
                words[name] = f"{type(error).__name__}: {error}"
            except OSError as error:
                words[name] = f"own: {error}"
            rt.group.barrier()
    return words


EXPECTED = {
    "no parameters": "Identity has no parameter that requires a gradient",
    "nothing to train": "there is nothing to train",
    "one rank cannot build": "no such file: weights.bin",
    "one rank cannot schedule": "no such file: schedule.json",
    "other models": "weight is [4, 4] float32 on rank 0 and [5, 4] float32 on rank 1",
    "other rates": "optimizer is SGD(lr=0.1) on rank 0 and SGD(lr=0.2) on rank 1",
    "other rates inside": "optimizer is not the same on all ranks: lr of group 0 is 0.1 on rank 0 and 0.2 on rank 1",
    "other precisions": "precision is fp32 on rank 0 and fp16 on rank 1",
    "an unknown precision on one rank": "precision='fp7' is unknown",
    "other hooks": "DDP(comm_hook=...) is None on rank 0 and bf16 on rank 1",
    "other strategies": "strategy is ddp on rank 0 and fsdp on rank 1",
    "averages on one rank": "ema is None on rank 0 and EMA(decay=0.999",
    "other schedules": "scheduler is StepLR(step_size=1) on rank 0 and StepLR(step_size=2) on rank 1",
    "a part of the model": "leaves out 1 trainable parameters of Linear: weight",
    "another model": "holds 2 parameters that are not in Linear",
    "a class": "strategy=DDP, a class: pass a name such as 'ddp', or an object",
    "bucket": "bucket_cap_mb='25'",
    "decay in words": "decay='0.9'",
    "a step in averages": "step outside `with engine.averaged()`",
    "averages in averages": "does not nest",
    "no backward": "call engine.backward(loss) before engine.step()",
    "no backward in fp16": "call engine.backward(loss) first",
    "precision as a type": "known: 'fp32', 'bf16', 'fp16'",
    "precision": "known: 'fp32', 'bf16', 'fp16'",
    "schedule object": "pass a factory such as partial(torch.optim.lr_scheduler",
    "schedule of a metric": "step it with a value that is the same on all ranks",
    "schedule factory": "returned a NoneType",
    "averages": "is not dtk.EMA(decay=...)",
    "decay": "EMA(decay=1.0) is not between 0 and 1",
    "averages every": "EMA(every=0)",
    "no averages": "pass rt.setup(..., ema=",
    "no optimizer": "the optimizer is a NoneType",
    "unknown strategy": "did you mean deepspeed?",
    "micro-batches": "cannot split 3 samples of this rank into 4 micro-batches",
    "no micro-batches": "accumulate([batch, ...])",
    "a batch without a count": "accumulate(batch, count)",
    "empty": "the data set is empty",
    "batch over ranks": "does not divide over 2 ranks",
    "batch over ranks and micro-batches": "over 2 ranks x 4 micro-batches, so samples weigh unequally; use 16",
    "micro-batches of nothing": "micro_batches=0",
}


def test_bad_input_is_refused_on_every_rank(tmp_path: Any) -> None:
    for rank, words in enumerate(run_ranks(refused, 2, str(tmp_path))):
        assert list(words) == list(EXPECTED)
        wrong = {name: words[name] for name, part in EXPECTED.items() if part not in words[name]}
        assert wrong == {}
        for name in ("one rank cannot build", "one rank cannot schedule"):
            assert words[name].startswith("own" if rank else PeerError.__name__)


def save(folder: str, strategy: str) -> None:
    with dtk.init(seed=1) as rt:
        engine = rt.setup(line, SGD, strategy=strategy)
        rt.checkpointer(folder, engine=engine).save(3)


def resume(
    folder: str, strategy: str, waive: tuple[str, ...] = (), precision: str = "fp32", saves: bool = False
) -> str:
    with dtk.init(seed=1) as rt:
        engine = rt.setup(line, SGD, strategy=strategy, precision=precision)
        ckpt = rt.checkpointer(folder, engine=engine, waive=waive)
        try:
            if saves:
                ckpt.save(4)
                return "saved"
            return f"step {ckpt.restore()}"
        except (StateMismatch, ConfigError) as error:
            return str(error)


def test_a_strategy_changed_in_the_middle_of_a_run_is_refused(tmp_path: Any) -> None:
    run_ranks(save, 2, str(tmp_path), "ddp")
    for words in run_ranks(resume, 2, str(tmp_path), "fsdp"):
        assert "saved with strategy 'ddp' and is resumed with 'fsdp'" in words
        assert "go on with --strategy auto, or pass waive=['strategy']" in words
    for words in run_ranks(resume, 2, str(tmp_path), "fsdp", (), "fp32", True):
        assert "saved with strategy 'ddp' and is resumed with 'fsdp'" in words, "also where nothing was restored"
    for words in run_ranks(resume, 2, str(tmp_path), "ddp", (), "bf16"):
        assert "saved with precision 'fp32' and is resumed with 'bf16'" in words
    assert run_ranks(resume, 2, str(tmp_path), "fsdp", ("strategy",)) == ["step 3"] * 2
    assert run_ranks(resume, 1, str(tmp_path), "single") == ["step 3"], "ddp on one rank is single"


def save_other(folder: str) -> tuple[str, int]:
    """What a first save of another model says, and the step that is saved next, elsewhere."""
    with dtk.init(seed=1) as rt:
        engine = rt.setup(partial(nn.Linear, 6, 3), SGD, strategy="fsdp")
        with pytest.raises(StateMismatch) as caught:
            rt.checkpointer(folder, engine=engine, keep_last=1).save(4)
        other = rt.checkpointer(f"{folder}/other", engine=engine)
        other.save(4)
        return str(caught.value), other.step


def test_a_first_save_over_another_models_run_is_refused_on_every_rank(tmp_path: Path) -> None:
    run_ranks(save, 2, str(tmp_path), "fsdp")
    for words, step in run_ranks(save_other, 2, str(tmp_path)):
        assert "model.weight is torch.float32 of shape [3, 6] here, but torch.float32 of shape [4, 4]" in words
        assert "save in another directory, or waive=['engine']" in words
        assert step == 4
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003"]
