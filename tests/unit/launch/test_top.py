"""What dtk top draws on a terminal."""

from pathlib import Path

from dtk_launch.runview import RankView, RunView
from dtk_launch.tables import RANK_COLUMNS, rank_rows
from dtk_launch.top import _drawing, fitting
from rich.console import Console


def view(ranks):
    facts = {"name": "demo", "folder": Path("/runs/demo"), "state": "running", "why": "", "code": None, "hosts": ("n",)}
    facts |= {"nodes": 1, "nproc": len(ranks), "restarts": 0, "started": None, "seconds": None, "step": None}
    return RunView(**facts, metric=None, logging=False, checkpoint=None, ranks=tuple(ranks))


def drawn(ranks, width=120, height=40):
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as caught:
        console.print(_drawing(view(ranks), width, height))
    return [line.rstrip() for line in caught.get().splitlines() if line.strip()]


def test_columns_that_say_nothing_or_have_no_room_are_left_out():
    rank = RankView(0, "node-0123", "running", steps=7, rate=2.0, rss=1 << 30, cpu=99.0, slower=2.0)
    names = lambda width: [RANK_COLUMNS[i] for i in fitting(rank_rows(view([rank])), width)]  # noqa: E731
    assert names(120) == ["rank", "host", "state", "step", "steps/s", "RSS", "CPU", ""]
    assert names(60) == ["rank", "state", "step", "steps/s", "RSS", ""]
    assert names(10) == ["rank", "state", "step", "steps/s", ""]


def test_of_more_ranks_than_lines_the_conspicuous_ones_are_shown():
    ranks = [RankView(rank, "n", "running", steps=7) for rank in range(64)]
    ranks[40] = RankView(40, "n", "killed")
    ranks[50] = RankView(50, "n", "running", late=True)
    lines = drawn(ranks, height=15)
    assert len(lines) < 15
    shown = [line.split()[0] for line in lines[2:] if line.split()[0].isdigit()]
    assert shown[-2:] == ["40", "50"]
    assert shown[:3] == ["0", "1", "2"]
    assert f"and {64 - len(shown)} more ranks (dtk top --once shows all); q leaves" in lines[-1]


def test_no_name_is_taken_for_markup():
    assert any("[red]n" in line for line in drawn([RankView(0, "[red]n", "running")]))
