"""Lists of ranks as options take them: `3`, `0,2-5`, `others` (all but rank 0), `all`. Pure."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from dtk_launch.errors import PlanError

_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True)
class RankList:
    """Ranks, tested with `in`. Each span is (first, last)."""

    spans: tuple[tuple[int, int], ...] = ()

    def __contains__(self, rank: object) -> bool:
        return isinstance(rank, int) and any(first <= rank <= last for first, last in self.spans)


def parse_ranks(text: str, flag: str, world_size: int | None = None) -> RankList:
    """The ranks that an option names; none for ''. Raises PlanError, also for a rank beyond `world_size`."""
    if text in ("all", "others"):
        return RankList(((int(text == "others"), sys.maxsize),))
    spans = []
    for part in filter(None, text.split(",")) if text.strip(",") else [text] if text else []:
        found = _SPAN.fullmatch(part.strip())
        if found is None:
            raise PlanError(f"{flag}={text}: {part!r} is no rank; pass ranks such as 3 or 0,2-5, or others, or all")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise PlanError(f"{flag}={text}: {part} goes backwards; pass {last}-{first}")
        if world_size is not None and last >= world_size:
            ranks = f"ranks 0 to {world_size - 1}" if world_size > 1 else "rank 0 alone"
            raise PlanError(f"{flag}={text}: there is no rank {last}, this launch has {ranks}; or pass others, or all")
        spans.append((first, last))
    return RankList(tuple(spans))
