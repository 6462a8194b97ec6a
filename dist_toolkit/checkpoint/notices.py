"""What a checkpointer tells the people who read the log: once, by rank 0."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from dist_toolkit.checkpoint.layout import CONVERTED
from dist_toolkit.checkpoint.manifest import Manifest

_LOG = logging.getLogger("dist_toolkit")


class Notices:
    """Those of one checkpointer; on other ranks than 0, silence."""

    def __init__(self, root: str, is_main: bool) -> None:
        self._root, self._is_main = root, is_main
        self._warned: set[str] = set()

    def restored(self, manifest: Manifest, names: Collection[str], ranks: int) -> None:
        """What was restored on so many ranks into the parts of these names, and what does not go on as it was."""
        if not self._is_main:
            return
        ignored = sorted(set(manifest.values) - set(names))
        if ignored:
            _LOG.warning("the checkpoint also holds %s, which this run does not go on with", ", ".join(ignored))
        _LOG.info("restored step %d from %s", manifest.step, self._root)
        if manifest.values.get("strategy") == {"name": CONVERTED}:
            _LOG.info("it was converted from another program's: new random streams (dropout)")
        elif manifest.world_size != ranks:
            _LOG.info(
                "saved on %d ranks, resumed on %d: the same sample order, new random streams (dropout)",
                manifest.world_size, ranks,
            )  # fmt: skip

    def unsaved(self, step: int) -> None:
        """The loop was left before its end."""
        if self._is_main:
            _LOG.info("the loop was left at step %d, which is not saved; call save() after it to keep it", step)

    def preempted(self, step: int) -> None:
        """The program is left at a step that is saved, or before the first one."""
        if self._is_main and step:
            _LOG.warning("preempted: step %d is saved in %s; started again, it goes on from there", step, self._root)
        elif self._is_main:
            _LOG.warning("preempted before the first step; started again, it begins")

    def differing(self, names: Iterable[str]) -> None:
        """The states of these names are not the same on every rank."""
        for name in names:
            self.warn_once(
                f"state {name}",
                f"the state of {name!r} is not the same on every rank; that of rank 0 is saved, and a restore gives it "
                "to all: bring it together first (rt.gather, rt.mean)",
            )

    def warn_once(self, kind: str, words: str) -> None:
        """A warning, unless there was one of this kind."""
        if self._is_main and kind not in self._warned:
            self._warned.add(kind)
            _LOG.warning("%s", words)
