import subprocess
import sys
from pathlib import Path

import pytest
from bench_parts.arguments import UsageError
from bench_parts.processes import clean_environment
from overhead_parts.arguments import parse
from overhead_parts.ranks import command
from overhead_parts.tables import FEEDS, LOOPS


def options(*argv, cores=4, gpus=0, installed=lambda name: True):
    return parse(list(argv), cores=cores, gpus=gpus, installed=installed)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--loops dkt", "unknown loop 'dkt'; known: accelerate, dtk"),
        ("--feeds disk", "unknown feed 'disk'; known: loader, memory"),
        ("--loops dtk,dtk", "--loops 'dtk,dtk' names one twice; known: hand, "),
        ("--feeds ,", "--feeds ',' names none; known: memory, loader"),
        (
            "--loops dtk,dtk-steps --feeds memory",
            "--loops dtk-steps takes its batches from loader, and --feeds is memory",
        ),
        ("--loops dtk-log --feeds loader", "add memory to --feeds, or drop dtk-log"),
        ("--nproc 5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
        ("--steps -1", "--steps -1 is not a positive number"),
        ("--seed -1", "--seed -1 is not between"),
        ("--device cuda", "--device cuda, but there is no GPU here; pass --device cpu"),
        ("--speed 3", "unrecognized arguments: --speed 3; dtk bench overhead --help"),
    ],
)
def test_bad_input_is_one_message_that_says_what_to_do(argv, message):
    with pytest.raises(UsageError) as caught:
        options(*argv.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_ranks_than_gpus_are_refused_and_all_gpus_are_the_default():
    with pytest.raises(UsageError, match="--nproc 3 needs 3 GPUs, and 2 can be used"):
        options("--nproc", "3", gpus=2)
    chosen = options(gpus=2)
    assert (chosen.nproc, chosen.device, chosen.threads) == (2, "cuda", 2)
    assert options("--device", "cpu", gpus=2).device == "cpu"


def test_everything_is_the_default():
    assert options().loops == tuple(LOOPS)
    assert options().feeds == tuple(FEEDS)


def test_without_names_the_loops_are_those_that_fit_the_feeds():
    assert "dtk-steps" not in options("--feeds", "memory").loops
    assert options("--feeds", "loader").loops == tuple(n for n, spec in LOOPS.items() if "loader" in spec.feeds)
    assert options("--loops", "dtk-steps,dtk-log").loops == ("hand", "dtk-steps", "dtk-log")


def test_the_hand_written_loop_is_always_there_and_first():
    assert options("--loops", "dtk").loops == ("hand", "dtk")
    assert options("--loops", "dtk,hand").loops == ("hand", "dtk")


def test_a_missing_library_is_left_out_by_name():
    chosen = options(installed=lambda name: name != "lightning")
    assert "fabric" not in chosen.loops
    assert "accelerate" in chosen.loops
    assert chosen.left_out == (("fabric", "lightning"),)


def test_a_quick_run_is_the_same_run_but_small():
    quick, full = options("--quick"), options()
    assert quick.loops == full.loops
    assert quick.rounds * quick.steps < 20 < full.rounds * full.steps


def test_the_ranks_are_started_with_every_option(tmp_path: Path):
    words = command(options("--nproc", "3", "--loops", "dtk", "--width", "7"), 4, tmp_path / "run")
    assert words[:4] == [sys.executable, "-m", "dtk_launch", "launch"]
    assert words[words.index("--nproc") + 1] == "3"
    assert words[words.index("--loops") + 1] == "hand,dtk"
    assert words[words.index("--width") + 1] == "7"
    assert words[words.index("--first") + 1] == "4"


def test_nothing_of_another_run_reaches_the_ranks():
    before = {"RANK": "3", "MASTER_ADDR": "elsewhere", "DTK_STRATEGY": "fsdp", "ACCELERATE_X": "1", "HOME": "/home/me"}
    seen = clean_environment(before, options("--nproc", "2").threads)
    assert seen == {"HOME": "/home/me", "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}


def test_the_driver_needs_no_torch():
    check = "import sys; sys.path.insert(0, 'benchmarks'); import overhead; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60, cwd=Path(__file__).parents[3])
