"""Is a silent run stuck? Decided by what its ranks do between looks some seconds apart. Pure. docs/hangs.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from dtk_launch.diagnose.endings import asleep, may_end
from dtk_launch.diagnose.evidence import is_users
from dtk_launch.diagnose.stacks import Frame, Stack, common_outer
from dtk_launch.diagnose.waits import FOR_RANKS, PATIENT, WAITS, Kind, Place

_BUSY = 0.05  # of a core: less is what idle background threads use
_WORKS = 0.2  # of a core: a call of compiled code that uses as much is at work, on a machine that others use, too
_WRITES = 64 * 1024  # bytes between two looks: more is a save
_LOOKS = 3  # at least, before anything is said
_LATE_LOOKS = 5  # at least without a move, before a rank at work is said to get nowhere
_LONG = 3  # times the patience: work for which others wait is worth a word, whatever it is


class Sign(IntEnum):
    """What a rank showed between two looks."""

    STILL = 0
    """The same place, and no work done."""
    DOUBTFUL = 1
    """Work without a trace of progress, or a wait that may end by itself."""
    MOVING = 2
    """It got somewhere, or something that it waits for did."""


@dataclass(frozen=True)
class Process:
    """A rank, or a process that it has forked: where it is (None: it did not say) and its seconds of CPU so far."""

    place: Place | None
    cpu: float
    on_disk: bool = False
    """It was in the kernel's uninterruptible sleep."""
    native: bool = False
    """Its main thread has executed no Python since the look before, and no accelerator is there to be waited for."""
    stack: Stack = ()
    again: tuple[Process, ...] = ()
    """The same process, as it was in the moments after: one that is at work in a function may be about to leave it."""
    threads: tuple[tuple[Place, Stack], ...] = ()
    """Of one that has ended its script: where its other threads are, for which it may wait."""

    @property
    def key(self) -> tuple[object, ...] | None:
        """Equal where nothing has moved: in the same wait, or still in the same call of a function."""
        if self.place is None or self.place.kind in WAITS:
            return None if self.place is None else self.place.key
        return (*self.place.key, *self.stack[1:])

    @property
    def left(self) -> bool:
        """Whether it went elsewhere in the moments after."""
        return any(later.place is not None and later.key != self.key for later in self.again)


@dataclass(frozen=True)
class RankLook:
    """What one look showed of a rank.

    `workers`: forked processes by pid. `programs`: CPU seconds of its other descendants by pid. `bytes_before`,
    `bytes_after`: what it had read from and written to storage when the look began and ended.
    """

    main: Process
    workers: Mapping[int, Process] = field(default_factory=dict)
    programs: Mapping[int, float] = field(default_factory=dict)
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(frozen=True)
class Look:
    """One look at all live ranks of a node, at `time` seconds of any clock."""

    time: float
    ranks: Mapping[int, RankLook]


def sign(before: RankLook, after: RankLook, seconds: float) -> Sign:
    """What the rank did in the `seconds` between two looks."""
    if after.bytes_before - before.bytes_after >= _WRITES:
        return Sign.MOVING
    waits_for_ranks = after.main.place is not None and after.main.place.kind in FOR_RANKS
    if not waits_for_ranks and _programs_work(before, after, seconds):
        return Sign.MOVING
    if after.workers.keys() != before.workers.keys():
        return Sign.MOVING
    signs = [_process_sign(before.main, after.main, seconds)]
    if not waits_for_ranks:  # workers that fill their queues meanwhile help nobody
        signs += [_process_sign(before.workers[pid], after.workers[pid], seconds) for pid in after.workers]
    if after.main.place is not None and after.main.place.kind is Kind.ENDING:
        signs.append(_ending_sign(before, after))
    return max(signs)


def _ending_sign(before: RankLook, after: RankLook) -> Sign:
    """What those show for which a rank waits that has ended its script."""
    if before.main.threads != after.main.threads:
        return Sign.MOVING
    threads = [place for place, _ in after.main.threads]
    return Sign.DOUBTFUL if may_end(after.main.place, threads, bool(after.workers)) else Sign.STILL


def _kind(look: RankLook) -> str:
    """The name of what the rank is in: that of a rank which waits for a thread that sleeps is the thread's."""
    place = look.main.place
    others = [*(place for place, _ in look.main.threads), *(worker.place for worker in look.workers.values())]
    return "" if place is None else Kind.SLEEP.name if asleep(place, others) else place.kind.name


def _programs_work(before: RankLook, after: RankLook, seconds: float) -> bool:
    if after.programs.keys() - before.programs.keys():
        return True
    return any(cpu - before.programs[pid] >= _BUSY * seconds for pid, cpu in after.programs.items())


def _process_sign(before: Process, after: Process, seconds: float) -> Sign:
    busy = after.cpu - before.cpu >= _BUSY * seconds
    if after.place is None or before.place is None:
        return Sign.MOVING if busy else Sign.DOUBTFUL
    if after.key != before.key or after.left:
        return Sign.MOVING
    if after.native and after.place.kind not in WAITS and after.cpu - before.cpu >= _WORKS * seconds:
        return Sign.MOVING  # one long call of C, which a loop of Python is not
    return Sign.DOUBTFUL if busy or after.on_disk or after.place.kind in PATIENT else Sign.STILL


