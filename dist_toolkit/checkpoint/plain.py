"""Whether plain values from a commit record are what `canonical.flatten` writes. No torch here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_DEEPEST = 200
_FLOATS = ("nan", "inf", "-inf")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`. ValueError where a key comes twice: readers would differ in what they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} comes twice")
    return found


def check_values(value: Any, tensors: Collection[str], depth: int = 0) -> None:
    """ValueError where a mark means nothing (`{"$tensor": name}` without such a tensor), or lists nest too deep."""
    if depth > _DEEPEST:
        raise ValueError(f"values nest deeper than {_DEEPEST}")
    if isinstance(value, list):
        for item in value:
            check_values(item, tensors, depth + 1)
    elif isinstance(value, dict):
        (tag, held), *_ = value.items() if len(value) == 1 else [("", None)]
        if tag.startswith("$") and not _is_mark(tag, held, tensors):
            raise ValueError(f"{tag!r} stands before what it cannot mean")
        for item in value.values():
            check_values(item, tensors, depth + 1)


def _is_mark(tag: str, held: Any, tensors: Collection[str]) -> bool:
    if tag == "$tensor":
        return isinstance(held, str) and held in tensors
    if tag == "$float":
        return held in _FLOATS
    if tag == "$tuple":
        return isinstance(held, list)
    return tag == "$dict" and isinstance(held, list) and all(map(_is_pair, held))


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and not isinstance(item[0], (list, dict))
