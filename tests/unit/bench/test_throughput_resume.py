"""`--resume` of throughput: a round is of one start of the processes, or is told to be of different minutes."""

import pytest
from throughput_parts.kept import whole_rounds
from throughput_parts.summary import summarise

from tests.unit.bench.conftest import block_record, mode_key, phases_record, setup_record

AB, ABC = ["dp x2", "ddp x2"], ["dp x2", "ddp x2", "fsdp x2"]


def started(*together):
    """The setups of modes that are alive at once."""
    return [setup_record(label.split()[0], 2, list(together)) for label in together]


def block(strategy, number, rate=100.0):
    return block_record(strategy, 2, number, rate)


def blocks(numbers, *strategies):
    return [block(strategy, number) for number in numbers for strategy in strategies]


def failed(strategy):
    return {"kind": "failed", **mode_key(strategy), "why": "RuntimeError: no"}


def of(records):
    return [(r["strategy"], r["round"]) for r in records if r["kind"] == "block"]


def test_a_round_that_was_cut_off_goes():
    parts = phases_record("dp", 2, 2)
    done = [*started(*AB), *blocks((0, 1), "dp", "ddp"), block("dp", 2), parts]
    assert whole_rounds(done) == done[:-2]


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_whole_round_stands(last):
    done = [*started(*AB), *blocks(range(last + 1), "dp", "ddp")]
    assert whole_rounds(done) == done


def test_what_was_not_measured_at_all_is_no_round():
    assert whole_rounds(started(*AB)) == started(*AB)


@pytest.mark.parametrize("fails_in", [0, 1, 2])
def test_one_that_failed_is_not_waited_for(fails_in):
    """Its rounds up to then stand, as do those of the others, but for the one that was cut off."""
    done = [*started(*ABC), *blocks(range(fails_in), "dp", "ddp", "fsdp"), failed("fsdp")]
    done += blocks(range(fails_in, 3), "dp", "ddp")
    assert whole_rounds(done) == done
    assert whole_rounds([*done, block("ddp", 3)]) == done


def test_a_group_that_was_whole_stands_where_another_was_cut_off():
    """Of the same workload, as memory did not suffice for all."""
    first = [*started("dp x2"), *blocks((0, 1, 2), "dp")]
    second = [*started("ddp x2", "fsdp x2"), *blocks((0, 1), "ddp", "fsdp")]
    assert whole_rounds([*first, *second, block("fsdp", 2)]) == [*first, *second]


def test_one_that_goes_on_where_others_have_ended_is_whole_alone():
    """It had failed; the others have all its rounds from before."""
    first = [*started(*AB), *blocks((0,), "dp", "ddp"), failed("ddp"), *blocks((1, 2), "dp")]
    second = [*started("ddp x2"), *blocks((1,), "ddp")]
    assert whole_rounds([*first, *second]) == [*first, *second]


def test_what_was_cut_off_twice_goes_twice():
    first = [*started(*AB), *blocks((0, 1), "dp", "ddp")]
    second = [*started(*AB), *blocks((2,), "ddp", "dp")]
    kept = whole_rounds([*first, block("dp", 2)])
    again = whole_rounds([*kept, *second, block("ddp", 3)])
    assert again == [*first, *second]
    assert whole_rounds(again) == again


def ddp_of(records):
    (work,) = summarise(records)
    (found,) = [mode for mode in work.modes if mode.strategy == "ddp"]
    return work, found


def test_other_groups_at_the_resume_change_nothing_of_earlier_rounds():
    """Rounds 1 and 2 had all three alive, the others dp and ddp: they were together in all of them."""
    first = [*started(*ABC), *blocks((0, 1, 2), "dp", "ddp", "fsdp")]
    second = [*started(*AB), *blocks((3,), "dp", "ddp"), *started("fsdp x2"), *blocks((3,), "fsdp")]
    work, ddp = ddp_of([*first, *second])
    assert not ddp.apart
    assert ddp.ratio.count == 3
    (fsdp,) = [mode for mode in work.modes if mode.strategy == "fsdp"]
    assert fsdp.apart, "in round 3"
    assert work.apart


def test_rounds_that_were_apart_stay_apart_whatever_the_resume_has_together():
    first = [*started("dp x2"), *blocks((0, 1), "dp"), *started("ddp x2"), *blocks((0, 1), "ddp")]
    second = [*started(*AB), *blocks((2,), "dp", "ddp")]
    work, ddp = ddp_of([*first, *second])
    assert ddp.apart
    assert work.apart


def test_whoever_was_started_again_was_not_alive_before():
    """ddp failed in round 1, and is measured there when all are started again: dp's block is of the first start."""
    first = [*started(*AB), *blocks((0,), "dp", "ddp"), failed("ddp"), *blocks((1,), "dp")]
    second = [*started(*AB), *blocks((1,), "ddp"), *blocks((2,), "dp", "ddp")]
    assert ddp_of([*first, *second])[1].apart


def test_rounds_of_two_starts_are_each_of_one():
    first = [*started(*AB), *blocks((0, 1), "dp", "ddp")]
    second = [*started(*AB), *blocks((2, 3), "dp", "ddp")]
    work, ddp = ddp_of([*first, *second])
    assert not ddp.apart
    assert not work.apart


def test_a_start_that_ended_before_its_first_block_is_a_start_all_the_same():
    first = [*started(*AB), *blocks((0,), "dp", "ddp"), failed("ddp"), *blocks((1,), "dp")]
    second = [*started(*AB), *started(*AB), *blocks((1,), "ddp")]
    assert ddp_of([*first, *second])[1].apart
