"""Ranks whose script is over and whose process is not: what Python's end waits for. Pure.

At its end Python waits for threads that are no daemons (threading._shutdown), then for child processes of
multiprocessing and for what is in its queues (_exit_function). Such a stack has no line of the script; a dump does not
say which threads are daemons, so those in the user's code are named first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dtk_launch.diagnose.stacks import Frame, Stack, is_ending, main_stack, other_stacks
from dtk_launch.diagnose.waits import PATIENT, WAITS, Kind, Place, Source, place_of

GONE = Place(Kind.ENDING, "its process to end", None, ("", ""), "")
"""That of a rank which has written its last record and can no longer be asked."""

_CHILD, _QUEUE = "a child process", "what it put into a queue to be read"


def place_in(dump: str, source: Source) -> Place | None:
    """Where the rank of a dump is; None for a dump without frames."""
    stack = main_stack(dump)
    return _ending(stack, dump, source) if is_ending(stack) else place_of(stack, source)


def threads_of(dump: str, source: Source) -> tuple[tuple[Place, Stack], ...]:
    """Where the other threads are, one by one, of a rank that has ended its script; () of any other."""
    if not is_ending(main_stack(dump)):
        return ()
    return tuple((_thread(stack, source), stack) for stack in other_stacks(dump))


def may_end(place: Place | None, threads: Sequence[Place], workers: bool) -> bool:
    """Whether what a rank waits for that has ended its script may be at work, though nobody sees it.

    A thread that waits for a lock is not; one in a call of C or on the network may be. `workers`: child processes say
    where they are, so that they count for themselves.
    """
    if place is GONE or (place is not None and place.call == _CHILD):
        return not workers
    if place is not None and place.call == _QUEUE:  # a reader at work is a process that uses CPU
        return False
    return not all(thread.kind in WAITS - PATIENT for thread in threads)


def asleep(place: Place, others: Iterable[Place | None]) -> bool:
    """Whether a rank that has ended its script waits for threads or processes of which one sleeps: it may wake."""
    return place.kind is Kind.ENDING and any(other is not None and other.kind is Kind.SLEEP for other in others)


def _thread(stack: Stack, source: Source) -> Place:
    """A thread with no frame but Thread.run has a function of C for its target, such as a lock's acquire."""
    place = place_of(stack, source)
    return place if place is not None else Place(Kind.LOCK, "", None, ("", ""), "")


def _ending(stack: Stack, dump: str, source: Source) -> Place:
    function = (stack[0].file, stack[0].function)
    if any(_is(frame, "multiprocessing/queues.py", "_finalize_join") for frame in stack):
        return Place(Kind.ENDING, _QUEUE, None, function, "")
    if any(_is(frame, "multiprocessing/process.py", "join") for frame in stack) or any(
        _is(frame, "concurrent/futures/process.py", "_python_exit") for frame in stack
    ):
        return Place(Kind.ENDING, _CHILD, None, function, "")
    if not any(_is(frame, "threading.py", "_shutdown") for frame in stack):
        return Place(Kind.ENDING, f"{stack[0].function} at Python's end", None, function, "")
    places = [place for place, _ in threads_of(dump, source)]
    users = {repr(place.user): place for place in places if place.user is not None}
    named = [place for place in users.values() if place.user is not None]
    if not named:
        inner = next((place.function[1] for place in places if place.function[1]), "")
        return Place(Kind.ENDING, f"a thread in {inner}" if inner else "a thread", None, function, "")
    first = named[0]
    assert first.user is not None
    what = "a thread in" if len(named) == 1 else f"{len(named)} threads, one of them in"
    return Place(Kind.ENDING, f"{what} {first.user.function}", first.user, function, first.text)


def _is(frame: Frame, file: str, function: str) -> bool:
    return frame.file.endswith(f"/{file}") and frame.function == function
