"""`dtk ckpt verify`: is every byte what was saved?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.tool.digests import Damage, damages
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome
from dist_toolkit.checkpoint.tool.places import choose, find
from dist_toolkit.checkpoint.tool.records import OTHER, Record, survey
from dist_toolkit.checkpoint.tool.terminal import Progress, Style
from dist_toolkit.checkpoint.tool.units import count_text, printable, size_text
from dist_toolkit.storage import Storage

_MOST = 50  # lines of damage of one checkpoint


@dataclass(frozen=True)
class Verdict:
    """One checkpoint and its damage; `gone` if a run deleted it in the meantime."""

    record: Record
    damage: list[Damage]
    gone: bool = False

    @property
    def whole(self) -> bool:
        """Nothing is wrong with it."""
        return not self.damage


def run(path: str, step: int | None, everything: bool, style: Style) -> Outcome:
    """Verify; exit code 1 if one is damaged, or there is none to verify.

    Raises:
        UsageError: not a directory of checkpoints, or no such step.
    """
    storage, records, left_out = _select(path, step, everything)
    verdicts = verify(storage, records)
    fine = bool(verdicts) and all(verdict.whole for verdict in verdicts)
    data = {"root": storage.root, "whole": fine, "checkpoints": [to_json(v) for v in verdicts]}
    lines = [line for verdict in verdicts for line in to_lines(verdict, style)]
    foreign = sum(record.is_foreign for record in records)
    bad = sum(not verdict.whole for verdict in verdicts) - foreign
    summary = f"{count_text(len(verdicts) - foreign, 'checkpoint')} verified, {bad or 'none'} damaged"
    if foreign:
        summary += f", {foreign} of another format not verified"
    if not verdicts:
        summary = "there is no committed checkpoint to verify"
    if left_out:
        summary += f"; {left_out} set aside not looked at (--all)"
    return Outcome(FINE if fine else FOUND, data, [*lines, summary if fine else style.bad(summary)])


def verify(storage: Storage, records: list[Record]) -> list[Verdict]:
    """A verdict for each, with progress on stderr."""
    verdicts = []
    with Progress(sum(record.size for record in records if record.manifest)) as progress:
        for record in records:
            if record.manifest is None:
                verdicts.append(Verdict(record, [_of_record(record)]))
                continue
            progress.begin(record.folder)
            found = damages(storage, record.folder, record.manifest, progress.advance)
            gone = bool(found) and record.folder not in storage.list()
            verdicts.append(Verdict(record, [] if gone else found, gone))
    return verdicts


def to_json(verdict: Verdict) -> dict[str, Any]:
    """What is printed of one with --json."""
    record = verdict.record
    return {
        "folder": record.folder,
        "step": record.step,
        "whole": verdict.whole,
        "deleted_meanwhile": verdict.gone,
        "size": record.size,
        "damage": [{"file": d.file, "tensor": d.tensor or None, "reason": d.reason} for d in verdict.damage],
    }


def to_lines(verdict: Verdict, style: Style) -> list[str]:
    """One line, and one for each damage."""
    record, m = verdict.record, verdict.record.manifest
    if verdict.gone:
        return [f"{record.folder}  {style.dim('deleted by a run in the meantime')}"]
    if record.is_foreign:
        return [f"{record.folder}  {style.bad(f'{OTHER}: {record.damage}')}"]
    if verdict.damage:
        listed = [f"  {printable(str(damage))}" for damage in verdict.damage[:_MOST]]
        if len(verdict.damage) > _MOST:
            listed.append(f"  ... {len(verdict.damage) - _MOST} more (--json lists all)")
        return [f"{record.folder}  {style.bad('DAMAGED')}", *listed]
    held = f"{count_text(len(m.tensors), 'tensor')} in {count_text(len(m.files), 'file')}" if m else ""
    return [f"{record.folder}  {style.good('whole')}  {size_text(record.size)}, {held}"]


def _select(path: str, step: int | None, everything: bool) -> tuple[Storage, list[Record], int]:
    """What to verify, and how many set aside are left out."""
    place = find(path)
    if place.folder or step is not None:
        storage, record = choose(path, step)
        return storage, [record], 0
    records = survey(place.storage)
    aside = [record for record in records if record.suffix == ".aside"]
    chosen = [record for record in records if record.counts or (everything and record in aside)]
    return place.storage, chosen, 0 if everything else len(aside)


def _of_record(record: Record) -> Damage:
    """The damage of a record that cannot be used; it begins with the name of the file."""
    if not record.damage:
        return Damage(MANIFEST, "", "is missing: the save was not committed")
    return Damage(MANIFEST, "", record.damage.removeprefix(MANIFEST).removeprefix(":").strip())
