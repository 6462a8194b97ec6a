"""`dtk ckpt prune`: delete checkpoints by the rules of retention."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dist_toolkit.checkpoint.catalog import Committed, committed_checkpoints, delete
from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.retention import retention_from
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome, UsageError
from dist_toolkit.checkpoint.tool.places import directory
from dist_toolkit.checkpoint.tool.records import OTHER, Record, read
from dist_toolkit.checkpoint.tool.terminal import Style
from dist_toolkit.checkpoint.tool.units import columns, count_text, metrics_text, size_text, when_text
from dist_toolkit.checkpoint.tool.verify import verify
from dist_toolkit.errors import ConfigError, DirectoryInUse
from dist_toolkit.storage import Storage


@dataclass(frozen=True)
class Rules:
    """What is to stay, in the words of the command line."""

    keep_last: int
    keep_every: int | None = None
    keep_best: str | None = None
    verify: bool = False


@dataclass(frozen=True)
class Plan:
    """What goes, what stays, and what stays because it is damaged; newest first. `records` has all by folder."""

    goes: Sequence[Committed]
    stays: Sequence[Record]
    damaged: Sequence[Record]
    records: dict[str, Record]

    @property
    def freed(self) -> int:
        """Bytes of what goes."""
        return sum(self.records[entry.folder].size for entry in self.goes)


def run(root: str, rules: Rules, dry_run: bool, agree: Callable[[list[str], str], bool], style: Style) -> Outcome:
    """Decide, ask, delete. `agree` is shown the plan and the question, and may raise UsageError.

    Exit code 1 if a damaged one was found, which stays and does not count.

    Raises:
        UsageError: not a directory of checkpoints, a run saves in it, or rules that cannot be.
    """
    storage = directory(root)
    owner = None if dry_run else storage.claim(_who(), 0.0, take_over=False)
    if owner is not None:
        raise UsageError(str(DirectoryInUse(storage.root, owner)))
    try:
        return _run(storage, rules, dry_run, agree, style)
    finally:
        if not dry_run:
            storage.release()


def _who() -> str:
    return f"dtk ckpt prune (process {os.getpid()} on {socket.gethostname()})"


def _run(
    storage: Storage, rules: Rules, dry_run: bool, agree: Callable[[list[str], str], bool], style: Style
) -> Outcome:
    decided = plan(storage, rules)
    lines = to_lines(storage.root, decided, style)
    deleted: list[str] = []
    question = f"delete {count_text(len(decided.goes), 'checkpoint')} ({size_text(decided.freed)}) for good?"
    if decided.goes and not dry_run and agree(lines, question):
        deleted = [entry.folder for entry in decided.goes if _delete(storage, entry)]
    lines.append(_summary(decided, deleted, dry_run))
    data = {
        "root": storage.root,
        "dry_run": dry_run,
        "goes": [_row(decided.records[entry.folder]) for entry in decided.goes],
        "stays": [_row(record) for record in decided.stays],
        "damaged": [{**_row(record), "damage": record.damage} for record in decided.damaged],
        "freed": decided.freed,
        "deleted": deleted,
    }
    return Outcome(FOUND if decided.damaged else FINE, data, lines)


def plan(storage: Storage, rules: Rules) -> Plan:
    """What the rules say. A damaged checkpoint neither counts nor goes.

    Raises:
        UsageError: rules that cannot be, or a metric that no checkpoint has.
    """
    try:
        retention = retention_from(rules.keep_last, rules.keep_best, rules.keep_every)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    committed = committed_checkpoints(storage)
    records = {entry.folder: read(storage, entry.folder) for entry in committed}
    if rules.verify:
        records = _verified(storage, records)
    trusted = [replace(c, manifest=None) if records[c.folder].damage else c for c in committed]
    if rules.keep_best is not None:
        _check_metric(retention.keep_best or "", trusted)
    goes = retention.surplus(trusted)
    going = {entry.folder for entry in goes}
    stays = [r for r in records.values() if r.folder not in going]
    return Plan(goes, [r for r in stays if not r.damage], [r for r in stays if r.damage], records)


def to_lines(root: str, decided: Plan, style: Style) -> list[str]:
    """One line for each, what stays first."""
    entries = [(record, style.good("stays")) for record in decided.stays]
    entries += [
        (record, style.bad(f"stays, {OTHER if record.is_foreign else 'damaged'}: {record.damage}"))
        for record in decided.damaged
    ]
    entries += [(decided.records[entry.folder], style.bad("goes")) for entry in decided.goes]
    entries.sort(key=lambda row: -row[0].step)
    lines = columns([_cells(record) for record, _ in entries], right={0, 2}, indent="  ")
    width = max(map(len, lines), default=0)
    pairs = zip(lines, entries, strict=True)
    return [f"{root}:", *(f"{line.ljust(width)}  {what}" for line, (_, what) in pairs)]


def _cells(record: Record) -> list[str]:
    m = record.manifest
    about = (when_text(m.created), metrics_text(dict(m.metrics))) if m else ("-", "-")
    return [str(record.step), about[0], size_text(record.size), about[1]]


def _summary(decided: Plan, deleted: list[str], dry_run: bool) -> str:
    if not decided.goes:
        return "nothing to delete"
    if dry_run:
        return f"would delete {count_text(len(decided.goes), 'checkpoint')} ({size_text(decided.freed)}): --dry-run"
    if not deleted:
        return "nothing was deleted"
    freed = sum(decided.records[folder].size for folder in deleted)
    skipped = len(decided.goes) - len(deleted)
    changed = f"; {skipped} changed in the meantime and stayed" if skipped else ""
    return f"deleted {count_text(len(deleted), 'checkpoint')} ({size_text(freed)}){changed}"


def _row(record: Record) -> dict[str, Any]:
    return {"folder": record.folder, "step": record.step, "size": record.size}


def _check_metric(name: str, committed: Sequence[Committed]) -> None:
    """A metric with a typing error would let the best checkpoint go."""
    known = sorted({key for c in committed if c.manifest for key in c.manifest.metrics})
    if name not in known:
        there = f"there are: {', '.join(known)}" if known else "none was saved with metrics"
        raise UsageError(f"--keep-best: no checkpoint has the metric {name!r}; {there}")


def _verified(storage: Storage, records: dict[str, Record]) -> dict[str, Record]:
    """The same, with damage found in any byte."""
    verdicts = verify(storage, [record for record in records.values() if not record.damage])
    found = {v.record.folder: str(v.damage[0]) for v in verdicts if v.damage}
    return {folder: replace(record, damage=found.get(folder, record.damage)) for folder, record in records.items()}


def _delete(storage: Storage, entry: Committed) -> bool:
    """Delete it if it is still what was looked at."""
    try:
        if storage.read_bytes(f"{entry.folder}/{MANIFEST}") != entry.data:
            return False
    except FileNotFoundError:
        return False
    delete(storage, entry)
    return True
