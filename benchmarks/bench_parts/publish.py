"""A report as files: report.md and report.html say the same; the plots stand beside the one and within the other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from . import markdown, page
from .figures import Figure


def publish(folder: Path, report: Sequence[str | Figure]) -> str:
    """Write the report into `folder`, over an older one; its files, in words.

    Without matplotlib it has no plots, which is said on stderr.
    """
    figures = [part for part in report if not isinstance(part, str)]
    pictures: dict[str, str] = {}
    if figures and find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed; pip install 'dist-toolkit[bench]'", file=sys.stderr)
        report = [part for part in report if isinstance(part, str)]
    elif figures:
        from .plots import draw

        pictures = {figure.name: draw(figure) for figure in figures}
    for name, picture in pictures.items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    (folder / "report.md").write_text(markdown.text(report), encoding="utf-8")
    (folder / "report.html").write_text(page.render(report, pictures), encoding="utf-8")
    return f"{folder / 'report.md'} and report.html"
