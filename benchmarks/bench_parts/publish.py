"""A report as files: report.md and report.html say the same; the plots stand beside the one and within the other."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from . import markdown, page
from .figures import Figure
from .terminal import say


def publish(folder: Path, report: Sequence[str | Figure]) -> str:
    """Write the report into `folder`, over an older one; its files, in words.

    Without matplotlib it has no plots, which is said on stderr.
    """
    figures = [part for part in report if not isinstance(part, str)]
    pictures: dict[str, str] = {}
    if figures and find_spec("matplotlib") is None:
        say("no plots: matplotlib is not installed; pip install 'dist-toolkit[bench]'")
        report = [part for part in report if isinstance(part, str)]
    elif figures:
        from .plots import draw

        pictures = {figure.name: draw(figure) for figure in figures}
    files = {f"{name}.svg": picture for name, picture in pictures.items()}
    files |= {"report.md": markdown.text(report), "report.html": page.render(report, pictures)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return f"{folder / 'report.md'} and report.html"
