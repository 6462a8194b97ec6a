"""The reports as pages, in a headless Chromium: on a phone, on a wide screen and in print, without a network."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.bench.machine_record import MACHINE

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="needs Debian's chromium and chromium-driver"),
]

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "benchmarks" / "reports").glob("*/report.html"))
PHONE, WIDE = (390, 844), (1280, 900)
PAPER = (680, 1000)
"""A4 without its margins, in CSS pixels."""
SMALLEST = 8.0
"""CSS pixels of a figure's text on a phone."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


def fit(browser, size: tuple[int, int], media: str = "screen") -> None:
    width, height = size
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE},
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The committed ones, and one that has everything."""
    from bench_parts.markdown import machine_table
    from bench_parts.publish import publish

    from tests.unit.bench.test_figures import BARS, LINES, STACKS

    folder = tmp_path_factory.mktemp("report")
    wide = (
        "| " + " | ".join(f"column {n}" for n in range(14)) + " |\n" + "|---" * 14 + "|\n" + "| 1,234,567 " * 14 + "|"
    )
    publish(folder, ["# All", "- **A headline** in words", BARS, LINES, STACKS, wide, machine_table(MACHINE)])
    return [folder / "report.html", *PAGES]


LOOK = """return {
    wide: document.documentElement.scrollWidth,
    images: [...document.images].map(i => ({done: i.complete && i.naturalWidth > 0, words: i.alt,
        scale: i.clientWidth / i.naturalWidth, right: i.getBoundingClientRect().right})),
    asked: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    text: document.body.innerText.length, title: document.title, h1: document.querySelectorAll("h1").length,
}"""


def test_nothing_is_cut_off_or_missing(browser, pages):
    assert len(pages) > 5
    for page in pages:
        browser.get(page.as_uri())
        for name, size in {"phone": PHONE, "wide screen": WIDE, "paper": PAPER}.items():
            fit(browser, size, "print" if name == "paper" else "screen")
            seen, where = browser.execute_script(LOOK), f"{page}, {name}"
            assert seen["wide"] <= size[0], f"{where}: it scrolls sideways, {seen['wide']} pixels"
            assert (seen["h1"], seen["asked"]) == (1, []), where
            assert seen["title"], where
            assert seen["text"] > 200, where
            for image in seen["images"]:
                assert image["done"], where
                assert len(image["words"]) > 20, where
                assert image["right"] <= size[0], where
                assert 12 * image["scale"] >= SMALLEST, f"{where}: text of {12 * image['scale']:.1f} pixels"
    errors = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert errors == []


BOXES = """return [...document.querySelectorAll(".box")].filter(b => b.scrollWidth > b.clientWidth).map(b =>
    [b.getBoundingClientRect().left, document.documentElement.clientWidth - b.getBoundingClientRect().right])"""


def test_a_wide_table_takes_the_width_there_is(browser, pages):
    """Where one scrolls all the same, it goes from edge to edge."""
    for page in pages:
        browser.get(page.as_uri())
        for size in ((1200, 900), (1400, 900)):
            fit(browser, size)
            for left, right in browser.execute_script(BOXES):
                assert max(left, right) <= 24, f"{page} at {size[0]} pixels: {left} and {right} are free beside a table"


def test_a_wide_table_scrolls_alone(browser, pages):
    browser.get(pages[0].as_uri())
    fit(browser, PHONE)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.box')].map(b => [b.scrollWidth, b.clientWidth, b.tabIndex])"
    )
    assert boxes[0][0] > boxes[0][1], "it is wider than its box"
    assert boxes[0][2] == 0, "and can be scrolled with the keyboard"


HEADING = re.compile(rb"/Title \((.*?)\)\s*/Dest \[(\d+) 0 R /XYZ \S+ (\S+) 0\]")
"""Of an outline's entry: text, page, points from the bottom."""


def printed(browser, page: Path) -> bytes:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.get(page.as_uri())
    words = {"preferCSSPageSize": True, "printBackground": True, "generateDocumentOutline": True}
    return base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", words)["data"])


def test_no_heading_stands_alone_at_the_end_of_a_page(browser, tmp_path):
    """Sections of a heading and a table or a figure, which come to the end of a page in many ways."""
    from bench_parts.publish import publish

    from tests.unit.bench.test_figures import BARS

    table = "Numbers:\n\n| a | b |\n|---|---|" + "\n| 1 | 2 |" * 7
    parts = ["# Print"]
    for number in range(24):
        parts += [f"## Part {number}", BARS if number % 4 == 3 else table, "Some words.\n\n" * (1 + number % 3)]
    publish(tmp_path, parts)
    headings = HEADING.findall(printed(browser, tmp_path / "report.html"))
    found = [heading for heading in headings if heading[0].startswith(b"Part")]
    assert len(found) == 24
    assert len({page for _, page, _ in found}) > 4
    for title, _, height in found:
        assert float(height) >= 40 + 100, f"{title.decode()} is {height} points above the edge, 40 of them margin"


def test_it_prints(browser, pages):
    for page in pages:
        pdf = printed(browser, page)
        assert pdf.startswith(b"%PDF")
        figures = page.read_text().count("<figure")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 6 + figures, page
        for title, _, height in HEADING.findall(pdf):
            assert float(height) >= 40 + 45, f"{page}: {title.decode(errors='replace')} has no room for what follows"
