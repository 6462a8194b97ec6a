"""Which rounds of an interrupted `comm` and `launch` stand, when they are gone on with."""

import comm
import pytest

import launch
from tests.unit.bench.comm_records import COMM, SETUP, case

ALL_REDUCE, BROADCAST = (case(name, 1024, 1, 2, 3) for name in ("all-reduce", "broadcast"))


def idle(number):
    return {"kind": "idle", "round": number, "others_cores": 0.0}


def comm_run(*records):
    return [COMM, SETUP, ALL_REDUCE[0], BROADCAST[0], *records]


def round_of_comm(number):
    return [idle(number), BROADCAST[number], ALL_REDUCE[number]]


@pytest.mark.parametrize("cut", [[], [idle(3)], [idle(3), BROADCAST[3]]])
def test_a_round_of_comm_has_a_block_of_every_case(cut):
    """What others did is looked at again, too."""
    whole = comm_run(*round_of_comm(1), *round_of_comm(2))
    assert comm.BENCHMARK.keep([*whole, *cut]) == whole


def test_a_first_round_of_comm_that_was_cut_off_goes():
    assert comm.BENCHMARK.keep(comm_run(*round_of_comm(1)[:2])) == comm_run()


def test_comm_that_left_something_out_has_whole_rounds_all_the_same():
    left_out = {"kind": "left_out", "backend": "gloo", "scope": "within", "operation": "all-gather", "why": "no"}
    whole = comm_run(left_out, *round_of_comm(1))
    assert comm.BENCHMARK.keep(whole) == whole


def start(command, number):
    return {"kind": "start", "round": number, "command": command, "seconds": 1.0, "total": 2.0, "threads": 1}


def answer(command, number):
    return {"kind": "answer", "round": number, "command": command, "seconds": 1.0}


def others(part, number):
    return {"kind": "others", "part": part, "round": number, "seconds": 1.0, "others_cpu_seconds": 0.0}


STARTS = [start("torchrun", 1), start("dtk launch", 1), others("starts", 1)]
IDLE = [{"kind": "idle", "round": number, "ranks": "quiet", "dtk": 0.0, "torchrun": 0.0} for number in (1, 2)]
ANSWERS = [answer("dtk --help", 1), answer("torchrun --help", 1), others("answers", 1)]
MACHINE = {"kind": "machine"}


@pytest.mark.parametrize(
    ("whole", "cut"),
    [
        ([MACHINE], [start("torchrun", 1)]),
        ([MACHINE, *STARTS], [start("dtk launch", 2)]),
        ([MACHINE, *STARTS, *IDLE], []),
        ([MACHINE, *STARTS, *IDLE], [answer("dtk --help", 1)]),
        ([MACHINE, *STARTS, *IDLE, *ANSWERS], [answer("torchrun --help", 2)]),
    ],
)
def test_a_round_of_launch_has_every_command_of_its_part(whole, cut):
    """A look at a run that is under way is compared with no other and stands by itself."""
    assert launch.BENCHMARK.keep([*whole, *cut]) == whole
