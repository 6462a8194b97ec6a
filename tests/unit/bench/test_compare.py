import json

import compare
import pytest
from bench_parts.quantities import Quantity
from compare_parts.changes import change
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench.conftest import mode_key
from tests.unit.bench.machine_record import MACHINE


def rates(*values, better="higher"):
    return Quantity(("mlp", "ddp"), "samples/s", better, values)


STEADY = (100.0, 101.0, 99.0, 100.5, 99.5, 100.2)


@pytest.mark.parametrize(
    ("after", "better", "verdict"),
    [
        ([120, 121, 119, 120, 122, 118], "higher", "better"),
        ([120, 121, 119, 120, 122, 118], "lower", "worse"),
        ([80, 81, 79, 80, 82, 78], "higher", "worse"),
        ([100.1, 99.8, 100.9, 99.2, 100.4, 100.0], "higher", "no change seen"),
        ([50, 200, 90, 110, 100, 130], "higher", "no change seen"),
        ([120, 121], "higher", "too few rounds"),
    ],
)
def test_a_change_is_named_where_it_is_more_than_the_noise(after, better, verdict):
    found = change(rates(*STEADY, better=better), rates(*after, better=better))
    assert found.verdict == verdict
    assert (found.worse_by > 0) == (verdict == "worse")


def test_how_much_worse_is_the_near_end_of_the_interval():
    found = change(rates(*STEADY), rates(*(0.8 * value for value in STEADY)))
    assert found.ratio == pytest.approx(0.8)
    assert found.low <= 0.8 <= found.high
    assert found.worse_by == pytest.approx(1 - found.high)
    assert 0.18 < found.worse_by < 0.2


@given(st.lists(st.floats(1, 1e6), min_size=6, max_size=30), st.floats(0.01, 100))
def test_nothing_is_seen_in_the_same_numbers_and_a_factor_is_found(values, factor):
    assert change(rates(*values), rates(*values)).verdict == "no change seen"
    found = change(rates(*values), rates(*(factor * value for value in values)))
    assert found.ratio == pytest.approx(factor)
    assert found.low <= found.ratio * (1 + 1e-9)
    assert found.high >= found.ratio * (1 - 1e-9)


@pytest.fixture
def folder(tmp_path, run_of):
    def write(name, machine=None, more=(), status="complete", **rates):
        *records, end = run_of(status=status, **rates)
        records += [*more, end]
        records[0] = {**records[0], "benchmark": "throughput", **(machine or {})}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(tmp_path / name)

    return write


SLOW, FAST = [1.0, *STEADY], [1.0, *(1.5 * value for value in STEADY)]


def test_two_results(folder, capsys):
    a = folder("a", dp=SLOW, ddp=FAST)
    b = folder("b", {"torch": "2.15.0", "commit": "ffff"}, dp=FAST, ddp=FAST)
    assert compare.main([a, b + "/results.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "torch 2.14.1, now 2.15.0" in shown
    assert "commit 0123456789ab, now ffff" in shown
    rates = [line.rstrip() for line in shown.splitlines() if "x2 samples/s " in line]
    lines = {strategy: line for line in rates for strategy in ("dp", "ddp") if f" {strategy} " in line}
    assert lines["dp"].endswith("better")
    assert "1.500 (" in lines["dp"]
    assert lines["ddp"].endswith("no change seen")


def test_exit_codes_and_json(folder, capsys):
    a, b = folder("a", dp=FAST, ddp=FAST), folder("b", dp=SLOW, ddp=FAST)
    assert compare.main([a, b]) == 0
    assert compare.main([a, b, "--fail-if-worse", "60"]) == 0
    capsys.readouterr()
    assert compare.main([a, b, "--fail-if-worse", "25", "--json"]) == 1
    shown = capsys.readouterr()
    assert "worse by more than 25 %: mlp fp32 batch 100 dp x2 samples/s\n" in shown.err
    assert "ddp" not in shown.err
    verdicts = {" ".join(each["name"]): each["verdict"] for each in json.loads(shown.out)["changes"]}
    assert verdicts["mlp fp32 batch 100 dp x2 samples/s"] == "worse"
    assert verdicts["mlp fp32 batch 100 ddp x2 samples/s"] == "no change seen"


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"benchmark": "overhead"}, "is of dtk bench throughput"),
        ({"benchmark": "nothing"}, "does not say which benchmark made it"),
        ({"benchmark": "../x"}, "does not say which benchmark made it"),
    ],
)
def test_what_cannot_be_compared(folder, capsys, machine, message):
    a, b = folder("a", dp=SLOW), folder("b", machine, dp=SLOW)
    assert compare.main([a, b]) == 2
    assert message in capsys.readouterr().err


