from typing import Any

import pytest
from bench_parts.processes import ProcessFailed
from throughput_parts.cases import Mode, Workload
from throughput_parts.rounds import Turns, calibrate, measure, rotated, timed_steps

WORK = Workload("mlp", "fp32", 64)


class FakeTeam:
    def __init__(
        self, strategy: str, seconds_a_step: float, asked: list[tuple[str, str, int]], fails_at: int | None = None
    ) -> None:
        self.mode = Mode(WORK, strategy, 2, gpus=0, threads=1, global_batch_size=64)
        self._seconds, self._asked, self._left = seconds_a_step, asked, fails_at

    def ask(self, what: str, number: int) -> dict[str, Any]:
        self._asked.append((self.mode.strategy, what, number))
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise ProcessFailed("it failed")
        if what == "phases":
            return {"parts": {"forward": 1.0}}
        return {"samples": 10 * number, "seconds": self._seconds * number}


def nobody_fails(mode: Mode, error: ProcessFailed) -> None:
    raise AssertionError(mode)


def trained(asked: list[tuple[str, str, int]]) -> list[tuple[str, int]]:
    return [(name, steps) for name, what, steps in asked if what == "train"]


def test_the_order_rotates():
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 3) == []


def test_strategies_take_turns_with_equally_many_steps():
    asked: list[tuple[str, str, int]] = []
    turns = Turns([FakeTeam("dp", 0.1, asked), FakeTeam("ddp", 0.05, asked)], nobody_fails)
    records = list(measure(turns, 8, rounds=2))
    assert trained(asked) == [("dp", 8), ("ddp", 8), ("ddp", 8), ("dp", 8), ("dp", 8), ("ddp", 8)]
    blocks = [r for r in records if r["kind"] == "block"]
    assert [(b["round"], b["warmup"], b["position"]) for b in blocks[:3]] == [(0, True, 0), (0, True, 1), (1, False, 0)]
    assert blocks[1]["samples_per_s"] == pytest.approx(200)


def test_parts_are_timed_behind_each_block_but_in_the_warm_up():
    asked: list[tuple[str, str, int]] = []
    records = list(measure(Turns([FakeTeam("dp", 0.1, asked)], nobody_fails), 40, rounds=2))
    assert [r["kind"] for r in records] == ["block", "block", "phases", "block", "phases"]
    assert asked[2] == ("dp", "phases", 10)
    assert [timed_steps(steps) for steps in (1, 12, 16, 1000)] == [3, 3, 4, 20]


@pytest.mark.parametrize("fails_at", [0, 2, 3, 4])
def test_one_that_fails_leaves_the_others_in_peace(fails_at):
    told: list[str] = []
    asked: list[tuple[str, str, int]] = []
    teams = [FakeTeam("dp", 0.1, asked), FakeTeam("ddp", 0.1, asked, fails_at)]
    turns = Turns(teams, lambda mode, error: told.append(mode.strategy))
    records = list(measure(turns, 8, rounds=3))
    assert told == ["ddp"]
    assert [r["round"] for r in records if r["kind"] == "block" and r["strategy"] == "dp"] == [0, 1, 2, 3]
    assert asked.count(("ddp", "train", 8)) + asked.count(("ddp", "phases", 3)) == fails_at + 1


def test_where_all_fail_there_is_nothing():
    turns = Turns([FakeTeam("dp", 0.1, [], 0)], lambda mode, error: None)
    assert calibrate(turns, 1.0) == 1
    assert list(measure(turns, 8, rounds=3)) == []


def test_what_is_there_is_not_measured_again():
    asked: list[tuple[str, str, int]] = []
    turns = Turns([FakeTeam("dp", 0.1, asked), FakeTeam("ddp", 0.1, asked)], nobody_fails)
    kept = {("dp", 0), ("ddp", 0), ("ddp", 1)}
    records = list(measure(turns, 8, 2, lambda mode, number: (mode.strategy, number) in kept))
    made = [(r["strategy"], r["round"]) for r in records if r["kind"] == "block"]
    assert made == [("dp", 1), ("dp", 2), ("ddp", 2)]
    assert trained(asked)[:2] == [("dp", 8), ("ddp", 8)], "new processes warm up"


@pytest.mark.parametrize(("seconds", "steps"), [(0.0001, 10000), (0.01, 100), (0.4, 2), (30.0, 1)])
def test_a_block_is_as_long_as_asked_for(seconds, steps):
    asked: list[tuple[str, str, int]] = []
    turns = Turns([FakeTeam("dp", seconds * 1.5, asked), FakeTeam("ddp", seconds * 0.5, asked)], nobody_fails)
    assert calibrate(turns, block_seconds=1.0) == steps
    assert [n for name, n in trained(asked) if name == "dp"] == [n for name, n in trained(asked) if name == "ddp"]


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.3])
def test_slow_first_steps_make_no_short_blocks(seconds):
    """The first steps allocate, find algorithms and sort gradients into buckets."""

    class Cold(FakeTeam):
        def ask(self, what: str, number: int) -> dict[str, Any]:
            cold = max(0, 3 - sum(steps for _, _, steps in self._asked))
            answer = super().ask(what, number)
            return answer | {"seconds": answer["seconds"] + cold * 2 * seconds}

    assert calibrate(Turns([Cold("dp", seconds, [])], nobody_fails), block_seconds=1.0) == round(1.0 / seconds)


def test_long_steps_are_not_repeated_to_tell_their_length():
    asked: list[tuple[str, str, int]] = []
    assert calibrate(Turns([FakeTeam("dp", 30.0, asked)], nobody_fails), block_seconds=1.0) == 1
    assert sum(steps for _, steps in trained(asked)) == 3


def test_calibrating_takes_no_longer_than_some_blocks():
    asked: list[tuple[str, str, int]] = []
    calibrate(Turns([FakeTeam("dp", 0.0001, asked)], nobody_fails), block_seconds=1.0)
    assert sum(steps for _, steps in trained(asked)) * 0.0001 < 2.0
