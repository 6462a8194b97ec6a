import os

import pytest
from dtk_launch import follow
from dtk_launch.follow import Follower
from dtk_launch.ranklist import parse_ranks


@pytest.fixture
def followed(tmp_path):
    """A folder of logs, and a function that pumps and returns what was printed on stdout and stderr."""
    read_end, out = os.pipe()
    read_err, err = os.pipe()
    for descriptor in (read_end, read_err):
        os.set_blocking(descriptor, False)
    (tmp_path / "0.log").write_text("of an earlier launch\n")

    def printed(follower, final=False):
        follower.pump(final)
        texts = []
        for descriptor in (read_end, read_err):
            try:
                texts.append(os.read(descriptor, 1 << 16).decode())
            except BlockingIOError:
                texts.append("")
        return tuple(texts)

    yield tmp_path, lambda host=None: Follower(tmp_path, host, out, err, {}), printed
    for descriptor in (read_end, out, read_err, err):
        os.close(descriptor)


def append(path, text):
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_lines_get_their_rank_and_an_earlier_launch_is_not_shown(followed):
    folder, start, printed = followed
    follower = start()
    append(folder / "0.log", "a\nb\n")
    append(folder / "1.log", "c\n")
    append(folder / "1.err", "oh\n")
    follower.add(0)
    follower.add(1)
    assert printed(follower) == ("[0] a\n[0] b\n[1] c\n", "[1] oh\n")
    assert printed(follower) == ("", "")
    follower.add(0)
    append(folder / "0.log", "d\n")
    assert printed(follower) == ("[0] d\n", "")


def test_several_nodes_name_the_host(followed):
    folder, start, printed = followed
    follower = start("n2")
    follower.add(3)
    append(folder / "3.log", "x\n")
    assert printed(follower)[0] == "[n2:3] x\n"


def test_an_unfinished_line_waits_until_it_rests(followed, monkeypatch):
    folder, start, printed = followed
    follower = start()
    follower.add(0)
    append(folder / "0.log", "half")
    assert printed(follower)[0] == ""
    append(folder / "0.log", " whole\nrest")
    assert printed(follower)[0] == "[0] half whole\n"
    assert printed(follower, final=True)[0] == "[0] rest\n"
    append(folder / "0.log", "prompt: ")
    monkeypatch.setattr(follow, "_PARTIAL_AFTER", -1)
    assert printed(follower)[0] == "[0] prompt: \n"


def test_a_line_longer_than_one_look_stays_one_line_at_the_end(tmp_path):
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    follower = Follower(tmp_path, None, out, out, {})
    follower.add(0)
    long = "x" * ((1 << 20) + 5)
    append(tmp_path / "0.log", f"{long}\n{long}")
    assert follower.pump(final=True)
    os.close(out)
    assert (tmp_path / "out").read_text() == f"[0] {long}\n[0] {long}\n"


def test_quiet_ranks_are_not_shown(followed):
    folder, _, _ = followed
    read_end, out = os.pipe()
    follower = Follower(folder, None, out, out, {}, parse_ranks("others", "--quiet-ranks"))
    for rank in range(3):
        follower.add(rank)
        append(folder / f"{rank}.log", f"of {rank}\n")
    assert follower.pump()
    assert not follower.pump()
    os.close(out)
    with open(read_end) as shown:
        assert shown.read() == "[0] of 0\n"


def test_a_reader_that_went_away_does_not_stop_the_run(tmp_path):
    read_end, out = os.pipe()
    follower = Follower(tmp_path, None, out, out, {})
    follower.add(0)
    os.close(read_end)
    for text in ("a\n", "b\n"):
        append(tmp_path / "0.log", text)
        follower.pump()
    os.close(out)
