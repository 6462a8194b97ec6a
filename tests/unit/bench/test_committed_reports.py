"""The reports in benchmarks/reports are those that their results give, and the results are of whole runs."""

from pathlib import Path

import pytest
from bench_parts import markdown
from bench_parts.registry import read_result
from bench_parts.statistics import status_of

REPORTS = sorted(path.parent for path in (Path(__file__).parents[3] / "benchmarks" / "reports").glob("*/results.jsonl"))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_report_is_that_of_the_results(folder):
    benchmark, records = read_result(folder)
    assert status_of(records) == "complete"
    report = benchmark.render(records)
    assert (folder / "report.md").read_text() == markdown.text(report)
    assert {path.stem for path in folder.glob("*.svg")} == {part.name for part in report if not isinstance(part, str)}
    assert benchmark.quantities(records), "they can be compared"


def test_there_are_some():
    assert len(REPORTS) >= 6
