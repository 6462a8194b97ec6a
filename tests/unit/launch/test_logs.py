"""The output of ranks from their files."""

import json

import pytest
from dtk_launch import logs
from dtk_launch.logs import LogOptions, lines, start_of_tail
from dtk_launch.ranklist import parse_ranks


@pytest.fixture
def run(tmp_path):
    """A run directory, and a function that changes its node's entry."""
    (tmp_path / "ranks").mkdir()
    for rank in (0, 1, 10):
        (tmp_path / f"ranks/{rank}.log").write_text("".join(f"out {rank} {n}\n" for n in range(3)))
    (tmp_path / "ranks/1.err").write_text("err 1 0\nunfinished")
    for name in ("0.live", "1.json", "1.fault"):
        (tmp_path / f"ranks/{name}").write_text("{}")

    def state(state="ended", nodes=1, **facts):
        (tmp_path / "nodes").mkdir(exist_ok=True)
        (tmp_path / "plan.json").write_text(json.dumps({"topology": {"nodes": nodes, "nproc": 3}}))
        (tmp_path / "nodes/0.json").write_text(json.dumps({"host": "n", "state": state, "exit_code": 0, **facts}))

    state()
    return tmp_path, state


def text(run, **options):
    return b"".join(lines(run[0], LogOptions(**options), follow=False)).decode().splitlines()


def test_rank_by_rank_out_before_err(run):
    assert text(run) == [
        *(f"[0] out 0 {n}" for n in range(3)),
        *(f"[1] out 1 {n}" for n in range(3)),
        "[1] err 1 0",
        "[1] unfinished",
        *(f"[10] out 10 {n}" for n in range(3)),
    ]


def test_what_is_asked_for(run):
    assert text(run, suffixes=("err",), prefixed=False) == ["err 1 0", "unfinished"]
    assert text(run, ranks=parse_ranks("10", "--rank"), tail=1) == ["[10] out 10 2"]
    assert text(run, suffixes=("log",), tail=0) == []
    assert text(run, ranks=parse_ranks("5", "--rank")) == []


def test_several_nodes_name_the_host(run):
    record = {"rank": 1, "local_rank": 0, "pid": 1, "host": "n2.example.org", "restart": 0, "supervisor": None}
    (run[0] / "ranks/1.json").write_text(json.dumps(record | {"started_ns": 1}))
    run[1](nodes=2)
    assert text(run, tail=1, suffixes=("log",)) == ["[0] out 0 2", "[n2:1] out 1 2", "[10] out 10 2"]


def test_following_names_the_host_also_when_it_began_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(logs, "_POLL", 0.0)
    looks = []

    def over(view):
        looks.append(view.nodes)
        if len(looks) == 2:  # it was in the queue until now
            record = {"rank": 0, "local_rank": 0, "pid": 1, "host": "n1", "restart": 0, "supervisor": None}
            (tmp_path / "plan.json").write_text(json.dumps({"topology": {"nodes": 2, "nproc": 1}}))
            (tmp_path / "ranks").mkdir()
            (tmp_path / "ranks/0.json").write_text(json.dumps(record | {"started_ns": 1}))
        if len(looks) == 3:
            (tmp_path / "ranks/0.log").write_text("out\n")
        return len(looks) > 3

    assert list(lines(tmp_path, LogOptions(), follow=True, ended=over)) == [b"[n1:0] out\n"]


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_a_tail_is_found_from_the_end(tmp_path, monkeypatch, block):
    monkeypatch.setattr(logs, "_BLOCK", block)
    path = tmp_path / "0.log"
    for content, whole in (("a\nbb\n\nccc\n", ["a\n", "bb\n", "\n", "ccc\n"]), ("a\nbb", ["a\n", "bb"]), ("", [])):
        path.write_text(content)
        for count in range(6):
            assert content[start_of_tail(path, count) :] == "".join(whole[len(whole) - min(count, len(whole)) :])
    assert start_of_tail(tmp_path / "none", 3) == 0


def test_a_tail_does_not_read_the_rest(tmp_path):
    path = tmp_path / "0.log"
    with path.open("wb") as file:  # a file with a hole: reading all of it would take minutes and all memory
        file.truncate(1 << 40)
        file.seek(0, 2)
        file.write(b"\nthe last\n")
    assert start_of_tail(path, 1) == (1 << 40) + 1


def test_following_shows_what_comes_from_whichever_rank_until_the_run_is_over(run, monkeypatch):
    folder, state = run
    state("running", pid=1, time_ns=1)
    monkeypatch.setattr(logs, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(logs, "_POLL", 0.001)
    following = lines(folder, LogOptions(suffixes=("log",), tail=1), follow=True)
    assert [next(following) for _ in range(3)] == [b"[0] out 0 2\n", b"[1] out 1 2\n", b"[10] out 10 2\n"]

    def append(rank, text):
        with (folder / f"ranks/{rank}.log").open("a") as file:
            file.write(text)

    append(1, "half")
    append(0, "whole\n")
    assert next(following) == b"[0] whole\n"
    append(1, " done\n")
    assert next(following) == b"[1] half done\n"
    append(2, "a new rank\n")
    assert next(following) == b"[2] a new rank\n"
    append(0, "of a restart\nthe last, unfinished")
    state("ended")
    assert list(following) == [b"[0] of a restart\n", b"[0] the last, unfinished\n"]
