"""Who divides an iterable data set over ranks and workers."""

from __future__ import annotations

import hashlib
import inspect
import logging
from typing import Any, Literal, TypeAlias

from dist_toolkit.data.fetch import is_hugging_face
from dist_toolkit.data.streams import Splitting
from dist_toolkit.errors import ConfigError

_LOG = logging.getLogger("dist_toolkit")

Sharded: TypeAlias = bool | Literal["workers"] | None
"""What the user says of an iterable data set: True: it divides itself by rank and by worker; "workers": by torch's
get_worker_info alone; False: it does not divide itself, and gives every reader the same; None: find out."""


def choose_splitting(dataset: Any, sharded: Sharded, world_size: int) -> Splitting:
    """How to divide `dataset`.

    Raises:
        ConfigError: `sharded` is none of its values.
    """
    if sharded not in (None, True, False, "workers"):
        raise ConfigError(f"sharded={sharded!r} is unknown; pass True, False, 'workers' or None")
    if sharded is not None:
        return "workers" if sharded == "workers" else "itself" if sharded else "items"
    if is_hugging_face(dataset) and getattr(dataset, "_distributed", None) is not None:
        return "itself"  # the user called split_dataset_by_node
    shards = getattr(dataset, "num_shards", None)
    if isinstance(shards, int) and (shards == 1 or shards % world_size):
        return "items"
    if is_hugging_face(dataset):
        return "workers"
    return "shards" if _takes_index_and_count(dataset) else "items"


def say_what_is_lost(dataset: Any, splitting: Splitting, train: bool, readers: int) -> None:
    """Log what a way of dividing costs, and which guarantee it does not give."""
    name = type(dataset).__name__
    if splitting == "items" and readers > 1:
        _LOG.info(
            "%s is not divided into shards: each of %d readers reads all of it and keeps its share", name, readers
        )
    if splitting != "items" and train:
        _LOG.warning(
            "%s divides itself: the order of its samples depends on the number of ranks, so a resume needs as many",
            name,
        )


def shuffle_digest(dataset: Any) -> str:
    """What stands for the shuffling of a Hugging Face stream, so that ranks and resumes can be compared; else ''."""
    states = []
    part = getattr(dataset, "_ex_iterable", None) if is_hugging_face(dataset) else None
    while part is not None:
        bits = getattr(getattr(part, "generator", None), "bit_generator", None)
        if bits is not None:
            states.append(repr(bits.state))
        part = getattr(part, "ex_iterable", None)
    return hashlib.blake2b("".join(states).encode(), digest_size=6).hexdigest() if states else ""


def _takes_index_and_count(dataset: Any) -> bool:
    shard = getattr(dataset, "shard", None)
    if not callable(shard):
        return False
    try:
        names = set(inspect.signature(shard).parameters)
    except (TypeError, ValueError):
        return False
    return {"index", "count"} <= names
