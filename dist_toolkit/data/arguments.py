"""What may be passed to a loader: whole numbers, options of torch's loader, and words for those that do not exist."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from dist_toolkit.data.workers import WorkerOptions
from dist_toolkit.errors import ConfigError

_INSTEAD = {
    "batch_size": "use global_batch_size=: samples of one step over all ranks",
    "sampler": "use weights= or batch_sampler=, or rt.shard(DataLoader(..., sampler=...))",
    "generator": "the order and the random numbers follow from init(seed=...)",
    "dataset": "the data set is the first argument",
}


def positive(name: str, given: Any, unit: str) -> int:
    """`given` as an int; NumPy's whole numbers count, True does not.

    Raises:
        ConfigError: it is not a whole number of 1 or more.
    """
    try:
        number = 0 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name}={given!r} is not a positive number{unit}")
    return number


def check_options(names: Iterable[str]) -> None:
    """Refuse an option that torch's loader is not given here: ConfigError, with what to use."""
    known = WorkerOptions.__annotations__
    for name in names:
        if name not in known:
            instead = _INSTEAD.get(name, f"for torch's DataLoader there are {', '.join(known)}")
            raise ConfigError(f"rt.loader has no {name}=; {instead}")
