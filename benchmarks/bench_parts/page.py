"""A report as one HTML file that needs nothing else: no network, no script, pictures within."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from .figures import Figure
from .words import in_words

_TEMPLATE = "page.html.j2"


def render(report: Sequence[str | Figure], pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        pictures: name of a figure -> SVG.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(title=_title(report), parts=_parts(report, pictures))


def _title(report: Sequence[str | Figure]) -> str:
    text = "\n".join(part for part in report if isinstance(part, str))
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), "Benchmark")


def _parts(report: Sequence[str | Figure], pictures: Mapping[str, str]) -> list[dict[str, object]]:
    """Runs of text and of figures; figures that follow each other stand side by side where there is room."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    parts: list[dict[str, object]] = []
    for part in report:
        if isinstance(part, str):
            parts.append({"text": Markup(_in_boxes(reader.render(part)))})
            continue
        figure = {"source": _data(pictures[part.name]), "words": in_words(part)}
        if parts and "figures" in parts[-1]:
            parts[-1]["figures"].append(figure)  # type: ignore[attr-defined]
        else:
            parts.append({"figures": [figure]})
    return parts


def _in_boxes(text: str) -> str:
    """Tables that are wider than the screen scroll alone, not with the page."""
    return text.replace("<table>", '<div class="box" tabindex="0"><table>').replace("</table>", "</table></div>")


def _data(picture: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
