"""Parameters that got no gradient at the first step, by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dist_toolkit.process_group import Group

_LOG = logging.getLogger("dist_toolkit")


def warn_of_unused(names: Sequence[str], group: Group) -> None:
    """Log the names, once; rank 0 speaks for all. Local."""
    if names and group.world.is_main:
        _LOG.warning(
            "%d parameters got no gradient at the first step, and are not trained: %s", len(names), listed(names)
        )


def listed(names: Sequence[str], most: int = 8) -> str:
    """The names, at most `most` of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
