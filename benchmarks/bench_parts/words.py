"""Numbers, and what a figure shows, in words: for axes, and for people who do not see it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Bars, Figure, Lines, Value


def number(value: float) -> str:
    """Three digits that count: `10,259`, `169`, `37.8`, `0.82`, `0.0042`."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def binary(count: float) -> str:
    """A number of bytes: `64 KiB`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.4g} {unit}"


def in_words(figure: Figure) -> str:
    """Title and numbers, in one line."""
    if isinstance(figure, Lines):
        found = [f"{name}: {_points(points)}" for name, points in figure.series]
    elif isinstance(figure, Bars):
        rows = [(name, zip(figure.categories, values, strict=True)) for name, values in figure.series]
        found = [f"{name}: {', '.join(f'{of} {number(v.median)}' for of, v in values if v)}" for name, values in rows]
    else:
        found = [
            f"{category}: {', '.join(f'{name} {number(values[index])}' for name, values in figure.parts)}"
            for index, category in enumerate(figure.categories)
        ]
    unit = figure.y if isinstance(figure, Lines) else figure.unit
    return f"{figure.title} ({unit}). {'; '.join(found)}".replace("[", "(").replace("]", ")")


def _points(points: Sequence[tuple[float, Value]]) -> str:
    first, last = points[0], points[-1]
    ends = [first] if first is last else [first, last]
    return " to ".join(f"{number(y.median)} at {number(x)}" for x, y in ends)
