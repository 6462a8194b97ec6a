import pytest
from bench_parts import markdown
from throughput_parts import report as made

DP, DDP = [50.0, 1000.0, 1010.0, 990.0, 1000.0, 1005.0], [50.0, 1200.0, 1190.0, 1210.0, 1205.0, 1195.0]


def render(records):
    return markdown.text(made.render(records))


def test_the_report_of_a_quiet_machine_without_gpus(run_of, golden):
    golden("bench/quiet.md", render(run_of(dp=DP, ddp=DDP)))


def test_the_report_of_a_shared_machine(run_of, golden):
    golden("bench/shared.md", render(run_of(others=(0.0, 0.7, 0.0, 0.7, 0.7, 0.7), dp=DP, ddp=DDP)))


def test_a_ratio_whose_quartiles_hold_1_is_no_difference(run_of):
    text = render(run_of(dp=DP, ddp=[50.0, 900.0, 1100.0, 1000.0, 950.0, 1050.0]))
    assert "**DDP on 2 ranks is about as fast as DataParallel on mlp (1.01x)**" in text


def test_gpus_are_named_and_nothing_is_said_about_cores(run_of):
    records = run_of(dp=DP, ddp=DDP)
    records[0] = {**records[0], "options": {**records[0]["options"], "gpus": 2, "device": "cuda"}}
    records = [{**r, "device": "Example GPU"} if r["kind"] == "setup" else r for r in records]
    text = render(records)
    assert "on 2 x Example GPU; median" in text
    assert "without a GPU" not in text


def test_one_strategy_alone_gives_a_rate(run_of):
    assert "- DDP on 2 ranks trains 1,200 samples/s of mlp." in render(run_of(ddp=DDP))


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
