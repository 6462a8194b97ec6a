"""Whether weights have the names that a model expects, and prefixes that a wrapper put in front of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dist_toolkit.checkpoint.manifest import TensorEntry
from dist_toolkit.checkpoint.tool.outcome import UsageError


def strip(tensors: Mapping[str, TensorEntry], prefixes: Sequence[str]) -> dict[str, TensorEntry]:
    """The same tensors, each prefix taken off the names that begin with it.

    Raises:
        UsageError: no name begins with one, or two names become the same.
    """
    for prefix in prefixes:
        if not any(name.startswith(prefix) and name != prefix for name in tensors):
            raise UsageError(f"--strip {prefix}: no name begins with it; there are: {some(tensors)}")
        names = {name: name.removeprefix(prefix) or name for name in tensors}
        made = {names[name]: tensor for name, tensor in tensors.items()}
        if len(made) < len(tensors):
            twice = next(new for old, new in names.items() if old != new and new in tensors)
            raise UsageError(f"--strip {prefix} gives two tensors the name {twice}; leave it out")
        tensors = made
    return dict(tensors)


def compare(
    names: Collection[str], left_out: Collection[str], expected: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """(names that the model's own weights have and these lack, names that these have besides).

    Args:
        left_out: tied names, which may be missing on either side.
        expected: the names of the weights beside the config; None: not known, nothing is compared.

    Raises:
        UsageError: they have no name in common; says which prefix is in the way, if one is.
    """
    if expected is None:
        return [], []
    mine = {*names, *left_out}
    if mine.isdisjoint(expected):
        hint = _hint(mine, expected)
        raise UsageError(
            f"no weight has a name that the model of --config has ({some(expected)}); there are: {some(mine)}{hint}"
        )
    return sorted(set(expected) - mine), sorted(set(names) - set(expected))


def some(names: Collection[str]) -> str:
    """The first three."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _hint(mine: Collection[str], expected: Collection[str]) -> str:
    for name in sorted(mine):
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in expected:
                return f"; pass --strip {'.'.join(parts[:cut])}."
    return "; is it the config of another model?"
