"""What ranks decide together, objects between them, metrics with uneven shares, and where `rt.log` writes."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.decisions import EarlyStopping
from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.group import SoloGroup
from dist_toolkit.metric_log import read_metrics
from dist_toolkit.testing import run_ranks, start_ranks
from dist_toolkit.world import World

pytestmark = pytest.mark.multiproc


class Unreadable:
    """Pickles, and does not unpickle on rank 1."""

    def __reduce__(self) -> Any:
        return _read, ()


def _read() -> str:
    if os.environ.get("RANK") == "1":
        raise ImportError("not here")
    return "read"


def refused(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except PeerError as error:
        return str(error)
    return "went well"


def boom(*_: Any) -> None:
    raise ValueError("boom")


def leave() -> None:
    sys.exit(7)


# --- objects, decisions ---------------------------------------------------------------------------------------------


def objects() -> dict[str, Any]:
    with dtk.init() as rt:
        rank = rt.world.rank
        found: dict[str, Any] = {
            "gathered": rt.gather_objects({"rank": rank, "set": {rank}, "big": "x" * (1 + 5000 * rank)}),
            "broadcast": rt.broadcast_object(("from", rank), src=rt.world.world_size - 1),
            "none": rt.broadcast_object(None),
            "decided": rt.decide(lambda: {"chosen": rt.world.rank}),
            "unpicklable": refused(lambda: rt.gather_objects(threading.Lock() if rank == 1 else rank)),
            "unpicklable broadcast": refused(lambda: rt.broadcast_object(threading.Lock())),
            "unreadable": refused(lambda: rt.gather_objects(Unreadable())),
            "boom": refused(lambda: rt.decide(boom)),
            "unpicklable decision": refused(lambda: rt.decide(threading.Lock)),
            "is_main": rt.is_main,
        }
        with pytest.raises(ConfigError, match="is not a rank"):
            rt.broadcast_object(1, src=9)
        if rt.is_main:
            with pytest.raises(SystemExit):
                rt.decide(leave)
        else:
            found["left"] = refused(lambda: rt.decide(leave))
        found["after"] = rt.gather_objects(rank)
        return found


def test_objects_and_decisions_on_three_ranks() -> None:
    results = run_ranks(objects, 3)
    for rank, found in enumerate(results):
        assert [value["set"] for value in found["gathered"]] == [{0}, {1}, {2}]
        assert [len(value["big"]) for value in found["gathered"]] == [1, 5001, 10001]
        assert found["broadcast"] == ("from", 2)
        assert found["none"] is None
        assert found["decided"] == {"chosen": 0}
        assert "rank 1: TypeError: cannot pickle" in found["unpicklable"]
        assert "rank 0: TypeError: cannot pickle" in found["unpicklable broadcast"]
        assert "rank 1: ImportError: not here" in found["unreadable"]
        assert found["boom"] == "rt.decide(boom) failed on 1 rank(s): rank 0: ValueError: boom"
        assert "cannot pickle" in found["unpicklable decision"]
        assert found["is_main"] == (rank == 0)
        assert found["after"] == [0, 1, 2]
    assert "SystemExit: 7" in results[1]["left"]


def alone() -> list[Any]:
    with dtk.init() as rt:
        with rt.main_first():
            body = "ran"
        return [
            rt.gather_objects(1), rt.broadcast_object("a"), rt.decide(lambda: 2), body, rt.stop_requested(),
            rt.early_stopping(1).update(1.0), refused(lambda: rt.decide(boom)),
            refused(lambda: rt.gather_objects(boom)),
        ]  # fmt: skip


def test_one_process_gives_the_same_answers() -> None:
    words = "rt.decide(boom) failed on 1 rank(s): rank 0: ValueError: boom"
    expected = [[1], "a", 2, "ran", False, False, words, "went well"]
    before = signal.getsignal(signal.SIGTERM)
    assert alone() == expected
    assert signal.getsignal(signal.SIGTERM) is before
    assert run_ranks(alone, 1) == [expected]


def first(folder: str) -> dict[str, Any]:
    cache = Path(folder) / "cache"
    found: dict[str, Any] = {}
    with dtk.init() as rt:
        with rt.main_first():
            found["saw"] = cache.exists()
            if not found["saw"]:
                cache.write_text("made")
        for failing in (0, 1):
            ran = []

            def attempt(failing: int = failing, ran: list[int] = ran) -> None:
                with rt.main_first():
                    ran.append(1)
                    if rt.world.rank == failing:
                        raise OSError("disk full")

            found[f"fails on {failing}"] = (refused(attempt), len(ran))
        try:
            with rt.main_first():
                if rt.world.rank == 1:
                    sys.exit(5)
        except SystemExit as error:
            found["exit"] = error.code
        except PeerError as error:
            found["exit"] = str(error)
        found["after"] = rt.gather_objects(rt.world.rank)
    return found


def test_main_first_orders_the_ranks_and_cannot_deadlock(tmp_path: Path) -> None:
    results = run_ranks(first, 3, str(tmp_path))
    assert [found["saw"] for found in results] == [False, True, True]
    for rank, found in enumerate(results):
        words, ran = found["fails on 0"]
        assert "rank 0: OSError: disk full" in words
        assert ran == (rank == 0), "the others do not run what cannot work"
        words, ran = found["fails on 1"]
        assert ("rank 1: OSError: disk full" in words, ran) == (True, 1)
        assert found["after"] == [0, 1, 2]
    assert results[1]["exit"] == 5
    assert all("rank 1: SystemExit: 5" in results[rank]["exit"] for rank in (0, 2))


# --- stopping -------------------------------------------------------------------------------------------------------


def until_stopped(folder: str) -> list[bool]:
    answers = []
    before = signal.getsignal(signal.SIGUSR1)
    with dtk.init() as rt:
        for step in range(200):
            answers.append(rt.stop_requested())
            if answers[-1]:
                break
            if step == 3 and rt.world.rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before
    return answers


def test_a_stop_is_requested_of_all_ranks_at_the_same_call(tmp_path: Path) -> None:
    one, other = run_ranks(until_stopped, 2, str(tmp_path))
    assert one == other == [False] * 5 + [True]


def early(folder: str) -> dict[str, Any]:
    with dtk.init() as rt:
        stopping = rt.early_stopping(patience=2, mode="max", min_delta=0.5)
        mine = [1.0, 1.4, 2.0, math.nan, 2.0, 9.0] if rt.is_main else [0.0, 5.0, None, 7.0, "no number", 9.0]
        answers = [stopping.update(value) for value in mine]
        checkpointer = rt.checkpointer(folder, state={"early": stopping})
        checkpointer.save(3)
        again = rt.early_stopping(patience=2, mode="max", min_delta=0.5)
        rt.checkpointer(folder, state={"early": again}).restore()
        wrong = refused(lambda: stopping.update("x" if rt.is_main else 1.0))
        return {"answers": answers, "best": stopping.best, "again": again.state_dict(), "wrong": wrong}


def test_early_stopping_goes_by_rank_0_and_survives_a_checkpoint(tmp_path: Path) -> None:
    for found in run_ranks(early, 2, str(tmp_path)):
        assert found["answers"] == [False, False, False, False, True, False]
        assert found["best"] == 9.0
        assert found["again"] == {"best": 9.0, "waited": 0}
        assert "rank 0: ValueError: could not convert" in found["wrong"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patience": 0}, "patience=0"),
        ({"patience": 1.5}, "patience=1.5"),
        ({"patience": True}, "patience=True"),
        ({"patience": 1, "mode": "up"}, "mode='up'"),
        ({"patience": 1, "min_delta": -1.0}, "min_delta=-1.0"),
        ({"patience": 1, "min_delta": math.nan}, "min_delta=nan"),
    ],
)
def test_early_stopping_refuses(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EarlyStopping(SoloGroup(World(), torch.device("cpu")), **arguments)


# --- metrics and logs -----------------------------------------------------------------------------------------------


def uneven() -> list[Any]:
    """Rank r has r batches, of different sizes: rank 0 has none."""
    with dtk.init() as rt:
        by_sample, by_batch, empty = rt.mean(), rt.mean(), rt.mean()
        for number in range(rt.world.rank):
            batch = torch.arange(3 + number, dtype=torch.float64) + 10 * rt.world.rank
            by_sample.update(batch)
            by_batch.update(batch.mean(), weight=len(batch))
        answers = [by_sample.compute(), by_batch.compute(), math.isnan(empty.compute()), by_sample.compute()]
        for step in range(1, 4 if rt.world.rank else 3):  # rank 0 has a value less
            rt.log(step, loss=torch.tensor(float(step)))
        window = rt.log
        window(50, loss=float(10 * rt.world.rank))
        rt.log(50, accuracy=0.25)  # a second line of a step
        rt.log(100, loss=math.nan if rt.world.rank == 1 else 1.0, top=math.inf)
        rt.log(103, loss=float(rt.world.rank))
        rt.log.flush()
        rt.log.flush()
        rt.log(104, loss=1.0)  # has no line: the end of `with` writes none
        return answers


def test_means_are_exact_where_ranks_have_different_numbers_of_batches(tmp_path: Path) -> None:
    samples = [10.0, 11.0, 12.0, 20.0, 21.0, 22.0, 20.0, 21.0, 22.0, 23.0]
    expected = sum(samples) / len(samples)
    for found in run_ranks(uneven, 3, env={"DTK_RUN_DIR": str(tmp_path)}):
        assert found == [expected, pytest.approx(expected, rel=1e-15), True, expected]
    first, second, last = read_metrics(tmp_path / "metrics.jsonl")
    assert first["loss"] == pytest.approx((3 + 6 + 6 + 0 + 10 + 20) / (3 + 4 + 4))
    assert (first["step"], first["accuracy"]) == (50, 0.25)
    assert second["step"] == 100
    assert math.isnan(second["loss"])
    assert math.isnan(second["top"])
    assert (last["step"], last["loss"]) == (103, 1.0)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert len(written.splitlines()) == 4
    assert '"loss": null, "top": null' in written, "valid JSON, which has no NaN"


def logged(folder: str, start: int, stop: int) -> list[str]:
    os.environ["DTK_RUN_DIR"] = folder
    before = {thread.name for thread in threading.enumerate()}
    with dtk.init(log_every=2, tensorboard=True) as rt:
        for step in range(start, stop):
            rt.log(step, loss=torch.tensor(float(step)))
    return sorted({thread.name for thread in threading.enumerate()} - before)


def test_tensorboard_and_metrics_of_a_resumed_run(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run_ranks(logged, 2, str(tmp_path), 1, 7) == [[], []]
    assert run_ranks(logged, 2, str(tmp_path), 5, 9) == [[], []]
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [2, 4, 6, 6, 8], "only appended to"
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')  # a kill in the middle of a line
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        (2, 1.5), (4, 3.5), (6, 5.5), (8, 7.5)
    ]  # fmt: skip
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {(event.step, event.value) for event in events.Scalars("loss")} == {(2, 1.5), (4, 3.5), (6, 5.5), (8, 7.5)}


def different(folder: str) -> list[str]:
    os.environ["DTK_RUN_DIR"] = folder
    mine = int(os.environ["RANK"]) == 1
    found = []
    for arguments in ({"seed": 3 + mine}, {"log_every": 50 - mine}, {"tensorboard": mine}):
        try:
            dtk.init(timeout=60.0, **arguments).close()
        except ConfigError as error:
            found.append(str(error))
        os.environ["DTK_INIT_METHOD"] += "-next"
    return found


def test_arguments_of_init_that_differ_are_named_on_every_rank(tmp_path: Path) -> None:
    for found in run_ranks(different, 2, str(tmp_path)):
        seed, log_every, tensorboard = found
        assert "init(seed=...) is 3 on rank 0 and 4 on rank 1; pass the same on every rank" in seed
        assert "init(log_every=...) is 50 on rank 0 and 49 on rank 1" in log_every
        assert "init(tensorboard=...) is False on rank 0 and True on rank 1" in tensorboard
    assert not (tmp_path / "tensorboard").exists()


def without_tensorboard(folder: str) -> str:
    sys.modules["tensorboard"] = None  # type: ignore[assignment]
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        del sys.modules[name]
    try:
        dtk.init(tensorboard=folder)
    except ConfigError as error:
        return str(error)
    return "went well"


def test_a_missing_tensorboard_is_an_error_on_every_rank(tmp_path: Path) -> None:
    for outcome in start_ranks(without_tensorboard, 2, str(tmp_path)).wait(60.0):
        assert outcome.error is None
        assert "pip install tensorboard" in outcome.value
