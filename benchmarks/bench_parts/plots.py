"""Figures as SVG, by matplotlib: narrow enough for a phone, in colours that colour-blind people tell apart."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .figures import Bars, Figure, Lines, Stacks, Value
from .words import binary, number

# Okabe and Ito, "Color Universal Design", 2008, but for yellow, which is too light for text and lines.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#595959", "#8C6D1F")
_MARKERS = "osD^vPX*"
_WIDE = 4.8  # inches, 460 pixels: on a phone, text stays legible
_BESIDE = 26  # characters of a line beside a bar
_BYTES = 8192  # an axis with powers of two beyond this counts bytes


def draw(figure: Figure) -> str:
    """The figure as the text of an SVG file, the same for the same figure."""
    style = {
        "svg.hashsalt": figure.name, "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8.5,
        "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
        "axes.prop_cycle": mpl.cycler(color=_COLOURS),
    }  # fmt: skip
    with mpl.rc_context(style):
        if isinstance(figure, Bars):
            canvas = _bars(figure)
        elif isinstance(figure, Stacks):
            canvas = _stacks(figure)
        else:
            canvas = _lines(figure)
        out = io.StringIO()
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": "dtk bench", "Title": figure.title})
    return out.getvalue()


def _canvas(height: float, title: str) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(_WIDE, height), layout="constrained", facecolor="white")
    axes = canvas.add_subplot()
    canvas.suptitle(textwrap.fill(title, 56), x=0.01, ha="left", fontsize=10, fontweight="bold")
    return canvas, axes


def _label(axes: Any, text: str) -> None:
    """Under the axis, in lines that fit."""
    axes.set_xlabel(textwrap.fill(text, 48))


def _legend(canvas: Canvas, axes: Any, names: int) -> None:
    if names > 1:
        handles, labels = axes.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower left", ncols=min(4, names), handlelength=1.4)


def _error(value: Value) -> tuple[float, float]:
    if value.low is None or value.high is None:
        return 0.0, 0.0
    return max(0.0, value.median - value.low), max(0.0, value.high - value.median)


def _bars(figure: Bars) -> Canvas:
    count = sum(value is not None for _, values in figure.series for value in values)
    canvas, axes = _canvas(1.2 + 0.24 * count + 0.12 * len(figure.categories), figure.title)
    position, ticks = 0.0, []
    most = max((v.high or v.median for _, values in figure.series for v in values if v), default=1.0)
    labelled = set()
    for index, _category in enumerate(figure.categories):
        first = position
        for place, (name, values) in enumerate(figure.series):
            value = values[index]
            if value is None:
                continue
            below, above = _error(value)
            label = name if name not in labelled else None
            labelled.add(name)
            axes.barh(position, value.median, 0.82, color=_COLOURS[place % len(_COLOURS)], label=label)
            if below or above:
                axes.errorbar(value.median, position, xerr=[[below], [above]], color="#222222", lw=0.9, capsize=2)
            end = value.median + above
            axes.text(end + 0.015 * most, position, number(value.median), va="center", fontsize=8.5)
            position += 1
        ticks.append((first + position - 1) / 2)
        position += 0.6
    axes.set_yticks(ticks, [textwrap.fill(category, _BESIDE) for category in figure.categories])
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.14 * most)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    _label(axes, f"{figure.unit} ({figure.better} is better)" if figure.better else figure.unit)
    if figure.baseline is not None:
        axes.axvline(figure.baseline, color="#222222", lw=0.9, ls="--", zorder=0.5)
    _legend(canvas, axes, len(figure.series))
    return canvas


def _stacks(figure: Stacks) -> Canvas:
    canvas, axes = _canvas(1.4 + 0.3 * len(figure.categories), figure.title)
    left = [0.0] * len(figure.categories)
    for place, (name, values) in enumerate(figure.parts):
        colour = _COLOURS[place % len(_COLOURS)]
        axes.barh(figure.categories, values, 0.7, left=left, label=name, color=colour, edgecolor="white", lw=0.5)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for index, total in enumerate(left):
        axes.text(total + 0.012 * max(left), index, number(total), va="center", fontsize=8.5)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.12 * (max(left, default=1.0) or 1.0))
    _label(axes, figure.unit)
    _legend(canvas, axes, len(figure.parts))
    return canvas


def _lines(figure: Lines) -> Canvas:
    canvas, axes = _canvas(3.2, figure.title)
    places = sorted({x for _, points in figure.series for x, _ in points} | {x for x, _ in figure.ideal})
    for place, (name, points) in enumerate(figure.series):
        xs, ys = [x for x, _ in points], [y.median for _, y in points]
        errors = list(zip(*(_error(y) for _, y in points), strict=True))
        marker = _MARKERS[place % len(_MARKERS)]
        axes.errorbar(xs, ys, yerr=errors, marker=marker, ms=4, lw=1.4, elinewidth=0.8, capsize=2, label=name)
    if figure.ideal:
        axes.plot(*zip(*figure.ideal, strict=True), ls="--", lw=1, color="#222222", label="ideal")
    if figure.log_x:
        axes.set_xscale("log", base=2)
        step = -(-len(places) // 6)  # room for six labels
        axes.xaxis.set_major_locator(FixedLocator(places[::step]))
        axes.xaxis.set_minor_locator(NullLocator())
    elif len(places) <= 8:
        axes.set_xticks(places)
    in_bytes = bool(places) and places[-1] > _BYTES
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: binary(value) if in_bytes else number(value)))
    if figure.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    _label(axes, figure.x)
    axes.set_ylabel(figure.y)
    _legend(canvas, axes, len(figure.series) + bool(figure.ideal))
    return canvas
