"""The checkpointer that a script holds: it restores, counts the steps, saves, and stops on preemption."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from dist_toolkit.checkpoint.another_run import refuse_another_run
from dist_toolkit.checkpoint.background import Background
from dist_toolkit.checkpoint.collection import collection_put_off
from dist_toolkit.checkpoint.directory import claim, prune
from dist_toolkit.checkpoint.loop import Batches, Loop
from dist_toolkit.checkpoint.notices import Notices
from dist_toolkit.checkpoint.parts import Part
from dist_toolkit.checkpoint.plan import SavePlans
from dist_toolkit.checkpoint.reported import as_numbers
from dist_toolkit.checkpoint.restore import restore_checkpoint
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.checkpoint.save import write_snapshot
from dist_toolkit.checkpoint.schedule import Schedule
from dist_toolkit.checkpoint.snapshot import Snapshot, take_snapshot
from dist_toolkit.checkpoint.staging import Lacking, Staging
from dist_toolkit.checkpoint.stop import StopSource
from dist_toolkit.errors import (
    CheckpointError,
    ConfigError,
    Preempted,
)
from dist_toolkit.process_group import Group
from dist_toolkit.storage import Storage

_LAST_WAIT = 60.0  # seconds that a failed program waits for a save that was under way


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
        schedule: Schedule | None = None,
        retention: Retention | None = None,
        waive: Collection[str] = (),
        background: bool = True,
        stop: StopSource,
        progress: Callable[[], Sequence[int]] = tuple,
        note_goal: Callable[[int, int | None], None] = lambda step, until: None,
    ) -> None:
        if isinstance(waive, str):
            raise ConfigError(f"waive={waive!r} is a string; pass a list of names: waive=[{waive!r}]")
        unknown = set(waive) - {part.name for part in parts}
        if unknown:
            raise ConfigError(
                f"waive names {', '.join(sorted(unknown))}; the parts are {', '.join(part.name for part in parts)}"
            )
        self.step = 0
        self._storage, self._group, self._parts = storage, group, parts
        self._schedule, self._retention = schedule or Schedule(None), retention or Retention()
        self._waive, self._in_background, self._stop = tuple(waive), background, stop
        self._plans, self._staging = SavePlans(), Staging()
        self._background = Background("dist_toolkit checkpoint")
        self._side: Group | None = None
        self._metrics: dict[str, float] = {}
        self._saved_step: int | None = None
        self._saved_metrics: dict[str, float] = {}
        self._knows_the_run = self._has_restored = self._has_claim = self._in_steps = False
        self._notices = Notices(storage.root, group.world.is_main)
        self._progress, self._kept = progress, list(progress())
        self._note_goal = note_goal

    @property
    def root(self) -> str:
        """The checkpoint directory."""
        return self._storage.root

    @property
    def is_current(self) -> bool:
        """Whether no engine has taken a step that is not in a committed checkpoint: nothing would be lost now."""
        progress = list(self._progress())
        return bool(progress) and progress == self._kept and not self._background.is_busy

    def save(self, step: int | None = None, *, wait: bool = True) -> None:
        """Write a checkpoint of `step` (default: the current one), then delete what retention gives up. Collective.

        In the loop of `steps`, call it after `engine.step()`. Checkpoints of later steps, left behind by a run that
        went back, are renamed to `step-N.aside` once it is committed.

        Args:
            wait: until it is committed. False: only until the state is copied; the rest is done in the background, and
                a failure is raised by the next call of this object's, or the end of the next step of `steps`.

        Raises:
            ConfigError: a negative step.
            DirectoryInUse: another program saves in this directory.
            StateMismatch: a first save, nothing restored, where the newest checkpoint is of another model or strategy.
            PeerError: some rank could not write; on every rank. The checkpoints that were there are still there.
            Preempted: outside `steps`: saved and waited for, after a request to stop.
        """
        with self._stop.noting():
            self._save(step, wait)
            if wait:
                self._leave_if_asked()

    def _save(self, step: int | None, wait: bool) -> None:
        step = self.step if step is None else step
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise ConfigError(f"step={step!r} is not a number of steps; pass 0 or more")
        self.wait()
        began = time.monotonic()
        if not self._in_steps:
            self.step = step  # a loop of the script's own
        metrics = {**(self._saved_metrics if step == self._saved_step else {}), **self._metrics}
        with self._group.watched("checkpointer.save"):
            self._claim()
            snapshot = take_snapshot(self._group, self._parts, self._plans, step, metrics)
            if not self._knows_the_run:
                compared = () if self._has_restored else self._parts
                refuse_another_run(self._storage, self._group, compared, snapshot.plan, self._waive)
                self._knows_the_run = True
            self._notices.differing(snapshot.differing)
            if wait:
                self._write(self._group, snapshot)
            else:
                self._start(snapshot)
        self._saved_step, self._saved_metrics, self._metrics = step, metrics, {}
        self._kept = list(self._progress())
        stall = time.monotonic() - began
        if self._schedule.needs_duration:
            self.wait()
        self._schedule.saved(step, stall, self._group)

    def wait(self) -> None:
        """Until the save in the background, if there is one, is committed. Collective.

        Raises:
            PeerError, StorageNotShared: it failed, on every rank.
        """
        if self._background.is_busy:
            try:
                self._background.wait()
            except BaseException:
                self._saved_step = None
                raise
            self._schedule.took(self._background.seconds)

    def close(self, failed: bool = False) -> None:
        """Wait for a save in the background, and give back what this object holds. Collective unless `failed`."""
        try:
            if not failed:
                self.wait()
            else:
                with suppress(Exception):
                    self._background.wait(_LAST_WAIT)
        finally:
            side, self._side = self._side, None
            if side is not None:
                side.close(failed)
            if self._has_claim and self._group.world.is_main:
                self._storage.release()
            self._has_claim = False

    def restore(self, step: int | None = None) -> int | None:
        """Go back to the newest whole checkpoint (or that of `step`); its step, or None if there is none. Collective.

        What was reported since the last save is forgotten.

        Raises:
            CheckpointNotFound, AllCheckpointsCorrupt, StateMismatch, StorageNotShared: nothing was installed.
            Preempted: outside `steps`, after a request to stop.
        """
        with self._stop.noting():
            restored = self._restore(step)
            self._leave_if_asked()
        return restored

    def _restore(self, step: int | None) -> int | None:
        if step is not None and (not isinstance(step, int) or isinstance(step, bool)):
            raise ConfigError(f"step={step!r} is not a number of steps")
        self.wait()
        with self._group.watched("checkpointer.restore"), collection_put_off():
            manifest = restore_checkpoint(self._storage, self._group, self._parts, step, self._waive)
        self._has_restored = True
        self._knows_the_run |= step is None  # with a step the others were not looked at
        self._metrics = {}  # of a state that is gone
        self._kept = list(self._progress())
        if manifest is None:
            return None
        self.step = self._group.step = self._saved_step = manifest.step
        self._saved_metrics = dict(manifest.metrics)
        self._notices.restored(manifest, {part.name for part in self._parts}, self._group.world.world_size)
        return manifest.step

    def report(self, **metrics: float) -> None:
        """Note metrics (the same on every rank) of the state that the next save writes; `keep_best` goes by them.

        Raises:
            ConfigError: one is no number; none is noted.
        """
        self._metrics.update(as_numbers(metrics))

    def steps(
        self, loader: Batches, until: int | None = None, *, epochs: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """The training loop: pairs (step, batch), step counting from 1 over restarts and epochs. Collective.

        Restores first, unless this object has restored already. Saves after each `every`-th step and after the last.
        When a preemption was requested on any rank, all ranks save the same step and leave the program with exit code
        75. After a `break`, call `save()`: nothing is saved by itself then. Called again, it goes on from the state as
        it is; after an exception in the middle of a step, `restore()` first.

        Args:
            until: the last step; or
            epochs: that many passes over `loader`.

        Raises:
            ConfigError: neither or both of `until` and `epochs`, or a loader without batches.
            Preempted: saved after a request to stop (a SystemExit).
        """
        loop = Loop(self, loader, until, epochs)
        with self._stop:
            self._in_steps = True
            try:
                with self._group.watched("checkpointer.steps"):
                    self._claim()
                if not self._has_restored:
                    self.restore()
                self._schedule.start(self.step)
                if self._group.world.is_main:
                    self._note_goal(self.step, loop.last)
                yield from loop.run()
            except GeneratorExit:
                if not self.is_saved():
                    self._notices.unsaved(self.step)
                raise
            finally:
                self._in_steps = False
            self._leave_if_asked()  # in the last step, too late for its poll

    def _leave_if_asked(self) -> None:
        """Outside the loop, which asks for itself: leave with all ranks, as nothing is unsaved."""
        if not self._in_steps and self._stop.asked_by_now():
            self.leave()

    def leave(self) -> NoReturn:
        """Leave the program with all ranks, as the current step is saved; `steps` does this."""
        self._notices.preempted(self.step)
        raise Preempted(self.step)

    def begin_step(self) -> None:
        """Count a step; `steps` does this."""
        self.step += 1
        self._group.step = self.step

    def end_step(self, last: bool) -> bool:
        """After a step: save if that is due; whether all ranks are to stop. Collective; `steps` does this."""
        self._schedule.stepped()
        asked = self._stop.poll(self._background.has_failed)
        if asked.trouble:
            self.wait()  # raises where it failed
            raise CheckpointError("a save in the background failed on another rank, which says why")
        if last or asked.stop or self._schedule.is_due(self.step):
            # also when the body has saved this step: that may have been before its update, so it is replaced at once
            self.save(wait=last or asked.stop or self.is_saved() or not self._in_background)
        return bool(asked.stop)

    def is_saved(self) -> bool:
        """Whether the current step was the last to be saved or restored."""
        return self._saved_step == self.step

    def _start(self, snapshot: Snapshot) -> None:
        """Copy the state, and write the copies in the background."""
        if self._side is None:
            self._side = self._group.side_channel()
        side = self._side
        try:
            held = replace(snapshot, data=self._staging.hold(snapshot.data))
        except Exception as error:  # no memory, on one rank only: all hear of it where the file would be written
            held = replace(snapshot, data=Lacking(error))
        self._background.start(lambda: self._write(side, held))

    def _write(self, group: Group, snapshot: Snapshot) -> None:
        write_snapshot(self._storage, group, snapshot)
        prune(self._storage, group, self._retention, self._notices.warn_once)

    def _claim(self) -> None:
        if not self._has_claim:
            claim(self._storage, self._group)
            self._has_claim = True
