"""`dtk ckpt diff`: in what two checkpoints differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dist_toolkit.checkpoint.manifest import TensorEntry
from dist_toolkit.checkpoint.tool.contents import Side, changed_contents
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome, UsageError
from dist_toolkit.checkpoint.tool.places import choose
from dist_toolkit.checkpoint.tool.plain_state import ABSENT, decoded, differences
from dist_toolkit.checkpoint.tool.terminal import Style
from dist_toolkit.checkpoint.tool.units import count_text, printable, value_text, when_text

_MOST = 20  # names of one kind that are shown, unless all are
_WIDTH = 60  # characters of a value


@dataclass(frozen=True)
class Difference:
    """Everything in which the state of B differs from that of A."""

    removed: list[str]
    added: list[str]
    reshaped: list[tuple[str, str, str]]
    changed: list[str]
    same: int
    values: list[tuple[str, Any, Any]]
    metrics: list[tuple[str, Any, Any]]

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return any([self.removed, self.added, self.reshaped, self.changed, self.values, self.metrics])


def run(paths: list[str], steps: list[int], only: list[str], everything: bool, style: Style) -> Outcome:
    """Compare; exit code 1 if the states differ.

    Raises:
        UsageError: not two checkpoints, or one without a usable record.
    """
    a, b = _sides(paths, steps)
    found = compare(a, b, only)
    data = {"a": _side_json(a), "b": _side_json(b), **to_json(found)}
    lines = [f"a: {_side_text(a)}", f"b: {_side_text(b)}", *to_lines(found, None if everything else _MOST, style)]
    return Outcome(FOUND if found.found else FINE, data, lines)


def compare(a: Side, b: Side, only: list[str]) -> Difference:
    """All differences of tensors, values and metrics; with `only`, of names that are or begin with one of these."""
    wanted = _filter(only)
    left = {name: t for name, t in a.manifest.tensors.items() if wanted(name)}
    right = {name: t for name, t in b.manifest.tensors.items() if wanted(name)}
    both = [name for name in left if name in right]
    reshaped = [(n, _kind(left[n]), _kind(right[n])) for n in both if _kind(left[n]) != _kind(right[n])]
    alike = [name for name in both if _kind(left[name]) == _kind(right[name])]
    changed = changed_contents(a, b, alike)
    values = differences(decoded(dict(a.manifest.values)), decoded(dict(b.manifest.values)))
    return Difference(
        removed=[name for name in left if name not in right],
        added=[name for name in right if name not in left],
        reshaped=reshaped,
        changed=changed,
        same=len(alike) - len(changed),
        values=[row for row in values if wanted(row[0])],
        metrics=[] if only else differences(dict(a.manifest.metrics), dict(b.manifest.metrics)),
    )


def to_json(found: Difference) -> dict[str, Any]:
    """What is printed with --json."""
    return {
        "identical": not found.found,
        "removed": found.removed,
        "added": found.added,
        "reshaped": [{"tensor": name, "a": before, "b": after} for name, before, after in found.reshaped],
        "changed": found.changed,
        "same": found.same,
        "values": [_change_json(row) for row in found.values],
        "metrics": [_change_json(row) for row in found.metrics],
    }


def to_lines(found: Difference, most: int | None, style: Style) -> list[str]:
    """What differs, by kind; `most` lines of each."""
    moved = [f"{printable(name)}: {before} -> {after}" for name, before, after in found.reshaped]
    lines = [
        *_block("tensors only in a", [style.bad(f"- {printable(n)}") for n in found.removed], most, style),
        *_block("tensors only in b", [style.good(f"+ {printable(n)}") for n in found.added], most, style),
        *_block("tensors of another type or shape", moved, most, style),
        *_block("tensors with other bytes", [printable(n) for n in found.changed], most, style),
        *_block("other values", [_change(row) for row in found.values], most, style),
        *_block("other metrics", [_change(row) for row in found.metrics], most, style),
    ]
    same = f"{count_text(found.same, 'tensor')} the same"
    return [*lines, same if found.found else f"identical: {same}, and all values"]


def _block(what: str, rows: list[str], most: int | None, style: Style) -> list[str]:
    if not rows:
        return []
    shown = rows if most is None or len(rows) <= most + 1 else rows[:most]
    rest = [f"  ... {len(rows) - len(shown)} more (--all)"] if len(shown) < len(rows) else []
    return [style.bold(f"{what} ({len(rows)})"), *(f"  {row}" for row in shown), *rest]


def _change(row: tuple[str, Any, Any]) -> str:
    before, after = ("absent" if value is ABSENT else value_text(value, _WIDTH) for value in row[1:])
    return f"{printable(row[0])}: {before} -> {after}"


def _change_json(row: tuple[str, Any, Any]) -> dict[str, Any]:
    """`a` or `b` is left out where the value is absent."""
    return {"path": row[0], **{side: v for side, v in zip("ab", row[1:], strict=True) if v is not ABSENT}}


def _kind(tensor: TensorEntry) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"


def _filter(only: list[str]) -> Callable[[str], bool]:
    """Whether a dotted name is one of these or below one of them; with none, every name."""
    prefixes = [prefix.rstrip(".") for prefix in only]
    return lambda name: not only or any(name == p or name.startswith(f"{p}.") for p in prefixes)


def _sides(paths: list[str], steps: list[int]) -> tuple[Side, Side]:
    """A and B from one or two paths and up to two steps."""
    if len(steps) > 2:
        raise UsageError(f"--step is given {len(steps)} times; a difference is between two checkpoints")
    if len(paths) == 1 and len(steps) < 2:
        raise UsageError("one directory needs two steps to compare: add --step M --step N, or name a second checkpoint")
    both = (steps * 2)[:2] if steps else [None, None]
    return _side(paths[0], both[0]), _side(paths[-1], both[1])


def _side(path: str, step: int | None) -> Side:
    storage, record = choose(path, step)
    if record.manifest is None:
        why = record.damage or f"{record.state}, it has no record"
        raise UsageError(f"{storage.root}/{record.folder} cannot be compared: {why}")
    return Side(storage, record.folder, record.manifest)


def _side_json(side: Side) -> dict[str, Any]:
    m = side.manifest
    return {"root": side.storage.root, "folder": side.folder, "step": m.step, "world_size": m.world_size}


def _side_text(side: Side) -> str:
    m = side.manifest
    ranks = count_text(m.world_size, "rank")
    return f"{side.storage.root}/{side.folder}  step {m.step}, {when_text(m.created)}, {ranks}"
