"""The desync guard on real ranks: what is named, how it reaches the ranks, and what it must not take for a desync."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import dist_toolkit as dtk
from dist_toolkit.errors import DesyncError
from dist_toolkit.testing import Outcome, Ranks, run_ranks, start_ranks

pytestmark = pytest.mark.multiproc


def simple_engine(rt: dtk.Runtime) -> dtk.Engine:
    return rt.setup(partial(nn.Linear, 4, 2), partial(torch.optim.SGD, lr=0.1))


def train(engine: dtk.Engine, rt: dtk.Runtime, steps: int, body: Callable[[int], None] = lambda step: None) -> None:
    for step in range(1, steps + 1):
        rt.group.step = step
        loss = engine(torch.ones(2, 4)).sum()
        engine.backward(loss)
        engine.step()
        body(step)


# --- programs that are wrong ----------------------------------------------------------------------------------------


def gather_in_a_branch(rt: dtk.Runtime, folder: str) -> None:
    def body(step: int) -> None:
        if step == 3 and rt.is_main:
            rt.gather(torch.ones(2))  # the stray gather

    train(simple_engine(rt), rt, 5, body)


def barrier_in_a_branch(rt: dtk.Runtime, folder: str) -> None:
    mean = rt.mean()
    mean.update(torch.ones(3))
    if rt.world.rank == 1:
        rt.group.barrier()  # the stray barrier
    mean.compute()  # the mean that all compute


def swapped(rt: dtk.Runtime, folder: str) -> None:
    mean = rt.mean()
    mean.update(torch.ones(3))
    if rt.is_main:
        rt.gather(torch.ones(1))  # gather first
        mean.compute()
    else:
        mean.compute()  # mean first
        rt.gather(torch.ones(1))
    rt.gather(torch.ones(1))


def save_in_a_branch(rt: dtk.Runtime, folder: str) -> None:
    engine = simple_engine(rt)
    checkpointer = rt.checkpointer(folder, engine=engine)
    for step in range(1, 6):
        rt.group.step = step
        engine.backward(engine(torch.ones(2, 4)).sum())  # where the others train
        engine.step()
        if step == 2 and rt.is_main:
            checkpointer.save(step)  # the stray save


def leaves_early(rt: dtk.Runtime, folder: str) -> None:
    for step in range(1, 10):
        rt.group.step = step
        if step == 4 and rt.world.rank == 1:
            break
        rt.gather(torch.ones(step))  # in which the other waits


def three_ranks(rt: dtk.Runtime, folder: str) -> None:
    if rt.world.rank == 2:
        rt.broadcast_object("x")  # the odd one of three
    else:
        rt.gather_objects("x")


def sources_differ(rt: dtk.Runtime, folder: str) -> None:
    if rt.is_main:
        rt.broadcast_object("x")  # from rank 0
    else:
        rt.broadcast_object("x", src=1)
    rt.gather(torch.ones(1))


WRONG = {
    gather_in_a_branch: ("rt.gather", "the stray gather", 3),
    barrier_in_a_branch: ("barrier", "the stray barrier", 0),
    swapped: ("rt.gather", "gather first", 0),
    save_in_a_branch: (None, "the stray save", 2),
    leaves_early: ("rt.gather", "in which the other waits", 4),
    three_ranks: ("rt.broadcast_object(src=0)", "the odd one of three", 0),
    sources_differ: ("rt.broadcast_object(src=0)", "from rank 0", 0),
}


def told(program: Callable[[dtk.Runtime, str], None], folder: str) -> dict[str, Any]:
    """What a rank hears that runs the program."""
    before = {thread.name for thread in threading.enumerate()}
    try:
        with dtk.init(timeout=120.0) as rt:
            program(rt, folder)
        answer: dict[str, Any] = {"error": None}
    except DesyncError as error:
        answer = {"error": str(error), "operations": error.operations, "sites": error.sites, "step": error.step}
        answer |= {"ranks": error.ranks, "steps": error.steps}
    answer["threads"] = sorted({thread.name for thread in threading.enumerate()} - before)
    answer["initialized"] = dist.is_initialized()
    return answer


# --- programs that end in other ways --------------------------------------------------------------------------------


def stuck_in_another_group(folder: str) -> None:
    """A user's own default group: the guard does not know its connections and cannot wake who waits in it."""
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", init_method=os.environ["DTK_INIT_METHOD"], rank=rank, world_size=2, timeout=timedelta(seconds=100)
    )
    with dtk.init(timeout=100.0) as rt:
        engine = simple_engine(rt)
        if rank == 0:
            with pytest.raises(DesyncError):
                rt.gather(torch.ones(1))
            while not (Path(folder) / "gone").exists():
                time.sleep(0.05)
            os._exit(0)
        train(engine, rt, 3)


