import pytest
from bench_parts import markdown
from throughput_parts import report as made
from throughput_parts.arguments import parse
from throughput_parts.names import APART, APART_NOTE
from throughput_parts.terminal import Progress, show

from tests.unit.bench.conftest import mode_key

DP, DDP = [50.0, 1000.0, 1010.0, 990.0, 1000.0, 1005.0], [50.0, 1200.0, 1190.0, 1210.0, 1205.0, 1195.0]


def render(records):
    return markdown.text(made.render(records))


def test_the_report_of_a_quiet_machine_without_gpus(run_of, golden):
    golden("bench/quiet.md", render(run_of(dp=DP, ddp=DDP)))


def test_the_report_of_a_shared_machine(run_of, golden):
    golden("bench/shared.md", render(run_of(others=(0.0, 0.7, 0.0, 0.7, 0.7, 0.7), dp=DP, ddp=DDP)))


def test_a_ratio_whose_quartiles_hold_1_is_no_difference(run_of):
    text = render(run_of(dp=DP, ddp=[50.0, 900.0, 1100.0, 1000.0, 950.0, 1050.0]))
    assert "DDP on 2 ranks is about as fast as DataParallel on 2 cores (1.01x; " in text


def test_quartiles_that_hold_1_far_from_the_median_are_no_sameness(run_of):
    text = render(run_of(dp=DP, ddp=[50.0, 700.0, 700.0, 750.0, 1300.0, 1300.0]))
    assert "DDP on 2 ranks is neither clearly faster nor slower than DataParallel on 2 cores (0.76x; " in text


def test_gpus_are_named_and_nothing_is_said_about_cores(run_of):
    records = run_of(dp=DP, ddp=DDP)
    records[0] = {**records[0], "options": {**records[0]["options"], "gpus": 2, "device": "cuda"}}
    records = [{**r, "device": "Example GPU"} if r["kind"] == "setup" else r for r in records]
    text = render(records)
    assert "- On 2 x Example GPU." in text
    assert "throughput of DataParallel on 2 GPUs" in text
    assert "without a GPU" not in text


def test_one_strategy_alone_gives_a_rate(run_of):
    assert "busy: DDP on 2 ranks trains 1,200 samples/s." in render(run_of(ddp=DDP))


def test_of_many_strategies_the_highest_and_the_lowest_ratio_are_told(run_of):
    records = run_of(dp=DP, ddp=DDP, fsdp=[0.5 * rate for rate in DDP])
    more = [{**r, "strategy": to} for r in records if r.get("strategy") == "ddp" for to in ("zero1", "zero2")]
    more = [r | {"samples_per_s": 1.1 * r["samples_per_s"]} if r["kind"] == "block" else r for r in more]
    whole = sorted([*records, *more], key=lambda r: r["kind"] in ("steps", "block", "phases", "end"))  # set-ups first
    text = render(whole)
    assert "; of the 4 that are compared with DataParallel on 2 cores, ZeRO-2 on 2 ranks has the highest ratio" in text
    assert "highest ratio (1.32x, 1.31 to 1.33), FSDP on 2 ranks the lowest (0.60x, 0.59 to 0.60)" in text
    assert "DDP on 2 ranks has 1.20x the throughput of DataParallel" in text


def test_strategies_on_several_numbers_of_ranks(run_of, golden):
    rates = {"dp": DP, "ddp": DDP, "fsdp": [0.9 * r for r in DDP], "single": DP}
    rates["ddp4"] = [1.5 * rate for rate in DDP]
    golden("bench/scaling.md", render(run_of(**rates)))


def test_what_failed_is_named_and_the_rest_is_told(run_of):
    failed = {"kind": "failed", **mode_key("fsdp"), "why": "RuntimeError: no room"}
    records = [*run_of(dp=DP, ddp=DDP, status=None), failed, {"kind": "end", "status": "failed", "failed": "fsdp"}]
    text = render(records)
    assert "**Not all could be measured**: 1 failed, see below. The rest was measured in full." in text
    assert "- fsdp x2 on mlp (fp32, batch 100): `RuntimeError: no room`" in text


def test_the_largest_batches(run_of):
    fit = {"kind": "fit", **mode_key("ddp"), "ended_by": "memory", "tries": 9, "limit_mib": 2048.0}
    found = fit | {"per_process": 96, "global": 192, "mib": 1900.0, "step_seconds": 0.5, "samples_per_s": 384.0}
    none = fit | {"strategy": "dp", "per_process": None}
    text = render([*run_of(dp=DP, ddp=DDP, status=None), found, none, {"kind": "end", "status": "complete"}])
    assert "- ddp x2 on mlp (fp32): 96 samples a process, 192 over all, in 1,900 MiB." in text
    assert "- dp x2 on mlp (fp32): not even the smallest batch fits." in text
    assert "| mlp | fp32 | ddp x2 | 96 | 192 | 1,900 MiB | 0.50 s | memory |" in text
    assert "stay below 2,048 MiB" in text