def test_results_that_are_none(folder, tmp_path, capsys):
    a = folder("a", dp=SLOW)
    assert compare.main([a, str(tmp_path / "none")]) == 2
    assert "none holds no results.jsonl; pass the --out of a benchmark" in capsys.readouterr().err
    other = folder("other", ddp=SLOW)
    assert compare.main([a, other]) == 2
    assert "no number in common" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.jsonl").write_text('{"a": 1}\n')
    assert compare.main([a, str(tmp_path / "bad")]) == 2
    assert "is not the result of a benchmark" in capsys.readouterr().err
    assert compare.main([a, a, "--fail-if-worse", "-1"]) == 2


def test_a_peak_of_memory_is_one_number_without_an_interval(tmp_path, run_of, capsys):
    def write(name, *most):
        rows = [{**record} for record in run_of(dp=[1.0, *STEADY])]
        rows[0]["benchmark"] = "throughput"
        for row, sum_ in zip((row for row in rows if row["kind"] == "block"), (0.0, *most), strict=True):
            row |= {"rss_mib": {"most": sum_, "sum": sum_}, "gpu_reserved_mib": 2 * sum_}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    a, b = write("a", 700, 750, 800, 800, 800, 800), write("b", 800, 900, 990, 1000, 1000, 1000)
    assert compare.main([a, b, "--json"]) == 0
    found = {each["name"][-1]: each for each in json.loads(capsys.readouterr().out, parse_constant=refuse)["changes"]}
    for name, factor in (("peak RSS of all processes", 1), ("peak GPU memory", 2)):
        peak = found[name]
        assert (peak["a"]["median"], peak["b"]["median"], peak["ratio"]) == (800 * factor, 1000 * factor, 1.25)
        assert (peak["low"], peak["high"], peak["verdict"], peak["a"]["count"]) == (None, None, "no interval", 1)
    assert compare.main([a, b, *GATE]) == 0, "it is not judged"
    shown = capsys.readouterr()
    assert shown.err == ""
    (line,) = [line for line in shown.out.splitlines() if "peak RSS" in line]
    assert line.split()[-3:] == ["1.250", "no", "interval"]


def refuse(name):
    raise ValueError(f"{name} is no JSON")


ZERO = (0.0,) * 6


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict"),
    [
        (ZERO, ZERO, "higher", "no change seen"),
        (ZERO, STEADY, "higher", "better"),
        (ZERO, STEADY, "lower", "worse"),
        (STEADY, ZERO, "higher", "worse"),
        ((0.0, 0.0, 0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0, 0.0, 0.0), "higher", "no change seen"),
    ],
)
def test_there_is_no_ratio_to_zero_but_a_verdict(before, after, better, verdict):
    found = change(rates(*before, better=better), rates(*after, better=better))
    assert found.verdict == verdict
    shown = json.loads(json.dumps(found.as_json()), parse_constant=refuse)
    assert (shown["ratio"] is None) == (before != STEADY)
    assert (100 * found.worse_by > 1e9) == (verdict == "worse" and before == ZERO), "from nothing, by any per cent"


@settings(max_examples=20)
@given(*2 * [st.lists(st.sampled_from([0.0, 1e-300, 1.0, 1e300]), min_size=1, max_size=9)])
def test_json_has_neither_nan_nor_infinity(before, after):
    found = change(rates(*before), rates(*after)).as_json()
    assert json.loads(json.dumps(found), parse_constant=refuse)["unit"] == "samples/s"


