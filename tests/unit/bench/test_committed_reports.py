"""The reports in benchmarks/reports are those that their results give, and the results are of whole runs."""

import re
from pathlib import Path

import pytest
from bench_parts import markdown
from bench_parts.registry import read_result
from bench_parts.statistics import status_of

ROOT = Path(__file__).parents[3]
REPORTS = sorted(path.parent for path in (ROOT / "benchmarks" / "reports").glob("*/results.jsonl"))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_report_is_that_of_the_results(folder):
    benchmark, records = read_result(folder)
    assert status_of(records) == "complete"
    report = benchmark.render(records)
    assert (folder / "report.md").read_text() == markdown.text(report)
    assert {path.stem for path in folder.glob("*.svg")} == {part.name for part in report if not isinstance(part, str)}
    assert benchmark.quantities(records), "they can be compared"


def test_there_are_some():
    assert {"throughput-cpu", "comm-cpu", "launch", "overhead", "checkpoint", "verdict", "heartbeat"} <= {
        folder.name for folder in REPORTS
    }


def test_the_readme_shows_what_the_report_says():
    section = (ROOT / "README.md").read_text().partition("## Measured")[2].partition("\n## ")[0]
    report = (ROOT / "benchmarks" / "reports" / "throughput-cpu" / "report.md").read_text()
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) == 10
    assert "\n".join(lines) in report
    for target in re.findall(r"\]\(([^)]+)\)", section):
        assert (ROOT / target).exists(), target
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", section)
    assert picture.endswith("throughput-ratios.svg")
