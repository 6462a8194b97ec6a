"""Logs by rank, and the progress line in its three places."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dist_toolkit.logs import LIVE_BYTES, Progress, logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rank_0_informs_and_others_warn_with_their_rank(capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (0, 1):
        log = logger(rank, 2)
        log.info("info of %d", rank)
        log.warning("warning of %d", rank)
    assert capsys.readouterr().err == "info of 0\nwarning of 0\n[rank 1] warning of 1\n"
    assert [type(handler).__name__ for handler in log.handlers].count("_StderrHandler") == 1


def test_in_a_log_only_whole_lines_are_printed() -> None:
    stream = io.StringIO()
    progress = Progress(True, stream=stream)
    assert not progress.wanted
    progress.update("never seen")
    progress.line("step 1")
    progress.close()
    assert stream.getvalue() == "step 1\n"


def test_on_a_terminal_progress_is_rewritten_in_place() -> None:
    stream = Terminal()
    progress = Progress(True, stream=stream)
    progress.update("step 1")
    assert not progress.wanted  # ten times a second at most
    progress.line("epoch done")
    progress.close()
    assert stream.getvalue() == "\r\x1b[Kstep 1\r\x1b[Kepoch done\n"


def test_under_dtk_progress_goes_to_a_file_of_fixed_size(tmp_path: Path) -> None:
    stream, live = io.StringIO(), tmp_path / "ranks" / "0.live"
    progress = Progress(True, live, stream)
    progress.update("é" * 300)
    assert live.stat().st_size == LIVE_BYTES
    assert live.read_text().strip() == "é" * 99  # cut at a whole character
    progress.line("epoch done")
    assert live.read_text().strip() == ""
    progress.close()
    assert stream.getvalue() == "epoch done\n"


def test_other_ranks_show_nothing(tmp_path: Path) -> None:
    stream = Terminal()
    progress = Progress(False, tmp_path / "0.live", stream)
    progress.update("x")
    progress.line("y")
    progress.close()
    assert stream.getvalue() == ""
    assert not (tmp_path / "0.live").exists()
