import pytest
from bench_parts.figures import Lines
from bench_parts.markdown import text
from bench_parts.nodes import boot_number
from bench_parts.others import UNKNOWN
from comm_parts.report import render
from comm_parts.terminal import show

from tests.unit.bench.comm_records import TYPICAL, case, run

ACROSS = (
    case("all-reduce", 1024, 300, 310, 320, scope="across", ranks=4),
    case("all-reduce", 1048576, 4000, 4400, 4800, scope="across", ranks=4),
)
ON_ONE_GPU = (
    case("all-reduce", 1024, 4, backend="nccl", ranks=1),
    case("all-gather", 1024, 8, backend="nccl", ranks=1),
    case("all-gather", 1048576, 10, backend="nccl", ranks=1),
)


def test_a_whole_report(golden):
    left_out = {
        "kind": "left_out", "backend": "gloo", "scope": "within", "operation": "reduce-scatter", "size": 1024,
        "why": "gloo does not support it",
    }  # fmt: skip
    idle = [{"kind": "idle", "round": number, "others_cores": 0.3} for number in (1, 2, 3)]
    records = run(*TYPICAL, *ACROSS, [left_out, {**left_out, "size": 2048}], idle, nodes=2, ranks=4, one_machine=False)
    golden("bench/comm.md", text(render(records)))


def test_nodes_that_share_a_kernel_are_told_to_be_one_machine():
    shared = text(render(run(*TYPICAL, *ACROSS, nodes=2, ranks=4, one_machine=True)))
    assert "- The 2 nodes are parts of one machine (they run on the same kernel and share its cores)" in shared
    assert "- A network: what the nodes sent each other never left the machine" in shared
    apart = text(render(run(*TYPICAL, *ACROSS, nodes=2, ranks=4, one_machine=False)))
    assert "one machine" not in apart
    assert "- A network" not in apart
    assert UNKNOWN in apart


def test_a_kernel_is_known_by_its_boot(tmp_path):
    (tmp_path / "boot_id").write_text("1c0c49ad-27a5-4b95-bea1-9f86f3a3f1c6\n")
    assert boot_number(tmp_path / "boot_id") == 0x1C0C49AD27A5
    assert boot_number(tmp_path / "none") == 0
    assert boot_number() == boot_number()


def test_one_device_has_copies_and_no_bus():
    report = render(run(*ON_ONE_GPU, device="Example GPU", nccl="2.27.3", ranks=1))
    figures = {part.name: part for part in report if isinstance(part, Lines)}
    assert [name for name, _ in figures["bandwidth-nccl-within"].series] == ["all-gather"]
    assert [name for name, _ in figures["time-nccl-within"].series] == ["all-reduce", "all-gather"]
    words = text(report)
    assert "- nccl: copies within one device: all-gather 105 GB/s (at 1 MiB); one rank sends nothing." in words
    assert "The cheapest call takes 4 µs." in words
    assert "there is no bus bandwidth" in words
    assert "| nccl | 2.27.3 |" in words
    assert "No GPU was used" not in words


@pytest.mark.parametrize(
    ("status", "words"), [("interrupted", "was interrupted"), ("failed", "failed"), (None, "did not finish")]
)
def test_a_run_that_did_not_complete_says_so(status, words):
    assert f"**The run {words}.**" in text(render(run(*TYPICAL, status=status)))


def test_a_wrong_result_is_in_the_report_and_on_the_terminal(capsys):
    records = run(case("broadcast", 1024, 5, right=False))
    assert "**Wrong results**: broadcast of 1 KiB by gloo within." in text(render(records))
    show(records)
    assert "wrong" in capsys.readouterr().out


def test_nothing_measured_says_so():
    assert "Nothing was measured." in text(render(run(status="failed")))


def test_the_terminal_shows_every_case(capsys):
    show(run(*TYPICAL))
    out = capsys.readouterr().out
    assert "all-gather" in out
    assert "1 MiB" in out
