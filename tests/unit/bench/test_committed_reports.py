"""The reports in benchmarks/reports are those that their results give, and the results are of whole runs."""

import json
import re
from pathlib import Path

import pytest
from bench_parts import elsewhere, markdown
from bench_parts.registry import read_result
from bench_parts.statistics import status_of

ROOT = Path(__file__).parents[3]
INDEX = ROOT / "benchmarks" / "reports" / "README.md"
REPORTS = sorted(path.parent for path in (ROOT / "benchmarks" / "reports").glob("*/results.jsonl"))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_report_is_that_of_the_results(folder):
    benchmark, records = read_result(folder)
    assert status_of(records) == "complete"
    report = benchmark.render(records)
    assert (folder / "report.md").read_text() == markdown.text(report)
    assert {path.stem for path in folder.glob("*.svg")} == {part.name for part in report if not isinstance(part, str)}
    assert benchmark.quantities(records), "they can be compared"


COMMANDS = dict(
    re.findall(r"^\| \[([a-z0-9-]+)\]\(\1/report\.md\) .* \| `dtk bench ([^`]+)` \|$", INDEX.read_text(), re.MULTILINE)
)


def test_there_is_one_of_each_benchmark():
    """But of advice, which is about a script of somebody's."""
    results = [read_result(folder) for folder in REPORTS]
    measuring = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} - {"advise", "compare", "report"}
    assert {benchmark.name for benchmark, _ in results} == measuring
    nodes = {records[0]["options"]["nodes"] for benchmark, records in results if benchmark.name == "comm"}
    assert nodes == {1, 2}, "collectives within a node, and between two"


def test_all_of_them_are_in_the_index():
    assert sorted(COMMANDS) == [folder.name for folder in REPORTS]


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_command_in_the_index_is_the_one_that_made_the_result(folder, tmp_path, monkeypatch):
    benchmark, records = read_result(folder)
    name, *words = COMMANDS[folder.name].split()
    assert name == benchmark.name
    monkeypatch.setenv(elsewhere.CHECK, json.dumps({"cores": records[0]["cores"], "gpus": 0}))
    options = benchmark.parse([*words, "--out", str(tmp_path)])
    assert json.loads(json.dumps(benchmark.describe(options)["options"])) == records[0]["options"]


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_the_result_is_of_a_commit_as_it_is(folder):
    machine = read_result(folder)[1][0]
    assert machine["commit"]
    assert machine["uncommitted_changes"] is False


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
