"""A loader whose place in the data is two numbers, and which a checkpoint can put back exactly."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch

from dist_toolkit.data.feeds import Feed, Ready
from dist_toolkit.data.prefetch import SideStream, Transfer, one_ahead
from dist_toolkit.errors import StateMismatch


class Loader:
    """Iterates over this rank's batches of one epoch, on the device of the rank.

    A training loader goes on: each `for` takes up at the position where the last one stopped, and an epoch that ended
    is followed by the next one, in a new order. An evaluation loader starts from the first sample each time. Only
    batches that were handed out count: what was prefetched is fetched again after a resume. On CUDA the next batch is
    copied on a side stream while the current one is computed on.

    Attributes:
        epoch: number of the epoch, from 0.
        position: samples of the epoch, over all ranks, that were handed out (steps, where the data divide themselves).
        weight: of the batch that was handed out last, in training: (samples of this rank) * ranks / (samples of all
            ranks). The average over ranks of weight * (mean loss of the rank's batch) is the mean over all samples of
            the step. 1.0 in even batches and in evaluation, 0.0 for a copy that only keeps the rank in step.
        said: arguments that must be the same on every rank, and that a saved state does not hold.
    """

    def __init__(self, feed: Feed, *, train: bool, device: torch.device, said: Mapping[str, Any] | None = None) -> None:
        self.said: Mapping[str, Any] = said or {}
        self.dataset, self.train, self.device = feed.dataset, train, device
        self.epoch = 0
        self.position = 0
        self.weight = 1.0
        self._feed = feed
        self._transfer: Transfer | None = None
        self._on_iter: Callable[[], None] | None = None
        self._on_batch: list[Callable[[float], None]] = []
        self._on_end: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """Batches that this rank gets in a whole epoch. Raises TypeError over iterable data."""
        return self._feed.batches_per_epoch()

    def __iter__(self) -> Iterator[Any]:
        if self._on_iter is not None:
            self._on_iter()
        if not self.train:
            self.epoch = self.position = 0
        elif self.position and self._feed.at_end(self.epoch, self.position):
            self._next_epoch()
        resumed = self.position > 0
        given = yield from self._epoch()
        if resumed and not given:  # only reading could tell that the epoch had ended where it was left
            yield from self._epoch()

    def on_iter(self, call: Callable[[], None]) -> None:
        """Have `call()` run at the start of every iteration."""
        self._on_iter = call

    def on_batch(self, call: Callable[[float], None]) -> None:
        """Have `call(weight)` run whenever a training batch is handed out, before the loop's body sees it."""
        self._on_batch.append(call)

    def on_end(self, call: Callable[[], None]) -> None:
        """Have `call()` run when a loop over training batches has ended, also before the end of the epoch."""
        self._on_end.append(call)

    def identity(self) -> dict[str, int | bool | str]:
        """What must be the same on a resume for the order to be the same; it is the same on every rank."""
        return self._feed.identity()

    def state_dict(self) -> dict[str, Any]:
        """The place in the data: under 200 bytes as JSON, whatever the size of the data set."""
        return {"epoch": self.epoch, "position": self.position, **self._feed.identity(), **self._feed.settings()}

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse a place in another order.

        Raises:
            StateMismatch: the state is of another data set, seed, shuffling, weighting or global batch size.
        """
        mine = self._feed.identity()
        others = state.keys() - mine.keys() - self._feed.settings().keys() - {"epoch", "position"}
        for name in (*mine, *sorted(others)):
            if state.get(name) != mine.get(name):
                raise StateMismatch(
                    "loader",
                    f"the loader's {name} is {mine.get(name)!r}, but {state.get(name)!r} in the saved state: the "
                    f"samples would come in other batches; start with {name}={state.get(name)!r} again, or waive "
                    "'loader' to start the data anew",
                )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place; the next `for` starts there.

        Raises:
            StateMismatch: see `check_state_dict`.
        """
        self.check_state_dict(state)
        self._feed.take_over(state)
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def close(self) -> None:
        """End the workers, if any are running."""
        self._feed.close()

    def _epoch(self) -> Generator[Any, None, int]:
        """The rest of the epoch; returns how many batches it had."""
        given = 0
        try:
            for ready in self._on_device(self._feed.ready(self.epoch, self.position)):
                given += 1
                self.position = ready.stop
                if self.train:
                    self.weight = ready.weight
                    for call in self._on_batch:
                        call(ready.weight)
                yield ready.batch
        finally:
            for end in self._on_end:
                end()
        self._next_epoch()
        return given

    def _on_device(self, batches: Iterator[Ready]) -> Iterator[Ready]:
        if self.device.type == "cpu":
            return batches
        if self._transfer is None:
            self._transfer = SideStream(self.device)
        return one_ahead(batches, self._transfer)

    def _next_epoch(self) -> None:
        if self.train:
            self.epoch += 1
        self.position = 0
