"""A small training program for the tests: dropout, batch normalisation, random augmentation, an evaluation."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset, default_collate

import dist_toolkit as dtk


class Noisy(Dataset):
    """`length` samples (number, 6 features with fresh noise, class)."""

    def __init__(self, length: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(length, 6, generator=generator)
        self.y = torch.randint(0, 3, (length,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        return index, self.x[index] + 0.1 * torch.randn(6), self.y[index]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


@dataclass(frozen=True)
class Program:
    """What one launch does; the run itself is what `root` and the fields up to `every` say."""

    root: str
    length: int = 40
    batch: int = 12
    epochs: int = 4
    every: int = 3
    workers: int = 0
    persistent: bool = False
    evaluate: bool = False
    mix: bool = False
    save_in_body: bool = False
    save_early: bool = False
    background: bool = True
    kill_rank: int = -1
    kill_step: int = -1
    kill_signal: int = signal.SIGKILL
    kill_group: bool = False


def mixed(samples: list) -> Any:
    """A collate function that draws: each sample is mixed with its neighbour, and its own noise is replaced."""
    ids, x, y = default_collate(samples)
    return ids, x + torch.rand(()) * x.roll(1, 0), y


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """One hash of names and bytes."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        h.update(
            name.encode() + tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return h.hexdigest()


def train(program: Program) -> dict:
    """Train (on), and return what identifies the result: digests of weights and optimizer, epoch and position."""
    if program.kill_group:
        os.setpgid(0, 0)  # as under torchrun: the rank and its loader workers are a group
    with dtk.init(seed=5) as rt:
        engine = rt.setup(net, partial(torch.optim.AdamW, lr=0.01))
        options = {"persistent_workers": program.persistent} if program.workers else {}
        if program.mix:
            options["collate_fn"] = mixed
        data = Noisy(program.length)
        plain = TensorDataset(torch.arange(program.length), data.x, data.y)
        loader = rt.loader(
            plain if program.mix else data, global_batch_size=program.batch, num_workers=program.workers, **options
        )
        test = rt.loader(Noisy(7), global_batch_size=4, train=False)
        ckpt = rt.checkpointer(
            Path(program.root) / "ckpt",
            engine=engine,
            loader=loader,
            every=None if program.save_in_body else program.every,
            keep_last=2,
            background=program.background,
        )
        log = (Path(program.root) / f"log-{rt.world.rank}.jsonl").open("a", buffering=1)
        for step, (ids, x, y) in ckpt.steps(loader, epochs=program.epochs):
            if (rt.world.rank, step) == (program.kill_rank, program.kill_step):
                (os.killpg if program.kill_group else os.kill)(os.getpid(), program.kill_signal)
            if program.save_early and step % 3 == 0:
                ckpt.report(loss=float(step))
                ckpt.save()  # before the update: the save that is due after it has to stand
            loss = F.cross_entropy(engine(x), y)
            engine.backward(loss)
            engine.clip_grad_norm(1.0)
            engine.step()
            log.write(
                json.dumps({"step": step, "ids": ids.tolist(), "loss": loss.item().hex(), "x": digest({"x": x})}) + "\n"
            )
            if program.save_in_body and step % 3 == 0:
                ckpt.save()
            if program.evaluate:
                with engine.evaluating():
                    for _, features, _ in test:
                        engine(features)
        log.close()
        state = engine.state_dict()
        tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
        return {"digest": digest(tensors), "loader": loader.state_dict(), "step": ckpt.step}


def history(root: Path, ranks: int) -> dict[int, list[dict]]:
    """step -> what each rank last did at that step (a step that was redone after a kill counts once)."""
    steps: dict[int, list[dict]] = {}
    for rank in range(ranks):
        last: dict[int, dict] = {}
        path = root / f"log-{rank}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = json.loads(line)
            last[entry["step"]] = entry
        for step, entry in last.items():
            steps.setdefault(step, []).append(entry)
    return steps


def order(root: Path, ranks: int) -> list[int]:
    """The samples in the order of the global batches."""
    steps = history(root, ranks)
    return [number for step in sorted(steps) for entry in steps[step] for number in entry["ids"]]
