"""Numbers of other work are not compared, and each benchmark says which of its options are the work."""

import importlib
import json
from pathlib import Path

import compare
import pytest
from bench_parts import statistics
from bench_parts.registry import read_result
from compare_parts import changes

REPORTS = Path(__file__).parents[3] / "benchmarks" / "reports"
WORK = {
    "throughput": "throughput_parts.outcome", "overhead": "overhead_parts.summary", "comm": "comm_parts.summary",
    "checkpoint": "checkpoint_parts.summary", "verdict": "verdict_parts.report", "heartbeat": "heartbeat",
    "advise": "advise_parts.summary",
}  # fmt: skip
NAMED = {
    "throughput": ("strategies", "models", "precision", "batches"), "overhead": ("loops", "feeds"),
    "comm": ("operations", "sizes", "backends"), "checkpoint": ("methods", "cases"), "launch": ("parts",),
    "advise": ("strategies", "nproc", "batches"),
}  # fmt: skip
"""Options whose values are in the names of the numbers."""
LOOKED_AT = {
    "throughput": ("rounds", "block_seconds", "at_once", "find_batch", "memory_limit", "seed", "gpus"),
    "overhead": ("rounds", "steps", "seed", "quick"), "comm": ("rounds", "seed"),
    "checkpoint": ("rounds", "seed", "quick"), "launch": ("rounds",), "heartbeat": ("rounds", "steps"),
    "advise": ("rounds", "warmup", "steps", "seconds", "gpus"),
}  # fmt: skip
"""How often and how long it is looked at, and what follows from other options (--quick from what it sets)."""
WORDS = {"advise": ["mlp"]}


@pytest.mark.parametrize(
    "name", ["advise", "checkpoint", "comm", "heartbeat", "launch", "overhead", "throughput", "verdict"]
)
def test_every_option_is_the_work_or_in_a_name_or_says_how_closely_it_is_looked_at(name, tmp_path):
    benchmark = importlib.import_module(name).BENCHMARK
    options = benchmark.parse(["--out", str(tmp_path), *WORDS.get(name, [])])
    work = [each.option for each in importlib.import_module(WORK[name]).WORK] if name in WORK else []
    said = [*work, *NAMED.get(name, ()), *LOOKED_AT.get(name, ())]
    assert sorted(said) == sorted(benchmark.describe(options)["options"])


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for module in (changes, statistics):
        monkeypatch.setattr(module, "_RESAMPLES", 40)


def compared(folder, tmp_path, capsys, **options):
    """`dtk bench compare` of a committed result with the same, whose options are others."""
    lines = (REPORTS / folder / "results.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["options"] |= options
    (tmp_path / "results.jsonl").write_text("".join([json.dumps(first) + "\n", *lines[1:]]))
    a, b = str(REPORTS / folder), str(tmp_path)
    assert compare.main([a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["changes"]
    code = compare.main([a, b, "--fail-if-worse", "100"])
    return found, code, capsys.readouterr()


OTHER = [
    ("checkpoint", {"mib": 400}, "large ", "--mib 800, now 400"),
    ("checkpoint", {"tensors": 9}, "small ", "--tensors 5000, now 9"),
    ("checkpoint", {"nproc": 1}, "", "--nproc 2, now 1"),
    ("heartbeat", {"step_ms": 1.0}, "", "--step-ms 5.0, now 1.0"),
    ("overhead", {"width": 16}, "", "--width 512, now 16"),
    ("overhead", {"batch": 4}, "", "--batch 32, now 4"),
    ("comm-cpu", {"dtype": "float16"}, "", "--dtype float32, now float16"),
    ("comm-cpu", {"iterations": 1}, "", "--iterations 0, now 1"),
    ("throughput-scaling-cpu", {"size": "full"}, "", "--size small, now full"),
    ("throughput-bf16-cpu", {"nproc": [4]}, "", "--nproc 2, now 4"),
    ("verdict", {"seeds": 3}, "all ", "--seeds 2, now 3"),
    ("verdict", {"only": "cascade"}, "", "--only , now cascade"),
]


@pytest.mark.parametrize(("folder", "options", "of", "words"), OTHER)
def test_other_work_is_not_judged_and_does_not_pass(folder, options, of, words, tmp_path, capsys):
    found, code, shown = compared(folder, tmp_path, capsys, **options)
    other = [each for each in found if each["verdict"] == "other work"]
    assert other == [each for each in found if " ".join(each["name"]).startswith(of)]
    for each in other:
        assert (each["ratio"], each["low"], each["high"], each["other_work"]) == (None, None, None, [words])
        assert each["a"]["median"] == each["b"]["median"], "what was measured is there all the same"
    assert code == 1
    reasons = [line for line in shown.err.splitlines() if line.startswith("could not be judged, as the work differs")]
    assert len(reasons) == len(other)
    assert reasons[0].endswith(f"({words}): {' '.join(other[0]['name'])}")
    assert any(line.rstrip().endswith("-  other work") for line in shown.out.splitlines())


SAME = [
    ("checkpoint", {"rounds": 30, "seed": 7}),
    ("heartbeat", {"rounds": 9, "steps": 7}),
    ("overhead", {"rounds": 9, "steps": 7, "seed": 1}),
    ("comm-cpu", {"rounds": 9, "seed": 1}),
    ("throughput-scaling-cpu", {"nproc": [2], "at_once": 1, "block_seconds": 9.0, "rounds": 50, "find_batch": False}),
    ("launch", {"rounds": 30}),
]


@pytest.mark.parametrize(("folder", "options"), SAME)
def test_more_rounds_and_longer_blocks_are_the_same_work(folder, options, tmp_path, capsys):
    found, _, _ = compared(folder, tmp_path, capsys, **options)
    assert {each["verdict"] for each in found} <= {"no change seen", "no interval", "too few rounds"}


def test_what_has_one_share_does_the_same_with_weak_scaling(tmp_path, capsys):
    found, _, _ = compared("throughput-scaling-cpu", tmp_path, capsys, scaling="weak")
    verdicts = {each["verdict"] == "other work" for each in found if each["name"][3].endswith("x2")}
    assert verdicts == {True}
    assert not [each for each in found if each["name"][3].endswith("x1") and each["verdict"] == "other work"]


def test_an_older_result_has_one_number_of_ranks_and_neither_size_nor_scaling(tmp_path, capsys):
    _, records = read_result(REPORTS / "throughput-bf16-cpu")
    assert records[0]["options"]["nproc"] == [2]
    found, _, _ = compared("throughput-bf16-cpu", tmp_path, capsys, nproc=2, size=None, scaling=None)
    assert "other work" not in {each["verdict"] for each in found}
