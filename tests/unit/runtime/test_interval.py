"""How often to save."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.checkpoint.interval import FIRST, choose, young_daly
from dist_toolkit.checkpoint.schedule import Schedule
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import SoloGroup
from dist_toolkit.world import World


def lost(interval: float, cost: float, between: float) -> float:
    """Time per second of useful work, failures at exponential times (Daly 2006, equation 13, restarts left out)."""
    return between * math.expm1((interval + cost) / between) / interval


@given(st.floats(0.01, 60), st.floats(3600, 1e6))
def test_no_other_interval_loses_clearly_less(cost: float, between: float) -> None:
    best = young_daly(cost, between)
    assert 0 < best <= between
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert lost(best, cost, between) <= lost(factor * best, cost, between) * 1.0001


def test_where_saving_costs_more_than_failures() -> None:
    assert young_daly(7200, 3600) == 3600


def test_the_words_have_every_figure() -> None:
    found = choose(step_seconds=0.5, stall=0.2, duration=3.0, failures_per_day=4)
    assert found.steps == round(young_daly(0.2, 21600) / 0.5)
    assert found.words == (
        "saving every 186 steps (about 93.0 s): a save keeps training waiting for 200 ms and takes 3.0 s; "
        "at 4 failures a day this loses least (Young/Daly)"
    )
    assert "no more often than one save takes" in choose(0.5, 0.001, 400.0, 10).words


def test_auto_saves_early_once_and_then_by_what_it_cost() -> None:
    schedule = Schedule("auto", failures_per_day=24.0)
    group = SoloGroup(World(0, 0, 1, 1), torch.device("cpu"))
    schedule.start(100)
    due = []
    for step in range(101, 101 + 3 * FIRST):
        schedule.stepped()
        if schedule.is_due(step):
            due.append(step)
            schedule.saved(step, 0.01, group)
    assert due == [100 + FIRST], "these steps take microseconds: the next save is far away"


def test_fixed_steps() -> None:
    schedule = Schedule(3)
    assert [step for step in range(1, 10) if schedule.is_due(step)] == [3, 6, 9]
    assert not any(Schedule(None).is_due(step) for step in range(9))


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "often"])
def test_bad_intervals_are_refused(every: object) -> None:
    with pytest.raises(ConfigError, match="is not a positive number of steps; pass one, or every='auto'"):
        Schedule(every)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_bad_failure_rates_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="failures_per_day="):
        Schedule("auto", rate)


def test_a_failure_rate_needs_auto() -> None:
    with pytest.raises(ConfigError, match="is for every='auto', and every is 100"):
        Schedule(100, 1.0)
