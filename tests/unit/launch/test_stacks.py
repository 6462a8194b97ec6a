"""Dumps of faulthandler: whose stack, what it waits in, and how ranks in one place are said together."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.diagnose.hang_words import Standing, groups_of, hang_json, held_up_lines, odd_ones, summary
from dtk_launch.diagnose.stacks import Frame, common_outer, is_complete, main_stack, threads
from dtk_launch.diagnose.waits import STOPPED, Kind, place_of
from dtk_launch.resources import worker_path

LIB, SITE = "/usr/lib/python3.11", "/venv/lib/python3.11/site-packages"
BOOTSTRAP = f'  File "{worker_path()}", line 130 in run\n  File "{worker_path()}", line 190 in <module>\n'
TEXTS = {
    ("/p/train.py", 41): "dist.all_reduce(x)",
    ("/p/train.py", 50): "    time.sleep(10)",
    ("/p/train.py", 51): "with self.lock:",
    ("/p/train.py", 52): "work.wait()",
    ("/p/train.py", 53): "loss.item()",
}


def dump(*frames, current=True):
    lines = "".join(f'  File "{file}", line {line} in {function}\n' for file, line, function in frames)
    return f"{'Current thread' if current else 'Thread'} 0x00007f (most recent call first):\n{lines}"


def main(*frames):
    return dump(*frames) + BOOTSTRAP


def place(*frames):
    return place_of(main_stack(main(*frames)), lambda file, line: TEXTS.get((file, line), ""))


REDUCE = (f"{SITE}/torch/distributed/distributed_c10d.py", 3005, "all_reduce")
BARRIER = (f"{SITE}/torch/distributed/distributed_c10d.py", 4811, "barrier")
WRAPPER = (f"{SITE}/torch/distributed/c10d_logger.py", 83, "wrapper")
TRAIN, TOP = ("/p/train.py", 41, "step"), ("/p/train.py", 99, "<module>")
QUEUE = (
    (f"{LIB}/selectors.py", 415, "select"),
    (f"{LIB}/multiprocessing/connection.py", 947, "wait"),
    (f"{LIB}/multiprocessing/queues.py", 113, "get"),
)


def torch(file, function):
    return (f"{SITE}/torch/{file}.py", 9, function)


def lib(file, function):
    return (f"{LIB}/{file}.py", 9, function)


HELPER, GATHER = (torch("distributed/distributed_c10d", name) for name in ("_object_to_tensor", "all_gather_object"))
NEXT = torch("utils/data/dataloader", "_try_get_data")
ENGINE, TENSOR = torch("autograd/graph", "_engine_run_backward"), torch("_tensor", "backward")
SAVE, WAIT = torch("serialization", "save"), lib("threading", "wait")
WAITS = {
    "collective": ((REDUCE, WRAPPER, TRAIN, TOP), Kind.COLLECTIVE, "all_reduce", 41),
    "nested": ((BARRIER, WRAPPER, SAVE, TRAIN), Kind.COLLECTIVE, "barrier", 41),
    "its own helper": ((HELPER, GATHER, TRAIN), Kind.COLLECTIVE, "all_gather_object", 41),
    "loader": ((*QUEUE, NEXT, TRAIN), Kind.DATA, "the DataLoader", 41),
    "backward": ((ENGINE, TENSOR, TRAIN), Kind.BACKWARD, "_engine_run_backward", 41),
    "save": ((torch("serialization", "_save"), SAVE, TRAIN), Kind.FILES, "save", 41),
    "compile": ((WAIT, torch("_inductor/async_compile", "wait"), TRAIN), Kind.COMPILE, "wait", 41),
    "program": ((lib("subprocess", "_try_wait"), lib("subprocess", "wait"), TRAIN), Kind.PROGRAM, "wait", 41),
    "queue": ((WAIT, lib("queue", "get"), TRAIN), Kind.LOCK, "get", 41),
    "future": ((WAIT, lib("concurrent/futures/_base", "result"), TRAIN), Kind.THREAD, "result", 41),
    "sleep": ((("/p/train.py", 50, "__getitem__"), TRAIN), Kind.SLEEP, "", 50),
    "lock": ((("/p/train.py", 51, "put"), TRAIN), Kind.LOCK, "", 51),
    "work": ((("/p/train.py", 52, "step"), TOP), Kind.COLLECTIVE, "wait", 52),
    "item": ((("/p/train.py", 53, "step"), TOP), Kind.CODE, "step", 53),
    "library": ((torch("nn/functional", "linear"), torch("nn/module", "_call"), TRAIN), Kind.CODE, "linear", 41),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_a_stack_waits_in(name):
    frames, kind, call, line = WAITS[name]
    found = place(*frames)
    assert (found.kind, found.call, found.user.line) == (kind, call, line)


def test_the_main_thread_is_the_last_and_its_first_frames_are_not_the_users():
    text = (
        dump((f"{LIB}/threading.py", 1, "_bootstrap"), current=True)
        + "\n"
        + dump(TRAIN, TOP, current=False)
        + BOOTSTRAP
    )
    assert [thread.current for thread in threads(text)] == [True, False]
    assert [(frame.line, frame.function) for frame in main_stack(text)] == [(41, "step"), (99, "<module>")]


def test_a_forked_worker_is_not_where_it_was_forked():
    data = ("/p/data.py", 88, "__getitem__")
    text = main(data, (f"{LIB}/multiprocessing/popen_fork.py", 71, "_launch"), TRAIN, TOP)
    assert [frame.line for frame in main_stack(text)] == [88]
    idle = main(*QUEUE, (f"{LIB}/multiprocessing/popen_fork.py", 71, "_launch"), TRAIN, TOP)
    assert place_of(main_stack(idle), lambda file, line: "").user is None


def test_a_rank_that_waits_for_its_forked_child_is_where_it_waits():
    waits = [
        (f"{LIB}/multiprocessing/{file}.py", 43, name)
        for file, name in (("popen_fork", "poll"), ("popen_fork", "wait"), ("process", "join"))
    ]
    assert (place(*waits, TRAIN, TOP).kind, place(*waits, TRAIN, TOP).user.line) == (Kind.LOCK, 41)


def test_a_dump_that_is_still_being_written_is_known():
    whole = dump((f"{LIB}/threading.py", 1, "_bootstrap"), current=False) + "\n" + main(REDUCE, TRAIN, TOP)
    ends = [end for end in range(len(whole) + 1) if is_complete(whole[:end])]
    # the script's own <module> may be taken for the last frame: the bootstrap's two are all that it lacks then
    assert ends
    assert min(ends) >= len(whole) - len(BOOTSTRAP)
    assert main_stack(whole[: min(ends)]) == main_stack(whole)
    assert is_complete(dump(*[TRAIN] * 100) + "  ...\n")
    assert main_stack("") == ()


def test_python_of_later_versions_names_threads():
    text = 'Current thread 0x00007f [MainThread] (most recent call first):\n  File "/p/train.py", line 41 in <module>\n'
    assert main_stack(text)[0].line == 41


IN_REDUCE = place(REDUCE, TRAIN, TOP)
IN_BARRIER = place(BARRIER, ("/p/train.py", 60, "save"), TOP)
IN_DATA = place(("/p/data.py", 88, "__getitem__"), TOP)
IN_BACKWARD = place(ENGINE, TENSOR, TRAIN, TOP)
WAITING = "waits in all_reduce (train.py:41)"
CWD = Path("/p")


@pytest.mark.parametrize(
    ("places", "odd", "first"),
    [
        ([IN_REDUCE, IN_REDUCE, IN_DATA, IN_REDUCE], [2], "rank 2 is in __getitem__ (data.py:88)"),
        ([IN_BARRIER, IN_REDUCE, IN_REDUCE], [0], "rank 0 waits in barrier (train.py:60)"),
        (
            [IN_REDUCE, IN_BARRIER],
            [],
            "rank 0 waits in all_reduce (train.py:41); rank 1 waits in barrier (train.py:60)",
        ),
        ([IN_REDUCE] * 3, [], "ranks 0, 1 and 2 wait in all_reduce (train.py:41)"),
        ([IN_DATA], [], "rank 0 is in __getitem__ (data.py:88)"),
        ([IN_REDUCE, None], [1], "rank 1 tells nothing"),
        ([IN_BACKWARD, IN_DATA, IN_BACKWARD], [1], "rank 1 is in __getitem__ (data.py:88)"),
        ([IN_BACKWARD, STOPPED], [1], "rank 1 is stopped (SIGSTOP; kill -CONT lets it go on)"),
    ],
)
def test_the_odd_rank_is_named(places, odd, first):
    standings = [Standing(rank, where) for rank, where in enumerate(places)]
    assert sorted(rank for group in odd_ones(groups_of(standings)) for rank in group.ranks) == odd
    assert summary(standings, CWD)[0] == first
    assert hang_json(standings, {})["odd"] == odd


def test_a_rank_that_works_in_backward_waits_for_nobody():
    standings = [Standing(0, IN_BACKWARD), Standing(1, IN_BACKWARD, busy=True), Standing(2, IN_REDUCE)]
    assert hang_json(standings, {})["odd"] == [1]
    assert summary(standings, CWD)[0].startswith("rank 1 keeps computing in")


def test_the_texts_of_several_places_say_whose_they_are():
    other = replace(IN_BARRIER, text="dist.barrier()")
    assert summary([Standing(0, IN_REDUCE), Standing(1, other)], CWD)[1:] == [
        "    rank 0: dist.all_reduce(x)",
        "    rank 1: dist.barrier()",
    ]


def test_equal_stacks_are_said_once_with_the_line():
    standings = [Standing(rank, IN_REDUCE) for rank in (0, 1, 3)] + [Standing(2, IN_DATA, busy=True)]
    assert summary(standings, CWD) == [
        "rank 2 keeps computing in __getitem__ (data.py:88)",
        "ranks 0, 1 and 3 wait in all_reduce (train.py:41)",
        "    dist.all_reduce(x)",
    ]


def test_the_node_of_a_rank_is_said_where_there_are_several():
    standings = [Standing(0, IN_REDUCE, on="a (node 0)"), Standing(1, IN_REDUCE, on="b (node 1)")]
    standings.append(Standing(2, IN_DATA, on="b (node 1)"))
    assert summary(standings, CWD)[:3:2] == [
        "rank 2 on b (node 1) is in __getitem__ (data.py:88)",
        "    dist.all_reduce(x)",
    ]
    assert summary(standings, CWD)[1] == "ranks 0 and 1 on 2 nodes wait in all_reduce (train.py:41)"
    assert [group["nodes"] for group in hang_json(standings, {})["groups"]] == [
        ["a (node 0)", "b (node 1)"],
        ["b (node 1)"],
    ]


def test_what_two_stacks_have_in_common():
    f, g, loop = Frame("t.py", 1, "f"), Frame("t.py", 2, "g"), [Frame("t.py", n, "loop") for n in (7, 8)]
    top = (Frame("t.py", 9, "<module>"),)
    assert common_outer((f, loop[0], *top), (g, loop[0], *top)) == (loop[0], *top)
    assert common_outer((f, loop[0], *top), (f, loop[1], *top)) == (loop[1], *top)
    assert common_outer((f, *top), ()) == ()


def test_ranks_at_work_for_which_others_wait():
    loop = Frame("/p/train.py", 50, "loop")
    standings = [Standing(0, IN_REDUCE, on="a (node 0)"), Standing(1, IN_DATA, (), False, "b (node 1)", True, loop)]
    assert held_up_lines(standings, CWD) == [
        "rank 1 on b (node 1) is at work, at each look in loop (train.py:50)",
        "rank 0 on a (node 0) waits in all_reduce (train.py:41)",
    ]
