"""A run of throughput that is interrupted anywhere, as often as one likes, and gone on with; without processes."""

import json
from collections.abc import Sequence
from contextlib import contextmanager, suppress

import pytest
from bench_parts.processes import ProcessFailed
from hypothesis import given, settings
from hypothesis import strategies as st
from throughput_parts import course
from throughput_parts.arguments import parse
from throughput_parts.course import Course
from throughput_parts.kept import whole_rounds
from throughput_parts.summary import summarise

ROUNDS = 3
NAMES = ("dp", "ddp", "fsdp")


class Cut(Exception):
    """The run is interrupted."""


class Session:
    """A run in the place of `throughput_parts.modes.running`, cut off behind so many records.

    Every block says of which start of processes it is: session, and number in it.
    """

    def __init__(self, number: int, done: Sequence[dict], records: int | None, breaks: tuple[str, int] | None) -> None:
        self.records, self._start, self._left, self._breaks = list(done), [number, 0], records, breaks

    def add(self, record: dict) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Cut
        self.records.append(json.loads(json.dumps(record)))

    @contextmanager
    def running(self, options, modes, tell):
        self._start[1] += 1
        yield [Team(mode, self) for mode in modes]

    def answer(self, mode, what: str, number: int) -> dict:
        if self._breaks and self._breaks[0] == mode.strategy:
            self._breaks = self._breaks[0], self._breaks[1] - 1
            if self._breaks[1] < 0:
                raise ProcessFailed("it failed")
        if what == "phases":
            return {"parts": {"forward": 1.0}}
        return {
            "samples": 10 * number, "seconds": 10.0, "step_ms": [1.0], "cpu_seconds": 1.0, "others_cpu_seconds": 0.0,
            "rss_mib": {"most": 1.0, "sum": 1.0}, "start": str(self._start),
        }  # fmt: skip


class Team:
    def __init__(self, mode, session: Session) -> None:
        self.mode, self._session = mode, session
        of = {"threads": mode.threads, "device": "cpu", "global_batch_size": mode.global_batch_size}
        self.hello = {"ranks": mode.processes, **of}

    def ask(self, what: str, number: int) -> dict:
        return self._session.answer(self.mode, what, number)


def run(at_once: Sequence[int], cuts: Sequence[int], breaks: tuple[str, int] | None = None) -> list[dict]:
    """The records of sessions that are cut off behind so many records each, and of a last one that is not.

    `breaks`: a strategy that fails in the first session when it is asked for the so-many-th time.
    """
    records: list[dict] = []
    for number in range(len(cuts) + 1):
        words = ["--models", "mlp", "--strategies", ",".join(NAMES), "--nproc", "2", "--rounds", str(ROUNDS)]
        options = parse([*words, "--at-once", str(at_once[number % len(at_once)])], cores=2, gpus=0)
        left = cuts[number] if number < len(cuts) else None
        session = Session(number, whole_rounds(records), left, None if number else breaks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(course, "running", session.running)
            patch.setattr(course, "count", lambda model, size: {"parameters": 1, "flops_per_sample": 1.0})
            with suppress(Cut, ProcessFailed):
                Course(options, session.add, lambda text: None, session.records.copy()).run()
        records = session.records
    return records


def starts_of(records: list[dict]) -> dict[str, dict[int, str]]:
    """Strategy -> round -> start."""
    found: dict[str, dict[int, str]] = {}
    for r in records:
        if r["kind"] == "block":
            assert r["round"] not in found.setdefault(r["strategy"], {}), "no block is there twice"
            found[r["strategy"]][r["round"]] = r["start"]
    return found


CUTS = st.lists(st.integers(0, 30), max_size=4)


@settings(max_examples=40, deadline=None)
@given(cuts=CUTS)
def test_no_round_is_of_two_starts_wherever_a_run_is_cut_off(cuts):
    records = run([3], cuts)
    found = starts_of(records)
    assert {name: set(rounds) for name, rounds in found.items()} == {name: set(range(ROUNDS + 1)) for name in NAMES}
    assert found["dp"] == found["ddp"] == found["fsdp"]
    (work,) = summarise(records)
    assert not work.apart
    assert not any(mode.apart for mode in work.modes)


@settings(max_examples=40, deadline=None)
@given(
    cuts=CUTS,
    at_once=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    breaks=st.none() | st.tuples(st.sampled_from(NAMES), st.integers(0, 8)),
)
def test_whatever_fails_and_whoever_is_alive_a_ratio_of_two_starts_is_marked(cuts, at_once, breaks):
    records = run(at_once, [*cuts, 1000], breaks)
    found = starts_of(records)
    assert {name: set(rounds) for name, rounds in found.items()} == {name: set(range(ROUNDS + 1)) for name in NAMES}
    (work,) = summarise(records)
    for mode in work.modes:
        if mode.ratio is not None:
            assert mode.ratio.count == ROUNDS
            mine, base = found[mode.strategy], found["dp"]
            assert mode.apart == any(mine[number] != base[number] for number in range(1, ROUNDS + 1))