def killed(folder: str) -> str:
    with dtk.init(timeout=100.0) as rt:
        rt.group.barrier()
        if rt.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            rt.gather(torch.ones(1))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "nothing"


def fails(folder: str) -> str:
    try:
        with dtk.init(timeout=100.0) as rt:
            rt.group.barrier()
            if rt.world.rank == 1:
                raise ValueError("a bug of this rank")
            rt.gather(torch.ones(1))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def over_tcp(folder: str) -> dict[str, Any]:
    """Rank 0 holds the store and ends first; the other calls once more, later."""
    rank, port = int(os.environ["RANK"]), Path(folder) / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
        port.with_suffix(".new").write_text(str(store.port))
        port.with_suffix(".new").rename(port)
    else:
        while not port.exists():
            time.sleep(0.02)
        store = dist.TCPStore("127.0.0.1", int(port.read_text()), 2, False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=100))

    def program(rt: dtk.Runtime, folder: str) -> None:
        rt.group.barrier()
        if rank == 1:
            while not (Path(folder) / "left").exists():
                time.sleep(0.02)
            rt.gather(torch.ones(1))

    answer = told(program, folder)
    if rank == 0:
        (Path(folder) / "left").touch()
    dist.destroy_process_group()
    return answer


def slow_but_right(folder: str) -> dict[str, Any]:
    """One rank evaluates far longer than the guard waits before it asks; another one saves for as long."""
    started = time.monotonic()
    with dtk.init(timeout=100.0) as rt:
        engine = simple_engine(rt)
        train(engine, rt, 3)
        if rt.world.rank == 0:
            time.sleep(5.0)
        total = rt.gather(torch.ones(1)).sum().item()
        with rt.group.watched("a long save"):
            if rt.world.rank == 1:
                time.sleep(3.0)
        with rt.group.unwatched():
            for _ in range(rt.world.rank):
                with rt.group.watched("by single ranks"):
                    pass
        decided = rt.decide(lambda: time.sleep(2.5) or "yes")
        train(engine, rt, 3)
        if rt.world.rank == 0:
            time.sleep(0.5)  # ranks end at different times
    return {"total": total, "decided": decided, "seconds": time.monotonic() - started}


def without(folder: str) -> list[Any]:
    found: list[Any] = []
    for variable, flag in (("0", True), ("1", False)):
        os.environ["DTK_DESYNC_GUARD"] = variable
        with dtk.init(desync_guard=flag) as rt:
            names = {thread.name for thread in threading.enumerate()}
            with rt.group.watched("anything"):
                found.append("dtk-desync-guard" in names)
        os.environ["DTK_INIT_METHOD"] += "-second"
    os.environ["DTK_DESYNC_GUARD"] = str(int(os.environ["RANK"] != "1"))  # one rank's off is everyone's
    with dtk.init() as rt:
        found.append("dtk-desync-guard" in {thread.name for thread in threading.enumerate()})
        return [*found, rt.gather(torch.ones(1)).tolist()]


