"""The checkpointer that a script holds: it restores, counts the steps, saves, and stops on preemption."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from dist_toolkit.checkpoint.catalog import Retention, committed_checkpoints, delete
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.restore import restore_checkpoint
from dist_toolkit.checkpoint.save import save_checkpoint
from dist_toolkit.errors import ConfigError, PeerError, Preempted, StateMismatch
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage

_LOG = logging.getLogger("dist_toolkit")


class StopSource(Protocol):
    """Where requests to stop come from."""

    def poll(self) -> bool:
        """Whether all ranks are to stop after this step. Collective."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *exception: Any) -> None: ...


class Batches(Protocol):
    """A loader: iterating gives one epoch."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Checkpointer:
    """Saves and restores the parts of a run in one directory.

    Attributes:
        step: optimizer steps done, as far as this object has counted; in the loop of `steps`, the one being done.
    """

    def __init__(
        self,
        storage: Storage,
        group: Group,
        parts: Sequence[Part],
        *,
        every: int | None = None,
        retention: Retention | None = None,
        waive: Collection[str] = (),
        stop: StopSource,
    ) -> None:
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ConfigError(f"every={every} is not a positive number of steps")
        retention = retention or Retention()
        if retention.keep_last is not None and retention.keep_last < 1:
            raise ConfigError(
                f"keep_last={retention.keep_last} would keep nothing; pass at least 1, or None to keep all"
            )
        if isinstance(waive, str):
            raise ConfigError(f"waive={waive!r} is a string; pass a list of names: waive=[{waive!r}]")
        unknown = set(waive) - {part.name for part in parts}
        if unknown:
            raise ConfigError(
                f"waive names {', '.join(sorted(unknown))}; the parts are {', '.join(part.name for part in parts)}"
            )
        self.step = 0
        self._storage, self._group, self._parts = storage, group, parts
        self._every, self._retention, self._waive = every, retention, tuple(waive)
        self._stop = stop
        self._metrics: dict[str, float] = {}
        self._saved_step: int | None = None
        self._knows_the_run = False
        self._saved_metrics: dict[str, float] = {}

    @property
    def root(self) -> str:
        """The checkpoint directory."""
        return self._storage.root

    def save(self, step: int | None = None) -> None:
        """Write a checkpoint of `step` (default: the current one), then delete what retention gives up. Collective.

        In the loop of `steps`, call it after `engine.step()`. Checkpoints of later steps, left behind by a run that
        went back, are renamed to `step-N.aside`.

        Raises:
            ConfigError: a negative step.
            PeerError: some rank could not write; on every rank. The checkpoints that were there are still there.
        """
        step = self.step if step is None else step
        if not isinstance(step, int) or step < 0:
            raise ConfigError(f"step={step!r} is not a number of steps; pass 0 or more")
        metrics = {**(self._saved_metrics if step == self._saved_step else {}), **self._metrics}
        with self._group.watched("checkpointer.save"):
            if not self._knows_the_run:
                self._refuse_another_run()
            save_checkpoint(self._storage, self._group, self._parts, step, metrics)
        self._saved_step, self._saved_metrics, self._metrics = step, metrics, {}
        self._prune()

    def restore(self, step: int | None = None) -> int | None:
        """Go back to the newest whole checkpoint (or that of `step`); its step, or None if there is none. Collective.

        Raises:
            CheckpointNotFound, AllCheckpointsCorrupt, StateMismatch, StorageNotShared: nothing was installed.
        """
        with self._group.watched("checkpointer.restore"):
            manifest = restore_checkpoint(self._storage, self._group, self._parts, step, self._waive)
        self._knows_the_run = True
        if manifest is None:
            return None
        self.step = self._group.step = manifest.step
        if self._group.world.is_main:
            ranks = manifest.world_size
            ignored = sorted(set(manifest.values) - {part.name for part in self._parts})
            if ignored:
                _LOG.warning("the checkpoint also holds %s, which this run does not go on with", ", ".join(ignored))
            _LOG.info("restored step %d from %s", manifest.step, self.root)
            if ranks != self._group.world.world_size:
                _LOG.info(
                    "saved on %d ranks, resumed on %d: the same sample order, new random streams (dropout)",
                    ranks, self._group.world.world_size,
                )  # fmt: skip
        return manifest.step

    def report(self, **metrics: float) -> None:
        """Note metrics (the same on every rank) of the state that the next save writes; `keep_best` goes by them."""
        self._metrics.update({name: float(value) for name, value in metrics.items()})

    def steps(
        self, loader: Batches, until: int | None = None, *, epochs: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """The training loop: pairs (step, batch), step counting from 1 over restarts and epochs. Collective.

        Restores first. Saves after each `every`-th step and after the last. When a preemption was requested on any
        rank, all ranks save the same step and leave the program with exit code 75.

        Args:
            until: the last step; or
            epochs: that many passes over `loader`.

        Raises:
            ConfigError: neither or both of `until` and `epochs`, or a loader without batches.
            Preempted: saved after a request to stop (a SystemExit).
        """
        if (until is None) == (epochs is None):
            raise ConfigError("pass one of until=STEPS and epochs=N")
        if not getattr(loader, "train", True):
            raise ConfigError(
                "this loader starts from the first sample each time, and so would a resume; pass train=True"
            )
        last = until if epochs is None else _steps_of(loader, epochs)
        with self._stop:
            self.restore()
            if last is None:
                yield from self._passes(loader, epochs or 0)
            while last is not None and self.step < last:
                yield from self._epoch(loader, last)

    def _epoch(self, loader: Batches, last: int) -> Iterator[tuple[int, Any]]:
        before = self.step
        for batch in loader:
            self._count()
            yield self.step, batch
            self._after_step(last)
            if self.step >= last:
                return
        if self.step == before:
            raise ConfigError("the loader gives no batch: there is nothing to train on")

    def _passes(self, loader: Any, epochs: int) -> Iterator[tuple[int, Any]]:
        """Epochs of a loader whose length only reading tells; its own count of epochs is what is resumed."""
        while loader.epoch < epochs:
            before = self.step
            for batch in loader:
                if loader.epoch >= epochs:  # resumed at the very end of the last epoch
                    break
                self._count()
                yield self.step, batch
                self._after_step(None)
            if self.step == before == 0:
                raise ConfigError("the loader gives no batch: there is nothing to train on")
        if self._saved_step != self.step:
            self.save()

    def _count(self) -> None:
        self.step += 1
        self._group.step = self.step

    def _after_step(self, last: int | None) -> None:
        due = self.step == last or (self._every is not None and self.step % self._every == 0)
        stop = self._stop.poll()
        if due or stop:  # also when the body has saved this step: that may have been before its update
            self.save()
        if stop and self.step != last:
            if self._group.world.is_main:
                _LOG.warning(
                    "preempted: step %d is saved in %s; start the same command again to go on", self.step, self.root
                )
            raise Preempted(self.step)

    def _refuse_another_run(self) -> None:
        """Before a first save without a restore: what a restore would refuse, a changed strategy, in the same words."""
        error = None
        if self._group.world.is_main:
            marks = [part for part in self._parts if part.name.rpartition(".")[2] == "strategy"]
            try:
                found = [entry.manifest for entry in committed_checkpoints(self._storage) if entry.manifest is not None]
                for part in marks if found else ():
                    if part.name in found[0].values and part.name not in self._waive:
                        part.template({}, found[0].values[part.name])
            except OSError:
                error = None  # the save itself will say it
            except StateMismatch as caught:
                error = str(caught)
        error = self._group.broadcast_json(error)
        if error is not None:
            raise StateMismatch("strategy", error)
        self._knows_the_run = True

    def _prune(self) -> None:
        """Only after a commit; a failure to delete loses nothing, but every rank hears of it."""
        error = None
        if self._group.world.is_main:
            try:
                for entry in self._retention.surplus(committed_checkpoints(self._storage)):
                    delete(self._storage, entry)
            except OSError as caught:
                error = f"{type(caught).__name__}: {caught}"
        failure = self._group.broadcast_json(error)
        if failure is not None:
            raise PeerError("deleting old checkpoints", {0: failure})


def _steps_of(loader: Batches, epochs: int) -> int | None:
    """Steps of so many passes; None where only reading tells."""
    try:
        return epochs * len(loader)
    except TypeError:
        if not hasattr(loader, "epoch"):
            raise
        return None


def retention_from(keep_last: int | None, keep_best: str | None) -> Retention:
    """Retention from the arguments of `rt.checkpointer`; `keep_best` is `max:NAME`, `min:NAME`, or NAME for max.

    Raises:
        ConfigError: another prefix, or no name.
    """
    mode, _, name = ("max", "", keep_best) if keep_best is None or ":" not in keep_best else keep_best.partition(":")
    if mode not in ("max", "min") or name == "":
        raise ConfigError(f"keep_best={keep_best!r}: write max:METRIC or min:METRIC")
    return Retention(keep_last, name, mode == "max")
