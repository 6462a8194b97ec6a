"""The loop with dist_toolkit, bare and with what it offers around it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch.nn.functional as F
from torch import nn

import dist_toolkit as dtk

from ..work import Job, endless

_PATIENCE = 7 * 86400.0  # seconds; the loops wait for their turn outside of collectives


class Toolkit:
    """init, setup, loader; engine(x), backward, step."""

    guarded: bool | None = None
    """None: the default."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        options: dict[str, Any] = {} if self.guarded is None else {"desync_guard": self.guarded}
        self.runtime = cleanup.enter_context(
            dtk.init(seed=job.seed, device=job.device.type, timeout=_PATIENCE, log_every=50, **options)
        )
        self.engine = self.runtime.setup(job.model(), job.optimizer, strategy=dtk.DDP())
        self._done = 0
        self._batches: Any = job.in_memory()
        if feed == "loader":
            self._loader = self.runtime.loader(job.dataset(), global_batch_size=job.global_batch, shuffle=False)
            self._batches = endless(self._loader)

    def run(self, steps: int) -> None:
        """Train."""
        engine = self.engine
        for inputs, targets in islice(self._batches, steps):
            loss = F.cross_entropy(engine(inputs), targets)
            engine.backward(loss)
            engine.step()

    def trained(self) -> nn.Module:
        """The model, without wrappers."""
        return self.engine.module


class Unguarded(Toolkit):
    """The same without the desync guard."""

    guarded = False


class Logged(Toolkit):
    """The same with the loss logged at each step."""

    def run(self, steps: int) -> None:
        """Train."""
        engine, log = self.engine, self.runtime.log
        for step, (inputs, targets) in enumerate(islice(self._batches, steps), self._done + 1):
            loss = F.cross_entropy(engine(inputs), targets)
            engine.backward(loss)
            engine.step()
            log(step, loss=loss)
        self._done += steps


class Steps(Toolkit):
    """The loop of the README: loader, checkpointer, agreed stop on preemption, log."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        super().__init__(job, feed, cleanup)
        checkpointer = self.runtime.checkpointer(engine=self.engine, loader=self._loader)
        self._steps = checkpointer.steps(self._loader, until=2**60)
        cleanup.callback(self._steps.close)
        self._started = False

    def run(self, steps: int) -> None:
        """Train."""
        if not self._started:
            before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
            self._train(1)
            for number, handler in before.items():  # else a Ctrl-C would wait for this loop's next turn
                signal.signal(number, handler)
            self._started = True
            steps -= 1
        self._train(steps)

    def _train(self, steps: int) -> None:
        engine, log = self.engine, self.runtime.log
        for step, (inputs, targets) in islice(self._steps, steps):
            loss = F.cross_entropy(engine(inputs), targets)
            engine.backward(loss)
            engine.step()
            log(step, loss=loss)