def test_the_figures_are_files_with_names_of_their_own(run_of):
    figures = [part for part in made.render(run_of(dp=DP, ddp=DDP, fsdp=DDP)) if not isinstance(part, str)]
    names = [figure.name for figure in figures]
    assert names == ["throughput-ratios", "mlp-fp32-100-rates", "mlp-fp32-100-parts"]
    scaled = made.render(run_of(single=DP, ddp=DDP, ddp4=DDP))
    assert "mlp-fp32-100-scaling" in [part.name for part in scaled if not isinstance(part, str)]


@pytest.mark.parametrize("status", ["interrupted", "failed", None])
def test_a_run_that_did_not_complete_says_so(run_of, status):
    text = render(run_of(dp=DP, ddp=DDP, status=status))
    assert "What follows is from what was measured until then." in text


def test_a_run_without_a_block_says_so(run_of):
    assert "Nothing was measured." in render(run_of(dp=[1.0], status="interrupted"))


def test_a_setting_of_the_environment_is_told(run_of):
    records = run_of(dp=DP, ddp=DDP)
    records[0] = {**records[0], "environment": {"OMP_WAIT_POLICY": "passive"}}
    assert "- Default settings: `OMP_WAIT_POLICY=passive` was set." in render(records)


def test_progress_is_a_line_a_round(run_of, capsys):
    with Progress(parse([], cores=2, gpus=0)) as progress:
        for record in run_of(dp=[1.0, 2.0, 3.0], ddp=[4.0, 5.0, 6.0], status=None):
            progress.record(record)
        progress.update("the next ...")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines[:2]] == [
        "warm-up   dp x2 1   ddp x2 4   samples/s",
        "round 1 of 15   dp x2 2   ddp x2 5   samples/s",
    ]
    assert [line[-12:] for line in lines[2:]] == ["   samples/s", "the next ..."]


def test_the_table_on_the_terminal(run_of, capsys):
    show(run_of(dp=DP, ddp=DDP))
    out = capsys.readouterr().out
    assert "1,200 (1,195 to 1,205)" in out
    assert "1.20x dp x2 (1.19 to 1.21)" in out
    assert APART not in out


def test_a_ratio_of_strategies_that_were_not_alive_at_once_is_marked_wherever_it_stands(run_of, capsys):
    records = [{**r, "together": [r["strategy"]]} if r["kind"] == "setup" else r for r in run_of(dp=DP, ddp=DDP)]
    text = render(records)
    assert f"1.20x{APART} dp x2" in text
    assert APART_NOTE in text
    assert "(5 rounds, the middle half between 1.19 and 1.21; not alive at once)" in text
    assert APART not in render(run_of(dp=DP, ddp=DDP))
    show(records)
    out = capsys.readouterr().out
    assert f"1.20x{APART} dp x2" in out
    assert APART_NOTE in out


def test_scaling_over_one_that_was_not_alive_at_once_is_marked(run_of):
    records = [{**r, "together": [r["strategy"]]} if r["kind"] == "setup" else r for r in run_of(single=DP, ddp=DDP)]
    text = render(records)
    assert f"1.20x{APART} single x1 (60 %)" in text
    assert "(60 % efficiency; not alive at once)" in text


def test_rounds_free_of_other_programs_are_told_of_where_there_are_enough(run_of):
    busy = {"others": (0.0, 0.7, 0.0, 0.7, 0.0, 0.7), "dp": DP, "ddp": DDP}
    assert "free of other programs" not in render(run_of(**busy))
    rates = {"dp": [*DP, 1000.0, 1000.0], "ddp": [*DDP, 1100.0, 1200.0]}
    text = render(run_of(others=(0.0, 0.7, 0.0, 0.7, 0.7, 0.7, 0.0, 0.0), **rates))
    assert "In the 3 rounds free of other programs: DDP on 2 ranks 1.18x." in text


def test_weak_scaling_is_told_and_named(run_of):
    records = run_of(single=DP, ddp=DDP, ddp4=DDP)
    records[0] = {**records[0], "options": {**records[0]["options"], "scaling": "weak", "nproc": [2, 4]}}
    text = render(records)
    assert "Weak scaling: every rank has a batch of the same size." in text
    assert "batch 100 a rank" in text
    assert "DDP on 4 ranks gives 1.20x of one process on 1 core (30 % efficiency)" in text


def test_scaling_over_the_same_strategy_names_it(run_of):
    text = render(run_of(ddp=DDP, ddp4=[1.5 * rate for rate in DDP]))
    assert "DDP on 4 ranks gives 1.50x of DDP on 2 ranks (75 % efficiency)" in text


def test_exposed_communication_has_quartiles(run_of):
    records = run_of(dp=DP, ddp=DDP)
    found = iter((1.0, 2.0, 3.0, 4.0, 5.0))
    for record in records:
        if record["kind"] == "phases" and record["strategy"] == "ddp":
            record["parts"] = record["parts"] | {"communication": next(found)}
    assert "| 3.00 | 2.00 to 4.00 |" in render(records)


def test_of_few_steps_there_is_no_p95(run_of):
    text = render(run_of(dp=DP[:2], ddp=DDP[:2]))
    assert "| 100.0 ms | - |" in text
    assert "- The tail of step times: there are only 10 steps of some strategies." in text