@dataclass(frozen=True)
class NodeState:
    """What a node knows of its own ranks.

    `still` and `stuck`: seconds for which none was more than STILL, and than DOUBTFUL. `looks` went into it.
    `signs`: the last of each rank. `stands`: the seconds for which each was no more than DOUBTFUL.
    """

    still: float
    stuck: float
    looks: int
    signs: tuple[int, ...]
    kinds: tuple[str, ...]
    lines: tuple[str, ...]
    stands: tuple[float, ...]


class Suspicion:
    """The looks at one silence."""

    def __init__(self) -> None:
        self.last: Look | None = None
        self._still_since = self._stuck_since = 0.0
        self._looks = 0
        self._stands_since: dict[int, float] = {}
        self._outer: dict[int, Stack] = {}
        self.signs: dict[int, Sign] = {}

    def add(self, look: Look) -> None:
        """Take another look into account. Other ranks than before: all over again."""
        last, self.last = self.last, look
        if last is None or last.ranks.keys() != look.ranks.keys():
            self._still_since = self._stuck_since = look.time
            self._looks, self.signs = 1, {}
            self._stands_since = dict.fromkeys(look.ranks, look.time)
            self._outer = {rank: seen.main.stack for rank, seen in look.ranks.items()}
            return
        self._looks += 1
        seconds = look.time - last.time
        self.signs = {rank: sign(last.ranks[rank], seen, seconds) for rank, seen in look.ranks.items()}
        for rank, seen in look.ranks.items():
            self._outer[rank] = common_outer(self._outer[rank], seen.main.stack)
            if self.signs[rank] is Sign.MOVING:
                self._stands_since[rank] = look.time
        worst = max(self.signs.values(), default=Sign.STILL)
        if worst > Sign.STILL:
            self._still_since = look.time
        if worst > Sign.DOUBTFUL:
            self._stuck_since = look.time

    def always_in(self, rank: int) -> Frame | None:
        """The innermost function of the user's code that the rank was in at all looks, and its line at the last."""
        return next((frame for frame in self._outer.get(rank, ()) if is_users(frame.file)), None)

    def state(self) -> NodeState | None:
        """What is known; None before there were two looks at the same ranks."""
        if self.last is None or not self.signs:
            return None
        places = [look.main.place for _, look in sorted(self.last.ranks.items())]
        return NodeState(
            still=self.last.time - self._still_since,
            stuck=self.last.time - self._stuck_since,
            looks=self._looks,
            signs=tuple(int(value) for _, value in sorted(self.signs.items())),
            kinds=tuple(_kind(look) for _, look in sorted(self.last.ranks.items())),
            lines=tuple(repr(place.line) if place is not None else "" for place in places),
            stands=tuple(self.last.time - since for _, since in sorted(self._stands_since.items())),
        )


def confirmation(timeout: float) -> float:
    """Seconds for which nothing may have moved, beside the silence."""
    return min(60.0, max(2.0, timeout / 2))


def is_stuck(states: Sequence[NodeState], silent: float, timeout: float, patience: float) -> bool:
    """Whether the run, of which these are all the nodes, is stuck after `silent` seconds without a step.

    Soon, if no rank did anything and one at least does not just sleep. After `patience`, if ranks worked without
    getting anywhere, or waited for what may end by itself, while others wait for them: ranks that all compute at the
    same line, as in an evaluation, may be at work.
    """
    if not states or min(state.looks for state in states) < _LOOKS:
        return False
    kinds = {kind for state in states for kind in state.kinds}
    still = min(state.still for state in states)
    if silent >= timeout and still >= confirmation(timeout) and kinds != {Kind.SLEEP.name}:
        return True
    stuck = min(state.stuck for state in states)
    if silent < patience or stuck < max(patience / 2, _LATE_LOOKS * looks_apart(timeout, silent)):
        return False
    lines = {line for state in states for line in state.lines}
    doubtful = Sign.DOUBTFUL in {value for state in states for value in state.signs}
    return not doubtful or Kind.COLLECTIVE.name in kinds or len(lines) > 1


def is_held_up(states: Sequence[NodeState], silent: float, patience: float) -> bool:
    """Whether some ranks are at work for so long, while all others stand still, that it may never end.

    Nothing but time tells a long evaluation on one rank from an endless loop over functions: this is no verdict.
    """
    stands = [seconds for state in states for seconds in state.stands]
    waiting = sum(seconds >= _LONG * patience / 2 for seconds in stands)
    return silent >= _LONG * patience and 0 < waiting < len(stands)


def is_worth_samples(silent: float, patience: float) -> bool:
    """Whether what a rank at work does between two looks may soon decide."""
    return silent >= patience / 2


def looks_apart(timeout: float, silent: float) -> float:
    """Seconds until the next look: 1 or more, and rarer as the silence lasts."""
    return min(30.0, max(1.0, confirmation(timeout) / 6, (silent - timeout) / 20))
