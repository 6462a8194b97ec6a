"""What all ranks decide together: rank 0's answers, who goes first, when to stop. Each is one call on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from dist_toolkit import objects
from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.group import Group
from dist_toolkit.signals import Signals, StopRequest

T = TypeVar("T")


class Decisions:
    """The part of a Runtime that decides; `group` is the Runtime's."""

    group: Group
    _signals: Signals
    _requested: StopRequest | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0: for what only one rank is to print or write. Never put a collective behind it."""
        return self.group.world.is_main

    def gather_objects(self, value: T) -> list[T]:
        """Everyone's `value`, any object that pickles, by rank. Collective.

        Raises:
            PeerError: a rank's value does not pickle or unpickle; on every rank.
        """
        return objects.gather_objects(self.group, value)

    def broadcast_object(self, value: T, src: int = 0) -> T:
        """The value of rank `src`, any object that pickles; other ranks' argument is ignored. Collective.

        Raises:
            PeerError: it does not pickle or unpickle; on every rank.
        """
        answer: T = objects.broadcast_object(self.group, value, src)
        return answer

    def decide(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)` on rank 0 alone, and give every rank what it returned. Collective.

        The function must not call a collective; its result must pickle.

        Raises:
            PeerError: the function failed; on every rank, from its exception on rank 0.
        """
        result: T = objects.decide(self.group, function, *args)
        return result

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the body on rank 0, then on all others at once, then go on together. Collective; the body must not be.

        For a download or a cache that rank 0 makes and the others read.

        Raises:
            PeerError: the body failed on some rank; on every rank. If it failed on rank 0, no other rank runs it.
        """
        main = self.group.world.is_main
        if not main:
            self._agree("rt.main_first on rank 0", None)
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
        if main:
            self._agree("rt.main_first on rank 0", error)
        self._agree("rt.main_first", error)

    def stop_requested(self) -> bool:
        """Whether SIGTERM or SIGUSR1 has come to any rank: the same answer on all ranks. Collective.

        For loops without `ckpt.steps`, at the same point of every step. From the first call on, until the runtime
        closes, these signals end no rank. No call waits for other ranks: the answer is that of one call before.
        """
        if self._requested is None:
            self._requested = StopRequest(self.group, self._signals)
            self._signals.polled = True
            self._requested.__enter__()
        return self._requested.poll().stop

    def early_stopping(self, patience: int, mode: str = "min", min_delta: float = 0.0) -> EarlyStopping:
        """An object whose `update(value)` says when a metric has not improved for `patience` updates in a row.

        Args:
            mode: `min` for a loss, `max` for an accuracy.
            min_delta: an improvement is more than this.

        Raises:
            ConfigError: an argument is out of range.
        """
        return EarlyStopping(self.group, patience, mode, min_delta)

    def _agree(self, what: str, error: BaseException | None) -> None:
        with self.group.watched("rt.main_first"):
            try:
                self.group.agree(what, error)
            except PeerError:
                if error is not None and not isinstance(error, Exception):
                    raise error from None  # Ctrl-C and sys.exit stay what they are on this rank
                raise

    def _end_requests(self, failed: bool) -> None:
        requested, self._requested = self._requested, None
        if requested is not None:
            error = RuntimeError("a peer may be gone") if failed else None
            requested.__exit__(type(error) if error else None, error, None)


class EarlyStopping:
    """Stops when a metric has not improved for `patience` updates in a row; rank 0's value decides for all ranks.

    It has state_dict and load_state_dict: pass it in `rt.checkpointer(state={"early": early})`.

    Attributes:
        best: the best value so far; None before the first one.
        waited: updates since then.
    """

    def __init__(self, group: Group, patience: int, mode: str = "min", min_delta: float = 0.0) -> None:
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ConfigError(f"patience={patience!r} is not a number of updates; pass 1 or more")
        if mode not in ("min", "max"):
            raise ConfigError(f"mode={mode!r}: write min (a loss) or max (an accuracy)")
        if not 0.0 <= min_delta < math.inf:
            raise ConfigError(f"min_delta={min_delta} is not a distance; pass 0 or more")
        self.best: float | None = None
        self.waited = 0
        self._group, self._patience, self._mode, self._min_delta = group, patience, mode, min_delta

    @property
    def stopped(self) -> bool:
        """Whether the last `update` said stop."""
        return self.waited >= self._patience

    def update(self, value: float | torch.Tensor | None) -> bool:
        """Add a value; whether to stop, the same on every rank. Collective; only rank 0's value counts.

        nan is no improvement.

        Raises:
            PeerError: rank 0's value is not a number; on every rank.
        """
        number: float = objects.decide(self._group, float, value)
        if self._improves(number):
            self.best, self.waited = number, 0
        else:
            self.waited += 1
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """The best value and the updates since then."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.best, self.waited = state["best"], int(state["waited"])

    def _improves(self, number: float) -> bool:
        if math.isnan(number):
            return False
        if self.best is None:
            return True
        gain = self.best - number if self._mode == "min" else number - self.best
        return gain > self._min_delta
