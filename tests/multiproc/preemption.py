"""A training program that says where it is, and signals that are sent to it at any time."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F

import dist_toolkit as dtk
from dist_toolkit.checkpoint.tool import app
from dist_toolkit.testing import Outcome, start_ranks
from tests.multiproc.training import Noisy, digest, net

WHOM = ("one rank", "all ranks", "the groups", "every process")
PHASES = ("", "in init", "set up", "loop", "after the loop", "closing", "closed")
AIMS = {"": 0.2, "in init": 0.2, "set up": 0.4, "loop": 2.0, "after the loop": 0.2, "closing": 0.01}
"""Signals come within so many seconds after a run has got there; most are aimed at the loop."""
CHANCES = (1, 1, 4, 12, 4, 1)


def train(root: str, workers: int, strategy: str = "auto") -> dict[str, Any]:
    """24 steps in 3 epochs, an evaluation every 5 steps and one at the end, saves in the background every 4 steps."""
    os.setpgid(0, 0)  # as under torchrun
    folder = Path(root)
    where = (folder / f"phase-{os.environ['RANK']}").open("w", buffering=1)

    def at(phase: str) -> None:
        where.write(phase + "\n")

    at("in init")
    with dtk.init(seed=5) as rt:
        engine = rt.setup(net, partial(torch.optim.AdamW, lr=0.01), strategy=strategy)
        loader = rt.loader(Noisy(96), global_batch_size=12, num_workers=workers)
        test = rt.loader(Noisy(10), global_batch_size=4, train=False, num_workers=min(workers, 1))
        ckpt = rt.checkpointer(folder / "ckpt", engine=engine, loader=loader, every=4, keep_last=2)
        log = (folder / f"log-{rt.world.rank}.jsonl").open("a", buffering=1)
        at("set up")
        for step, (ids, x, y) in ckpt.steps(loader, epochs=3):
            at("loop")
            engine.backward(F.cross_entropy(engine(x), y))
            engine.step()
            log.write(json.dumps({"step": step, "ids": ids.tolist()}) + "\n")
            if step % 5 == 0:
                evaluate(rt, engine, test)
        at("after the loop")
        evaluate(rt, engine, test)
        state = {name: whole(value) for name, value in engine.state_dict().items() if isinstance(value, torch.Tensor)}
        at("closing")
    at("closed")
    return {"digest": digest(state), "step": ckpt.step}


def whole(tensor: Any) -> torch.Tensor:
    """All of a sharded tensor. Collective."""
    found: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def evaluate(rt: dtk.Runtime, engine: dtk.Engine, loader: dtk.Loader) -> float:
    """The mean loss over `loader`."""
    mean = rt.mean()
    with engine.evaluating():
        for _, x, y in loader:
            mean.update(F.cross_entropy(engine(x), y, reduction="none"))
    return float(mean.compute())


@dataclass
class Shot:
    """One signal, and what came of it."""

    number: int
    whom: str
    before: list[str]
    after: list[str]
    outcomes: list[Outcome]

    @property
    def codes(self) -> list[int]:
        """The ranks' exit codes."""
        return [outcome.exitcode for outcome in self.outcomes]

    def __str__(self) -> str:
        errors = "\n".join(outcome.error or "" for outcome in self.outcomes)
        name = signal.Signals(self.number).name
        return f"{name} to {self.whom}, ranks before {self.before}, after {self.after}: codes {self.codes}\n{errors}"


@dataclass
class Target:
    """A run in `root` that is started again and again, and signalled each time."""

    root: Path
    ranks: int
    workers: int
    strategy: str = "auto"

    def shoot(self, draw: random.Random) -> Shot | None:
        """Start the run, and signal it at a random time; None if it had ended by then."""
        for rank in range(self.ranks):
            (self.root / f"phase-{rank}").unlink(missing_ok=True)
        running = start_ranks(train, self.ranks, str(self.root), self.workers, self.strategy)
        (aim,) = draw.choices(list(AIMS), CHANCES)
        while min(map(PHASES.index, self._phases())) < PHASES.index(aim):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, AIMS[aim]))
        number, whom, first = (
            draw.choice([signal.SIGTERM, signal.SIGUSR1]),
            draw.choice(WHOM),
            draw.randrange(self.ranks),
        )
        before = self._phases()
        pids = [process.pid for process in running.processes]
        for pid in pids if whom != "one rank" else [pids[first]]:
            send(pid, number, whom)
        after = self._phases()
        outcomes = running.wait(60.0)
        return None if "closed" in before else Shot(number, whom, before, after, outcomes)

    def check(self, shot: Shot) -> bool:
        """Hold the shot against what is promised; whether the run had come to its end."""
        first, last = min(map(PHASES.index, shot.before)), max(map(PHASES.index, shot.after))
        if set(shot.codes) == {0}:
            assert last >= PHASES.index("closing"), f"ended as if nothing had come: {shot}"
            return True
        if first < PHASES.index("set up"):
            return False  # nothing is promised yet, but that no checkpoint is lost
        if first >= PHASES.index("closing"):
            assert set(shot.codes) <= {0, -signal.SIGTERM, -signal.SIGUSR1}, str(shot)  # after the runtime's end
            return True
        assert dtk.Preempted.EXIT_CODE in shot.codes, str(shot)
        if PHASES[first] == PHASES[last] == "loop":
            assert set(shot.codes) == {dtk.Preempted.EXIT_CODE}, str(shot)
            assert self.newest() == self.last_step(), f"work was lost: {shot}"
        return False

    def newest(self) -> int:
        """The newest checkpoint's step, 0 if there is none; all must be whole, and nothing of a save left over."""
        folder = self.root / "ckpt"
        names = {path.name for path in folder.glob("step-*")}
        if names:
            said = io.TextIOWrapper(io.BytesIO())
            with redirect_stdout(said):
                assert app.main(["verify", str(folder)]) == 0, "dtk ckpt verify found damage"
        assert not [name for name in names if not name.removeprefix("step-").isdigit()], names
        return max((int(name.removeprefix("step-")) for name in names), default=0)

    def last_step(self) -> int:
        """The newest step that any rank has done; it must be the same for all."""
        last = set()
        for rank in range(self.ranks):
            lines = (self.root / f"log-{rank}.jsonl").read_text().splitlines()
            last.add(json.loads(lines[-1])["step"] if lines else 0)
        assert len(last) == 1, f"ranks stopped at {last}"
        return last.pop()

    def _phases(self) -> list[str]:
        found = []
        for rank in range(self.ranks):
            path = self.root / f"phase-{rank}"
            lines = path.read_text().splitlines() if path.exists() else []
            found.append(lines[-1] if lines else "")
        return found


def send(pid: int, number: int, whom: str) -> None:
    """Signal a rank, its group, or it and all its descendants."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if whom == "the groups":
            os.killpg(pid, number) if os.getpgid(pid) == pid else os.kill(pid, number)
            return
        children = psutil.Process(pid).children(recursive=True) if whom == "every process" else []
        os.kill(pid, number)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
