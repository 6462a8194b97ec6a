"""The ranks of this node that left no record, because torchrun ended them before their bootstrap ran. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dtk_launch.diagnose.evidence import RankEnd, signal_name, told_to_end
from dtk_launch.rank_files import RankRecord

_REPORT = re.compile(r"rank\s*: (\d+) \(local_rank: (\d+)\)\s+exitcode\s*: (-?\d+) \(pid: (\d+)\)")

Where = tuple[str, str, int]
"""Node, its host, and now (Unix time in ns)."""


def unrecorded_ends(
    records: Mapping[int, RankRecord], nproc: int, launcher_output: str, one_node: bool, where: Where
) -> list[RankEnd]:
    """The ends of those of this node's `nproc` ranks that are not in `records`, as seen from `where`.

    What torchrun reports of them counts. Empty where nothing tells which ranks this node has.
    """
    reported = {
        int(rank): (int(local), int(code), int(pid)) for rank, local, code, pid in _REPORT.findall(launcher_output)
    }
    firsts = [record.rank - record.local_rank for record in records.values()]
    firsts += [rank - local for rank, (local, _, _) in reported.items()]
    first = 0 if one_node else min(firsts, default=None)
    if first is None:
        return []
    told = told_to_end(launcher_output)
    missing = [rank for rank in range(first, first + nproc) if rank not in records]
    return [_end(rank, reported.get(rank), told, where) for rank in missing]


def _end(rank: int, reported: tuple[int, int, int] | None, told: set[int], where: Where) -> RankEnd:
    _, code, pid = reported or (0, None, None)
    name = signal_name(-code) if code is not None and code < 0 else None
    shown = 128 - code if code is not None and code < 0 else code
    return RankEnd(rank, *where[:2], pid, where[2], shown, signal=name, told=pid in told, recorded=False)