def test_a_strict_parser_reads_the_json_of_zeros(tmp_path, capsys):
    steps = [{"kind": "block", "mode": "with", "round": number, "milliseconds": 0.0} for number in range(6)]
    lines = [{**MACHINE, "options": {}, "benchmark": "heartbeat"}, *steps, {"kind": "end", "status": "complete"}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    a = str(tmp_path)
    assert compare.main([a, a, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out, parse_constant=refuse)["changes"]
    assert (found["ratio"], found["low"], found["high"]) == (None, None, None)
    assert compare.main([a, a]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("with step"))
    assert "nan" not in line
    assert line.rstrip().endswith("-  no change seen")


GATE = ("--fail-if-worse", "5")
LOST = {"kind": "failed", **mode_key("ddp"), "why": "RuntimeError: no"}


def only(result, of):
    return [" ".join(each["name"]) for each in result[of]["only"]]


def test_what_only_one_has_is_listed_and_missing_for_the_gate(folder, capsys):
    a, b = folder("a", dp=SLOW, ddp=SLOW), folder("b", dp=SLOW, fsdp=SLOW)
    assert compare.main([a, b]) == 0
    shown = capsys.readouterr().out
    assert "only A has: mlp fp32 batch 100 ddp x2 samples/s\n" in shown
    assert "only B has: mlp fp32 batch 100 fsdp x2 samples/s\n" in shown
    assert compare.main([a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "mlp fp32 batch 100 ddp x2 samples/s" in only(found, "a")
    assert "mlp fp32 batch 100 fsdp x2 samples/s" in only(found, "b")
    assert not [name for name in only(found, "a") if " ddp " not in name]
    assert compare.main([a, b, *GATE]) == 1
    assert "missing in B: mlp fp32 batch 100 ddp x2 samples/s\n" in capsys.readouterr().err
    assert compare.main([folder("less", dp=SLOW), b, *GATE]) == 0, "B may have more"


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_the_gate_wants_a_run_that_is_complete(folder, capsys, status):
    a, b = folder("a", dp=SLOW), folder("b", status=status, dp=SLOW)
    assert compare.main([a, b]) == 0
    assert f"B is {status}: it does not have all that was asked for" in capsys.readouterr().out
    assert compare.main([a, b, *GATE]) == 1
    assert capsys.readouterr().err == f"B is {status}, not complete\n"
    assert compare.main([b, a, *GATE]) == 0


def test_the_gate_names_what_failed_in_b_alone(folder, capsys):
    a, b = folder("a", dp=SLOW), folder("b", more=[LOST], dp=SLOW)
    assert compare.main([a, b, *GATE]) == 1
    shown = capsys.readouterr()
    assert shown.err == "failed in B, not in A: ddp x2 on mlp (fp32, batch 100): RuntimeError: no\n"
    assert "failed in B: ddp x2 on mlp (fp32, batch 100): RuntimeError: no\n" in shown.out
    assert compare.main([b, b, *GATE]) == 0
    capsys.readouterr()
    assert compare.main([a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"]["failed"], list(found["b"]["failed"].values())) == ({}, ["RuntimeError: no"])


def test_the_gate_does_not_pass_what_too_few_rounds_cannot_judge(folder, capsys):
    a, b = folder("a", dp=SLOW), folder("b", dp=SLOW[:4])
    assert compare.main([a, b]) == 0
    capsys.readouterr()
    assert compare.main([a, b, *GATE]) == 1
    name = "mlp fp32 batch 100 dp x2 samples/s"
    assert f"could not be judged, with 3 of the 6 rounds a side it takes: {name}\n" in capsys.readouterr().err


def test_a_few_rounds_are_enough_where_none_is_worse(folder, capsys):
    a = folder("a", dp=SLOW[:4])
    assert compare.main([a, a, *GATE]) == 1, "its rounds differ"
    single = folder("single", dp=SLOW[:2])
    assert compare.main([single, single, *GATE]) == 0
