import xml.etree.ElementTree as ET

import pytest
from bench_parts import markdown, page
from bench_parts.figures import Bars, Lines, Stacks, Value
from bench_parts.plots import draw
from bench_parts.publish import publish
from bench_parts.words import binary, in_words, number

BARS = Bars(
    "rates", "Rates", "samples/s", ("mlp", "resnet18"),
    (("dp", (Value(1000, 990, 1010), Value(160))), ("ddp", (Value(1200.4), None))), better="higher", baseline=1000.0,
)  # fmt: skip
LINES = Lines(
    "bandwidth", "Bus bandwidth", "size", "GB/s",
    (("all-reduce", ((1024.0, Value(0.01)), (1 << 20, Value(1.5, 1.4, 1.6)))),), log_x=True, log_y=True,
    ideal=((1024.0, 1.0), (1 << 20, 2.0)),
)  # fmt: skip
STACKS = Stacks("phases", "Phases", "ms", ("dp", "ddp"), (("forward", (1.0, 2.0)), ("backward", (3.0, 0.0))))


@pytest.mark.parametrize("figure", [BARS, LINES, STACKS], ids=lambda figure: figure.name)
def test_a_figure_is_drawn_the_same_each_time(figure):
    drawn = draw(figure)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert drawn == draw(figure)


def test_figures_of_which_nothing_was_measured_are_drawn():
    for figure in (
        Bars("a", "A", "s", (), ()),
        Bars("a", "A", "s", ("x",), (("one", (None,)),)),
        Lines("a", "A", "x", "y", ()),
        Stacks("a", "A", "s", (), ()),
    ):
        assert "<svg" in draw(figure)


def test_figures_whose_values_do_not_fit_their_categories():
    with pytest.raises(ValueError, match="dp has 1 values for 2 categories"):
        Bars("a", "A", "s", ("x", "y"), (("dp", (None,)),))
    with pytest.raises(ValueError, match="forward has 1 values for 0 categories"):
        Stacks("a", "A", "s", (), (("forward", (1.0,)),))


def test_figures_in_words():
    assert in_words(BARS) == "Rates (samples/s). dp: mlp 1,000, resnet18 160; ddp: mlp 1,200"
    assert in_words(LINES) == "Bus bandwidth (GB/s). all-reduce: 0.01 at 1,024 to 1.5 at 1,048,576"
    assert in_words(STACKS) == "Phases (ms). dp: forward 1, backward 3; ddp: forward 2, backward 0"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (10259.3, "10,259"), (99.96, "100"), (37.81, "37.8"), (0.0042, "0.0042")]
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1, "1 B"), (1024, "1 KiB"), (3 << 19, "1.5 MiB"), (4 << 40, "4096 GiB")])
def test_bytes(value, text):
    assert binary(value) == text


REPORT = ["# A & B", "**Fast**, with `code` and <b>no markup</b>", BARS, LINES, "| a | b |\n|---|---:|\n| 1 | 2 |"]


def test_the_same_report_as_text_and_as_a_page(tmp_path):
    assert publish(tmp_path, REPORT) == f"{tmp_path / 'report.md'} and report.html"
    text, html = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "![Rates (samples/s). dp: mlp 1,000" in text
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "rates.svg", "bandwidth.svg"}
    assert "<title>A &amp; B</title>" in html
    assert html.count("data:image/svg+xml;base64,") == 2
    assert html.count('<div class="figures">') == 1, "figures that follow each other stand side by side"
    assert "&lt;b&gt;no markup" in html
    assert 'style="text-align:right"' in html
    assert 'src="http' not in html
    assert "<script" not in html


def test_a_report_without_matplotlib_has_no_plots(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench_parts.publish.find_spec", lambda name: None)
    publish(tmp_path, REPORT)
    assert "matplotlib is not installed; pip install 'dist-toolkit[bench]'" in capsys.readouterr().err
    assert "svg" not in (tmp_path / "report.md").read_text() + (tmp_path / "report.html").read_text()


def test_empty_blocks_leave_no_gap():
    assert markdown.text(["# A", "", "b"]) == "# A\n\nb\n"
    assert "<h1>A</h1>" in page.render(["# A", ""], {})
