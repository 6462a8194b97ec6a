import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench_parts.arguments import UsageError
from checkpoint_parts.arguments import parse
from checkpoint_parts.ranks import command
from checkpoint_parts.tables import CASES, METHODS, layout_of


def options(*argv, cores=4, installed=lambda name: True):
    return parse(list(argv), cores=cores, installed=installed)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--methods dkt", "unknown method 'dkt'; known: accelerate, dcp"),
        ("--cases huge", "unknown case 'huge'; known: large, small"),
        ("--methods dtk,dtk", "--methods 'dtk,dtk' names one twice; known: plain, "),
        ("--cases ,", "--cases ',' names none; known: large, small"),
        ("--nproc 5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
        ("--mib -1", "--mib -1 is not a positive number"),
        ("--tensors 0", "--tensors 0 is not a positive number"),
        ("--settle -1", "--settle -1.0 is not between 0 and 60 seconds"),
        ("--settle nan", "--settle nan is not between 0 and 60 seconds"),
        ("--seed -1", "--seed -1 is not between"),
        ("--dir not-there", "--dir not-there is not a directory that can be written to; pass another --dir"),
        ("--device cpu", "unrecognized arguments: --device cpu; dtk bench checkpoint --help"),
    ],
)
def test_bad_input_is_one_message_that_says_what_to_do(argv, message):
    with pytest.raises(UsageError) as caught:
        options(*argv.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_refused_beforehand(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2 << 30, 1 << 30, 1 << 30))
    with pytest.raises(UsageError, match=r"has 1024 MiB free, and 1600 MiB are needed; pass another --dir, or a"):
        options("--dir", str(tmp_path))
    assert options("--dir", str(tmp_path), "--mib", "512").mib == 512


def test_everything_is_the_default_and_the_bare_files_are_first():
    assert options().methods == tuple(METHODS)
    assert options().cases == tuple(CASES)
    assert options("--methods", "dtk").methods == ("plain", "dtk")
    assert options("--methods", "dtk,plain").methods == ("plain", "dtk")


def test_a_missing_library_is_left_out_by_name():
    chosen = options(installed=lambda name: name != "lightning")
    assert "fabric" not in chosen.methods
    assert "accelerate" in chosen.methods
    assert chosen.left_out == (("fabric", "lightning"),)


def test_a_quick_run_is_the_same_run_but_small():
    quick, full = options("--quick"), options()
    assert (quick.methods, quick.cases) == (full.methods, full.cases)
    assert (quick.rounds, quick.mib, quick.settle) == (1, 4, 0.0)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_states_have_the_sizes_that_are_asked_for(ranks):
    large, small = (layout_of(case, ranks, 800, 5000) for case in CASES)
    assert large.bytes == pytest.approx(800 * 2**20, rel=1e-3)
    assert 25e6 < 4 * large.rows * large.columns < 50e6
    assert (small.tensors, small.bytes) == (5000, pytest.approx(100e6, rel=0.02))
    assert layout_of("large", ranks, 1, 1).bytes > 0


def test_the_ranks_are_started_with_every_option(tmp_path: Path):
    given = options("--nproc", "3", "--methods", "dtk", "--mib", "7", "--settle", "0.25")
    words = command(given, tmp_path / "files", 4, tmp_path / "run")
    assert words[:4] == [sys.executable, "-m", "dtk_launch", "launch"]
    for flag, value in {
        "--nproc": "3",
        "--methods": "plain,dtk",
        "--mib": "7",
        "--settle": "0.25",
        "--first": "4",
    }.items():
        assert words[words.index(flag) + 1] == value
    assert words[words.index("--folder") + 1] == str(tmp_path / "files")


def test_the_driver_needs_no_torch():
    check = "import sys; sys.path.insert(0, 'benchmarks'); import checkpoint; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60, cwd=Path(__file__).parents[3])
