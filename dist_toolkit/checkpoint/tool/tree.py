"""The names of tensors as a tree, with sizes; long lists of alike entries folded into one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from dist_toolkit.checkpoint.manifest import TensorEntry
from dist_toolkit.checkpoint.tool.units import columns, count_text, printable, size_text

_MOST = 12  # entries of one node that are shown, unless all are


@dataclass
class Node:
    """A part of names: the tensor that ends here, if one does, and what goes on from here."""

    name: str
    tensor: TensorEntry | None = None
    children: dict[str, Node] = field(default_factory=dict)
    count: int = 0
    size: int = 0

    def signature(self) -> tuple[object, ...]:
        """Equal for nodes that differ in nothing but their own name."""
        own = (self.tensor.dtype, self.tensor.shape) if self.tensor else None
        return (own, tuple((name, child.signature()) for name, child in self.children.items()))


@dataclass(frozen=True)
class Fold:
    """Nodes beside each other that are shown as one: `first` stands for all `times`, and `name` names them all."""

    name: str
    first: Node
    times: int


def size_of(tensor: TensorEntry) -> int:
    """Its bytes."""
    return sum(chunk.end - chunk.begin for chunk in tensor.chunks)


def build(tensors: Mapping[str, TensorEntry]) -> Node:
    """The tree of all names, divided at dots."""
    root = Node("")
    for name, tensor in tensors.items():
        node, path = root, [root]
        for part in name.split("."):
            node = node.children.setdefault(part, Node(part))
            path.append(node)
        node.tensor = tensor
        for above in path:
            above.count += 1
            above.size += size_of(tensor)
    return root


def to_lines(root: Node, depth: int | None, everything: bool) -> list[str]:
    """Columns: name, type and shape or number of tensors, size. `depth` levels; None: all. `everything`: no folding."""
    rows: list[list[str]] = []
    _add_rows(root, "", depth, everything, rows)
    return columns(rows, right={2})


def _add_rows(node: Node, indent: str, depth: int | None, everything: bool, rows: list[list[str]]) -> None:
    folds = _folds(node, everything)
    shown = folds if everything or len(folds) <= _MOST + 1 else folds[:_MOST]
    for fold in (_joined(short, everything) for short in shown):
        name, first = fold.name, fold.first
        times = f" (x{fold.times})" if fold.times > 1 else ""
        if first.tensor is not None:
            shape = f"{first.tensor.dtype} [{', '.join(map(str, first.tensor.shape))}]{times}"
            rows.append([indent + printable(name), shape, size_text(size_of(first.tensor) * fold.times)])
        if first.children:
            total = count_text((first.count - (first.tensor is not None)) * fold.times, "tensor")
            size = (first.size - (size_of(first.tensor) if first.tensor else 0)) * fold.times
            rows.append([f"{indent}{printable(name)}.", total, size_text(size)])
            if depth is None or depth > 1:
                _add_rows(first, indent + "  ", None if depth is None else depth - 1, everything, rows)
    if len(shown) < len(folds):
        rest = folds[len(shown) :]
        count, size = sum(f.first.count * f.times for f in rest), sum(f.first.size * f.times for f in rest)
        rows.append([f"{indent}... {len(rest)} more (--all)", count_text(count, "tensor"), size_text(size)])


def _joined(fold: Fold, everything: bool) -> Fold:
    """Names that have one way to go on are written as one: `encoder.embed.weight`, `layers.{0..31}`."""
    while fold.first.tensor is None:
        inner = _folds(fold.first, everything)
        if len(inner) != 1:
            break
        fold = Fold(f"{fold.name}.{inner[0].name}", inner[0].first, fold.times * inner[0].times)
    return fold


def _folds(node: Node, everything: bool) -> list[Fold]:
    return _unfolded(node.children.values()) if everything else _folded(node.children.values())


def _unfolded(nodes: Iterable[Node]) -> list[Fold]:
    return [Fold(node.name, node, 1) for node in nodes]


def _folded(nodes: Iterable[Node]) -> list[Fold]:
    """Numbered nodes that follow each other and are alike become one: `{0..31}`."""
    folds = []
    for (numbered, _), group in groupby(nodes, key=lambda node: (node.name.isdecimal(), node.signature())):
        alike = list(group)
        if numbered and len(alike) > 1:
            folds.append(Fold(f"{{{alike[0].name}..{alike[-1].name}}}", alike[0], len(alike)))
        else:
            folds += _unfolded(alike)
    return folds
