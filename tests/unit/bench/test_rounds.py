import pytest
from throughput_parts.rounds import calibrate, measure, rotated


class FakeMode:
    def __init__(self, strategy: str, seconds_a_step: float, asked: list[tuple[str, int]]) -> None:
        self.strategy, self._seconds, self._asked = strategy, seconds_a_step, asked

    def train(self, steps: int) -> dict[str, float]:
        self._asked.append((self.strategy, steps))
        return {"samples": 10 * steps, "seconds": self._seconds * steps}


def test_the_order_rotates():
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_strategies_take_turns_with_equally_many_steps():
    asked: list[tuple[str, int]] = []
    modes = [FakeMode("dp", 0.1, asked), FakeMode("ddp", 0.05, asked)]
    blocks = list(measure(modes, "mlp", 7, rounds=2))
    assert asked == [("dp", 7), ("ddp", 7), ("ddp", 7), ("dp", 7), ("dp", 7), ("ddp", 7)]
    assert [(b["round"], b["warmup"], b["position"]) for b in blocks[:3]] == [(0, True, 0), (0, True, 1), (1, False, 0)]
    assert blocks[1]["samples_per_s"] == pytest.approx(200)


@pytest.mark.parametrize(("seconds", "steps"), [(0.0001, 10000), (0.01, 100), (0.4, 2), (30.0, 1)])
def test_a_block_is_as_long_as_asked_for(seconds, steps):
    asked: list[tuple[str, int]] = []
    modes = [FakeMode("dp", seconds * 1.5, asked), FakeMode("ddp", seconds * 0.5, asked)]
    assert calibrate(modes, block_seconds=1.0) == steps
    assert [steps for name, steps in asked if name == "dp"] == [steps for name, steps in asked if name == "ddp"]


def test_calibrating_takes_no_longer_than_some_blocks():
    asked: list[tuple[str, int]] = []
    calibrate([FakeMode("dp", 0.0001, asked)], block_seconds=1.0)
    assert sum(steps for _, steps in asked) * 0.0001 < 2.0
