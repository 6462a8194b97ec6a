"""Which checkpoints stay. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dist_toolkit.checkpoint.catalog import Committed
from dist_toolkit.errors import ConfigError


@dataclass(frozen=True)
class Retention:
    """Which checkpoints to keep: the newest `keep_last` (None: all), the best one by a metric, those of round steps."""

    keep_last: int | None = None
    keep_every: int | None = None
    """Steps that are a multiple of this stay."""
    keep_best: str | None = None
    best_is_max: bool = True

    def surplus(self, committed: Sequence[Committed]) -> list[Committed]:
        """What to delete, of checkpoints sorted newest first. Those with a damaged record neither count nor go."""
        if self.keep_last is None:
            return []
        whole = [c for c in committed if c.manifest is not None]
        kept = {c.folder for c in whole[: max(1, self.keep_last)]}
        if self.keep_every is not None:
            kept |= {c.folder for c in whole if c.step % self.keep_every == 0}
        best = self._best(whole)
        return [c for c in whole if c.folder not in kept and c is not best]

    def never_reported(self, committed: Sequence[Committed]) -> str | None:
        """What to say if the metric of `keep_best` was never reported."""
        seen = {name for c in committed if c.manifest for name in c.manifest.metrics}
        if not self.keep_best or self.keep_best in seen:
            return None
        others = f", but {', '.join(map(repr, sorted(seen)))}" if seen else ""
        return f"{self.keep_best!r} was never given to report(){others}"

    def _best(self, whole: Sequence[Committed]) -> Committed | None:
        """The one with the best finite metric, the oldest of equals."""
        name, sign = self.keep_best or "", 1 if self.best_is_max else -1
        scored = [
            (sign * c.manifest.metrics[name], -c.step, c) for c in whole if c.manifest and name in c.manifest.metrics
        ]
        scored = [entry for entry in scored if math.isfinite(entry[0])]
        return max(scored, key=lambda entry: entry[:2])[2] if scored else None


def retention_from(keep_last: int | None, keep_best: str | None = None, keep_every: int | None = None) -> Retention:
    """Retention from the arguments of `rt.checkpointer`; `keep_best` is `max:NAME` or `min:NAME`.

    Raises:
        ConfigError: a number below 1, `keep_every` without `keep_last`, no prefix or another, or no name.
    """
    if keep_last is not None and (not isinstance(keep_last, int) or isinstance(keep_last, bool)):
        raise ConfigError(f"keep_last={keep_last!r} is not a number of checkpoints; pass 3, say, or None to keep all")
    if keep_last is not None and keep_last < 1:
        raise ConfigError(f"keep_last={keep_last} would keep nothing; pass at least 1, or None to keep all")
    if keep_every is not None and (not isinstance(keep_every, int) or keep_every < 1):
        raise ConfigError(f"keep_every={keep_every!r} is not a positive number of steps")
    if keep_every is not None and keep_last is None:
        raise ConfigError(f"keep_every={keep_every} with keep_last=None: all are kept as it is; pass keep_last=3, say")
    if keep_best is None:
        return Retention(keep_last, keep_every)
    mode, _, name = keep_best.partition(":") if isinstance(keep_best, str) else ("", "", "")
    if mode not in ("max", "min") or name.strip() != name or not name:
        raise ConfigError(f"keep_best={keep_best!r}: write max:METRIC or min:METRIC")
    return Retention(keep_last, keep_every, name, mode == "max")
