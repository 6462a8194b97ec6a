"""A single round has no quartiles, and the median of fewer than six no 95 % interval: their number is given instead."""

import json
import re
from pathlib import Path

import pytest
from bench_parts import statistics
from bench_parts.driver import Benchmark
from bench_parts.markdown import text
from bench_parts.registry import read_result
from bench_parts.spreads import interval, quartiles
from bench_parts.statistics import FEWEST, Paired, Spread, interval_of_median
from compare_parts.changes import change
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bench.test_compare import rates

REPORTS = Path(__file__).parents[3] / "benchmarks" / "reports"
FOLDERS = ["checkpoint", "comm-cpu", "heartbeat", "launch", "overhead", "throughput-cpu"]
INTERVAL = re.compile(r"(?<![\w.])([+-]?[0-9][0-9.,]*%?) (?:to|-) ([+-]?[0-9][0-9.,]*%?)")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(statistics, "_RESAMPLES", 40)


def of_rounds(folder: str, number: int) -> tuple[Benchmark, list[dict[str, object]]]:
    """A committed result, cut behind so many rounds; those of comm and launch have no warm-up among them."""
    benchmark, records = read_result(REPORTS / folder)
    return benchmark, [dict(record) for record in records if record.get("round", 0) <= number]


def interval_cells(report: str) -> list[tuple[str, str]]:
    """Whatever reads like an interval in the headlines and the tables of numbers: `0.63 to 0.65`."""
    lines = [line for line in report.splitlines() if line.startswith(("| ", "- ")) and "by hand" not in line]
    return [found for line in lines for found in INTERVAL.findall(line)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_report_of_one_round_has_no_interval(folder, capsys):
    benchmark, records = of_rounds(folder, 1)
    report = benchmark.render(records)
    assert interval_cells(text(report)) == []
    assert "1 round" in text(report)
    figures = [part for part in report if not isinstance(part, str)]
    assert not [figure.unit for figure in figures if "95 %" in getattr(figure, "unit", "")]
    benchmark.show(records)
    assert INTERVAL.findall(capsys.readouterr().out) == []


def lows(value: object, name: str = "") -> list[object]:
    """All that is called low, high, ratio_low ... in a JSON value."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in lows(inner, key)]
    if isinstance(value, list):
        return [found for inner in value for found in lows(inner, name)]
    return [value] if name.endswith(("low", "high")) else []


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in ("launch", "throughput-cpu")])
def test_json_has_null_where_one_round_has_no_interval(folder):
    benchmark, records = of_rounds(folder, 1)
    found = lows(json.loads(json.dumps(benchmark.as_json(records))))
    assert found
    assert set(found) == {None}


def test_json_of_launch_has_null_in_the_place_of_quartiles():
    benchmark, records = of_rounds("launch", 1)
    found = json.loads(json.dumps(benchmark.as_json(records)))
    assert found["first_line"]["dtk launch"]["ratio"][1:] == [None, None]
    assert found["idle"]["quiet"]["dtk"][1:] == [None, None]


@pytest.mark.parametrize("folder", ["checkpoint", "heartbeat", "overhead"])
def test_five_rounds_have_quartiles_and_no_95_percent(folder):
    benchmark, records = of_rounds(folder, 5)
    assert "5 rounds" in text(benchmark.render(records))
    assert "5 rounds" not in text(benchmark.render(of_rounds(folder, 6)[1]))


@given(st.lists(st.floats(1, 100), min_size=1, max_size=9))
def test_an_interval_or_the_number_of_rounds(values):
    paired = Paired.of(values)
    if len(values) < FEWEST:
        assert interval(paired) == f"{len(values)} round{'s' * (len(values) > 1)}"
    else:
        assert (paired.low, paired.high) == interval_of_median(values)
        assert interval(paired) == f"{paired.low:.2f} to {paired.high:.2f}"
    assert (quartiles(paired.spread) == "1 round") == (paired.spread.low is None) == (len(values) == 1)


def test_of_a_single_look_or_step_it_is_told_by_its_name():
    assert quartiles(Spread.of([2.0]), of="look") == "1 look"


def test_compare_gives_no_interval_of_too_few_rounds():
    found = change(rates(1.0), rates(2.0)).as_json()
    assert (found["ratio"], found["low"], found["high"], found["verdict"]) == (2.0, None, None, "too few rounds")
    assert (found["a"]["low"], found["a"]["high"], found["a"]["count"]) == (None, None, 1)
    assert change(rates(*range(1, 7)), rates(*range(1, 7))).low is not None
