"""What a rank and dtk do with what the disk does not take. /dev/full says "No space left on device" to every write."""

import json
import os
import time
from pathlib import Path

import pytest
from dtk_launch import wholefile
from dtk_launch.diagnose.culprit import judge
from dtk_launch.diagnose.evidence import RankEnd
from dtk_launch.diagnose.words import verdict_lines
from dtk_launch.rank_files import RankRecord
from dtk_launch.rank_record import Record, record_error
from dtk_launch.ranks import RankWatch
from dtk_launch.vitals import MOST_WORDS, PAGE, Page, create_file

FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="needs /dev/full")


def failed(tmp_path, error):
    """What a rank leaves that cannot write its record after this error."""
    left = []
    record = Record(str(tmp_path), "0", "h:1", left.append)
    (tmp_path / "0.json.tmp").symlink_to(FULL)
    try:
        raise error
    except type(error) as raised:
        record_error(record, raised, raised.__traceback__)
    assert list(tmp_path.iterdir()) == []
    *_, said = left  # the last counts: the first was left in a hurry
    assert len(said) < MOST_WORDS
    return RankRecord.parse(said)


@pytest.mark.parametrize("message", ["bad", "x" * 9000, "🏖" * 9000, "\udce9\n" * 9000])
def test_an_error_that_cannot_be_written_is_left_for_dtk(tmp_path, message):
    record = failed(tmp_path, ValueError(message))
    assert (record.unwritten, record.exit.code, record.exit.type) == ("No space left on device", 1, "ValueError")
    assert record.exit.message[:1] in (message[:1], "?")
    assert record.exit.where["text"] == "raise error"


def test_a_place_too_long_for_the_page_is_left_out(tmp_path):
    record = failed(tmp_path, SyntaxError("bad", ("t.py", 3, 0, "x = " * 9000)))
    assert (record.exit.type, record.exit.where) == ("SyntaxError", None)


@pytest.fixture
def page():
    """Of two ranks' pages the descriptor, and the second one, held by this process."""
    pages = create_file(2)
    if pages is None:
        pytest.skip("needs memfd_create")
    held = Page(pages, PAGE)
    assert held.hold()
    yield pages, held
    os.close(pages)


def entry(**fields):
    whole = {"rank": 1, "local_rank": 1, "pid": os.getpid(), "host": "h", "restart": 0, "supervisor": "h:1"}
    return json.dumps(whole | {"started_ns": time.time_ns()} | fields)


EXIT = {"code": 1, "type": "ValueError", "message": "bad", "traceback": "", "time_ns": 5}


def test_dtk_reads_the_records_that_were_left(tmp_path, page):
    watch = RankWatch(tmp_path, "h:1", 2, one_node=True, vitals=page[0])
    watch.look_again()
    assert watch.records == {}
    page[1].leave(entry(unwritten="full").encode())
    watch.look_again()
    assert (watch.records[1].exit, watch.records[1].unwritten) == (None, "full")
    page[1].leave(entry(unwritten="full", exit=EXIT).encode())
    watch.close()
    assert watch.records[1].exit.message == "bad"


def test_what_was_left_does_not_replace_an_end_that_was_written(tmp_path, page):
    watch = RankWatch(tmp_path, "h:1", 2, one_node=True, vitals=page[0])
    page[1].leave(entry(unwritten="full").encode())
    (tmp_path / "1.json").write_text(entry(exit=EXIT))
    watch.close()
    assert watch.records[1].exit.message == "bad"


def test_what_another_launch_has_left_is_not_read(tmp_path, page):
    watch = RankWatch(tmp_path, "h:1", 2, one_node=True, vitals=page[0])
    page[1].leave(entry(supervisor="h:2").encode())
    watch.close()
    assert watch.records == {}


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    path, temporary = tmp_path / "verdict.json", tmp_path / ".tmp"
    wholefile.put(path, "old", temporary)
    temporary.symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        wholefile.put(path, "new", temporary)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("verdict.json", "old")]


def test_json_with_the_bytes_of_a_name_that_is_no_utf8_is_written_and_read_again(tmp_path):
    odd = {"message": os.fsdecode(b"no file caf\xe9")}
    wholefile.put(tmp_path / "verdict.json", json.dumps(odd, ensure_ascii=False), tmp_path / ".tmp")
    assert json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8")) == odd


@pytest.mark.parametrize(
    ("kept", "said"), [(True, "the verdict: /run/verdict.json"), (False, "there is no verdict.json")]
)
def test_the_verdict_says_why_nothing_was_written_and_names_no_file_that_is_not_there(kept, said):
    culprit = RankEnd(1, "0", "h", 5, 5, 1, type="ValueError", message="bad")
    lines = verdict_lines(judge([culprit]), Path("/run"), unwritten="No space left on device", kept=kept)
    assert lines[1].startswith("  the run directory could not be written (No space left on device): output, records")
    assert lines[2:] == [f"  its output: /run/ranks/1.err; {said}"]


def test_how_a_rank_fails_is_known_though_it_is_ended_while_it_writes_that(tmp_path, page):
    """Its first words are in memory before the traceback, whose formatting can take long, is made."""

    class Heavy(Exception):
        @property
        def __notes__(self):  # what a traceback shows last
            raise SystemExit("ended by torchrun")

    record = Record(str(tmp_path), "1", "h:1", page[1].leave)
    with pytest.raises(SystemExit):
        record_error(record, Heavy("Connection closed by peer"), None)
    watch = RankWatch(tmp_path, "h:1", 2, one_node=True, vitals=page[0])
    watch._since_ns = 0
    watch.close()
    found = watch.records[1].exit
    assert (found.code, found.type, found.message, found.where) == (1, "Heavy", "Connection closed by peer", None)


def test_the_moment_of_an_error_is_that_at_which_it_left_the_script(tmp_path):
    record = Record(str(tmp_path), "1", "h:1")
    record_error(record, ValueError("bad"), None, (5, 7), lambda *_: time.sleep(0.01) or [])
    found = RankRecord.read(tmp_path / "1.json").exit
    assert (found.time_ns, found.mono_ns) == (5, 7)


def test_an_error_that_brings_its_own_moment_keeps_it(tmp_path):
    error = ValueError("bad")
    error.time_ns = 3
    record_error(Record(str(tmp_path), "1", "h:1"), error, None, (5, 7))
    found = RankRecord.read(tmp_path / "1.json").exit
    assert (found.time_ns, found.mono_ns) == (3, 5)