def start_all(folder: Path) -> dict[Any, Ranks]:
    """All at once: they mostly wait."""
    running: dict[Any, Ranks] = {}
    for program in WRONG:
        (folder / program.__name__).mkdir()
        ranks = 3 if program is three_ranks else 2
        running[program] = start_ranks(told, ranks, program, str(folder / program.__name__))
    for other in (stuck_in_another_group, over_tcp, killed, fails, slow_but_right, without):
        running[other] = start_ranks(other, 2, str(folder))
    return running


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], list[Outcome]]]:
    folder = tmp_path_factory.mktemp("desync")
    running = start_all(folder)

    @functools.cache
    def wait(program: Any) -> list[Outcome]:
        if program is stuck_in_another_group:
            running[program].processes[1].join(60.0)
            (folder / "gone").touch()
        return running[program].wait(60.0)

    yield wait
    for ranks in running.values():
        ranks.kill()


def place(words: str) -> str:
    """`file:line` of the line of this file that ends in a comment."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {words}")]
    return f"{__file__}:{number}"


@pytest.mark.parametrize("program", WRONG, ids=lambda program: program.__name__)
def test_a_desync_is_named_on_every_rank(outcomes: Callable[[Any], list[Outcome]], program: Any) -> None:
    operation, words, step = WRONG[program]
    found = outcomes(program)
    assert [outcome.error for outcome in found] == [None] * len(found)
    heard = [outcome.value for outcome in found]
    if program is leaves_early:
        assert heard[1]["error"] is None, "it left in order, before anyone could know"
        heard = heard[:1]
    for answer in heard:
        assert answer["error"] is not None
        assert place(words) in answer["sites"].values()
        assert place(words) in answer["error"]
        rank = next(rank for rank, site in answer["sites"].items() if site == place(words))
        assert operation in (None, answer["operations"][rank])
        assert len(set(answer["operations"].values())) == 2
        assert answer["steps"][rank] == step
    for outcome in found:
        assert outcome.value["threads"] == []
        assert not outcome.value["initialized"]


def test_the_odd_rank_is_told(outcomes: Callable[[Any], list[Outcome]]) -> None:
    for outcome in outcomes(three_ranks):
        assert outcome.value["ranks"] == (2,)


def test_who_cannot_be_woken_ends_with_the_documented_code(outcomes: Callable[[Any], list[Outcome]]) -> None:
    stopped, stuck = outcomes(stuck_in_another_group)
    assert (stopped.exitcode, stuck.exitcode) == (0, DesyncError.EXIT_CODE)


def test_a_rank_that_holds_the_store_may_end_first(outcomes: Callable[[Any], list[Outcome]]) -> None:
    first, last = outcomes(over_tcp)
    assert (first.error, last.error) == (None, None)
    assert first.value["error"] is None
    assert "rank 0 left the run before call 2, rt.gather" in last.value["error"]


def test_a_killed_or_failing_rank_is_not_a_desync(outcomes: Callable[[Any], list[Outcome]]) -> None:
    left, dead = outcomes(killed)
    assert dead.exitcode == -signal.SIGKILL
    assert "DesyncError" not in left.value
    assert left.value.startswith(("RuntimeError", "DistBackendError"))
    other, own = outcomes(fails)
    assert own.value == "ValueError: a bug of this rank"
    assert other.value.startswith(("RuntimeError", "DistBackendError"))


def test_slow_ranks_are_no_desync(outcomes: Callable[[Any], list[Outcome]]) -> None:
    for outcome in outcomes(slow_but_right):
        assert outcome.error is None
        assert (outcome.value["total"], outcome.value["decided"]) == (2.0, "yes")
        assert outcome.value["seconds"] >= 7.0, "the guard had the time to ask"


def test_the_flag_and_the_variable_switch_it_off(outcomes: Callable[[Any], list[Outcome]]) -> None:
    for outcome in outcomes(without):
        assert outcome.error is None
        assert outcome.value == [False, False, False, [1.0, 1.0]]


def alone() -> bool:
    with dtk.init() as rt, rt.group.watched("anything"), rt.group.unwatched():
        rt.group.step = 3
        return rt.group.step == 3 and "dtk-desync-guard" not in {thread.name for thread in threading.enumerate()}


def test_one_rank_has_no_guard() -> None:
    assert alone()
    assert run_ranks(alone, 1) == [True]
