"""What the ranks' reports prove. Pure: reports in, a finding out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dist_toolkit.errors import DesyncError
from dist_toolkit.guard.report import ENDED_BADLY, ENDED_WELL, Report

Row = tuple[int, str | None, str, int]
"""Rank, operation, `file:line`, step."""

_BRIEF = 3.0
"""Seconds of waiting that are not worth a word."""

_SHOWN = 16
"""Ranks in the table of a report; the others are counted."""


@dataclass(frozen=True)
class Verdict:
    """Proof that the ranks went apart.

    Attributes:
        reason: one sentence.
        rows: where each rank is, by rank.
        ranks: those that differ from the others.
    """

    reason: str
    rows: tuple[Row, ...]
    ranks: tuple[int, ...]

    def error(self) -> DesyncError:
        """As the exception that every rank raises."""
        return DesyncError(self.reason, self.rows, self.ranks)

    def to_json(self) -> str:
        """One line."""
        return json.dumps([self.reason, self.rows, self.ranks])

    @classmethod
    def from_json(cls, text: str | bytes) -> Verdict:
        """The verdict that `to_json` wrote."""
        reason, rows, ranks = json.loads(text)
        return cls(reason, tuple((r, operation, site, step) for r, operation, site, step in rows), tuple(ranks))


def judge(reports: Mapping[int, Report]) -> Verdict | None:
    """The earliest proof that the ranks went apart, or None.

    Proofs: two ranks entered different operations as their n-th one; their chains of operations differ; a rank left in
    order while another waits in an operation that it never entered. A rank that has not come yet proves nothing.
    """
    return _mismatch(reports) or _older_mismatch(reports) or _left_behind(reports)


def suspicion(reports: Mapping[int, Report], world_size: int) -> str | None:
    """Who waits, for whom, and where those are: for a warning. None if nobody waits for another rank."""
    waiting = {rank: report for rank, report in reports.items() if report.waiting > _BRIEF}
    if not waiting:
        return None
    furthest = max(waiting.values(), key=lambda report: report.number)
    behind = [rank for rank in range(world_size) if rank not in reports or reports[rank].number < furthest.number]
    if not behind:
        return None
    record = furthest.record(furthest.number)
    what = f"{record.operation} ({record.file}:{record.line}, step {record.step})" if record else "an operation"
    words = ", ".join(_place(rank, reports.get(rank)) for rank in behind[:_SHOWN])
    more = f", and {len(behind) - _SHOWN} more" if len(behind) > _SHOWN else ""
    end = "not an error if that is slow work, a hang if it never comes"
    if " in torch.distributed." in words:
        end = "a hang, if that waits for all ranks too"
    return f"rank {furthest.rank} has waited {furthest.waiting:.0f} s in {what} for {words}{more}; {end}"


def _place(rank: int, report: Report | None) -> str:
    if report is None:
        return f"rank {rank} (which does not answer)"
    if report.ended:
        return f"rank {rank} (which has ended)"
    last = report.record(report.number)
    did = f", {report.quiet:.0f} s after entering {last.operation}" if last else ""
    return f"rank {rank} (at {report.here}{did})"


def _mismatch(reports: Mapping[int, Report]) -> Verdict | None:
    known = [report for report in reports.values() if report.records]
    if len(known) < 2:
        return None
    start = min(report.records[0].number for report in known)
    end = max(report.number for report in known)
    for number in range(start, end + 1):
        entered = {r.rank: found for r in known if (found := r.record(number)) is not None}
        names = Counter(record.operation for record in entered.values())
        if len(names) > 1:
            usual = names.most_common(1)[0][0]
            odd = sorted(rank for rank, record in entered.items() if record.operation != usual)
            words = " and ".join(
                f"{name} on {_ranks([rank for rank, record in entered.items() if record.operation == name])}"
                for name in names
            )
            return Verdict(f"call {number} is {words}", _rows(reports, number), tuple(odd))
    return None


def _older_mismatch(reports: Mapping[int, Report]) -> Verdict | None:
    chains: dict[int, dict[int, int]] = {}
    for rank, report in reports.items():
        told = {**report.marks, **{record.number: record.chain for record in report.records}}
        for number, chain in told.items():
            chains.setdefault(number, {})[rank] = chain
    for number in sorted(chains):
        seen = Counter(chains[number].values())
        if len(seen) > 1:
            usual = seen.most_common(1)[0][0]
            odd = sorted(rank for rank, chain in chains[number].items() if chain != usual)
            reason = f"some call before the {number}th was not the same on {_ranks(odd)} as on the others"
            return Verdict(reason, _rows(reports, None), tuple(odd))
    return None


def _left_behind(reports: Mapping[int, Report]) -> Verdict | None:
    waiting = [report for report in reports.values() if report.waiting]
    if not waiting:
        return None
    furthest = max(waiting, key=lambda report: report.number)
    gone = sorted(r.rank for r in reports.values() if r.ended == ENDED_WELL and r.number < furthest.number)
    record = furthest.record(furthest.number)
    if not gone or record is None:
        return None
    reason = f"{_ranks(gone)} left the run before call {furthest.number}, {record.operation}, in which others wait"
    return Verdict(reason, _rows(reports, furthest.number), tuple(gone))


def _rows(reports: Mapping[int, Report], number: int | None) -> tuple[Row, ...]:
    rows: list[Row] = []
    for rank in sorted(reports)[:_SHOWN]:
        report = reports[rank]
        record = report.record(report.number if number is None else number)
        if record is not None:
            rows.append((rank, record.operation, f"{record.file}:{record.line}", record.step))
        elif report.ended:
            last = report.record(report.number)
            site = f"{last.file}:{last.line}" if last else "?"
            how = "an error" if report.ended == ENDED_BADLY else "in order"
            rows.append((rank, None, f"ended ({how}); last call at {site}", report.step))
        else:
            rows.append((rank, None, f"{report.here} (has not come)", report.step))
    return tuple(rows)


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in sorted(ranks)[:_SHOWN]) + (", ..." if len(ranks) > _SHOWN else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
