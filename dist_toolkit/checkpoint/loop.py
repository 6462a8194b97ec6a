"""The training loop over a loader: it counts steps over restarts and epochs, and saves when that is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from dist_toolkit.errors import ConfigError


class Batches(Protocol):
    """A loader: iterating gives one epoch."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Saves(Protocol):
    """What the loop needs of a checkpointer."""

    step: int

    def begin_step(self) -> None:
        """Count a step."""
        ...

    def end_step(self, last: bool) -> bool:
        """Save if that is due; whether all ranks are to stop. Collective."""
        ...

    def is_saved(self) -> bool:
        """Whether the current step is saved."""
        ...

    def save(self) -> None:
        """Save the current step, and wait for it."""
        ...

    def leave(self) -> NoReturn:
        """Leave the program with all ranks, as the current step is saved."""
        ...


class Loop:
    """One run of `Checkpointer.steps`."""

    def __init__(self, saves: Saves, loader: Any, until: int | None, epochs: int | None) -> None:
        if (until is None) == (epochs is None):
            raise ConfigError("pass one of until=STEPS and epochs=N")
        if not getattr(loader, "train", True):
            raise ConfigError(
                "this loader starts from the first sample each time, and so would a resume; pass train=True"
            )
        self._saves, self._loader, self._epochs = saves, loader, epochs or 0
        self._last = until if epochs is None else _steps_of(loader, epochs)

    @property
    def last(self) -> int | None:
        """The last step; None where only reading tells."""
        return self._last

    def run(self) -> Iterator[tuple[int, Any]]:
        """Pairs (step, batch) until the end."""
        if self._last is None:
            yield from self._passes()
        while self._last is not None and self._saves.step < self._last:
            before = self._saves.step
            yield from self._epoch(lambda: self._saves.step >= (self._last or 0))
            if self._saves.step == before:
                raise ConfigError("the loader gives no batch: there is nothing to train on")
        if self._saves.step and not self._saves.is_saved():  # an earlier loop's last step, after a save that failed
            self._saves.save()

    def _passes(self) -> Iterator[tuple[int, Any]]:
        """Epochs of a loader whose length only reading tells; its own count of epochs is what is resumed."""
        while self._loader.epoch < self._epochs:
            before = self._saves.step
            yield from self._epoch(lambda: False)
            if self._saves.step == before == 0:
                raise ConfigError("the loader gives no batch: there is nothing to train on")

    def _epoch(self, is_last: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        for batch in self._loader:
            if self._last is None and self._loader.epoch >= self._epochs:  # resumed at the very end of the last epoch
                return
            self._saves.begin_step()
            yield self._saves.step, batch
            last = is_last()
            if self._saves.end_step(last) and not last:
                self._saves.leave()
            if last:
                return


def _steps_of(loader: Batches, epochs: int) -> int | None:
    """Steps of so many passes; None where only reading tells."""
    try:
        return epochs * len(loader)
    except TypeError:
        if not hasattr(loader, "epoch"):
            raise
        return None
