"""A page of memory that each rank shares with the dtk of its node: a lock held for life, and a heartbeat.

The lock is a robust mutex. When its owner dies, in whatever way, the kernel hands it on before it takes the process's
memory down, so a waiter learns the moment of a death to some 0.2 ms; a pidfd becomes readable only after the memory is
gone, 80 ms later for a process of 1 GB. Source: futex(2) and get_robust_list(2), "robust futexes".

All pages of a node are one file in memory without a name, which ends with the last process that has it.

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import partial

PAGE = 4096
_ATTEMPTS = 64  # pages of a rank; a later restart takes the page of one long dead
_ATTRIBUTES = 64  # bytes, more than any libc needs for the mutex's attributes
_BEAT = 128  # offset of the heartbeat, behind the mutex (at most 48 bytes in glibc and musl)
_COUNTS = struct.Struct("<QQ")
_MOMENT = struct.Struct("<Q")
_FAILED = 160  # offset of the moment at which an exception left the script
_TURN = 168  # and of that at which the main thread executed Python on being asked
_WORDS = 512  # offset of what the rank could not write to its record: its length, and the bytes
_LENGTH = struct.Struct("<I")
MOST_WORDS = PAGE - _WORDS - _LENGTH.size
_PROCESS_SHARED, _ROBUST = 1, 1
_OWNER_DIED = 130  # EOWNERDEAD


def create_file(nproc: int) -> int | None:
    """Descriptor of a file with room for the pages of all ranks of a node; None where the system has no such file."""
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.memfd_create("dtk-vitals")
        os.truncate(descriptor, PAGE * nproc * _ATTEMPTS)
    except OSError:
        return None
    return descriptor


def path_of(descriptor: int) -> str:
    """Path by which the other processes of this user open a file of this process."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def offset_of(local_rank: int, nproc: int, restart: int) -> int:
    """Where the page of a rank is in the file."""
    return PAGE * (local_rank + nproc * (restart % _ATTEMPTS))


def words_in(descriptor: int, offset: int) -> bytes:
    """What the rank of the page at `offset` has left there; empty if it has nothing, or there is no such page."""
    try:
        (length,) = _LENGTH.unpack(os.pread(descriptor, _LENGTH.size, offset + _WORDS))
        return os.pread(descriptor, min(length, MOST_WORDS), offset + _WORDS + _LENGTH.size)
    except (OSError, struct.error):
        return b""


class Page:
    """One rank's page, mapped. Never unmapped: the kernel follows the list of held locks into it."""

    def __init__(self, descriptor: int, offset: int) -> None:
        """Map the page at `offset` of the file. Raises OSError, and ValueError beyond its end."""
        self._memory = mmap.mmap(descriptor, PAGE, offset=offset)
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._memory)))
        self._steps = 0
        self._owner = 0

    def hold(self) -> bool:
        """Take the lock for as long as this process lives, with no step done; False where there is no such lock."""
        try:
            libc = ctypes.CDLL(None)
            attributes = ctypes.create_string_buffer(_ATTRIBUTES)
            # the interpreter's end must not unmap what the kernel is still to look into
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._memory))
            self._memory[:] = bytes(PAGE)
            self._owner = os.getpid()
            return not (
                libc.pthread_mutexattr_init(attributes)
                or libc.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED)
                or libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
                or libc.pthread_mutex_init(self._address, attributes)
                or libc.pthread_mutex_lock(self._address)
            )
        except AttributeError:
            return False

    def wait_for_death(self) -> bool:
        """Block, without holding the GIL, until the owner has died; False if the lock tells nothing."""
        return bool(ctypes.CDLL(None).pthread_mutex_lock(self._address) == _OWNER_DIED)

    def beat(self) -> None:
        """Note that the rank has finished one more step, now. About a microsecond."""
        self._steps += 1
        _COUNTS.pack_into(self._memory, _BEAT, self._steps, time.monotonic_ns())

    def note_failure(self) -> None:
        """Note that an exception has left the script, now. Quick, and nothing in a forked child."""
        if os.getpid() == self._owner:
            _MOMENT.pack_into(self._memory, _FAILED, time.monotonic_ns())

    def failed_at(self) -> int | None:
        """time.monotonic_ns() at which an exception left the script; None if none has."""
        (moment,) = _MOMENT.unpack_from(self._memory, _FAILED)
        return moment or None

    def leave(self, words: bytes) -> None:
        """Leave these, at most MOST_WORDS bytes, in the place of what was left before; nothing in a forked child."""
        if os.getpid() == self._owner:
            start = _WORDS + _LENGTH.size
            _LENGTH.pack_into(self._memory, _WORDS, 0)
            self._memory[start : start + len(words)] = words
            _LENGTH.pack_into(self._memory, _WORDS, len(words))

    def turn_noter(self) -> Callable[..., object]:
        """A handler for a signal that notes that the main thread executes Python, now. Itself, it executes none.

        A handler in Python could be traced into a compiled step (dynamo), count as a call, or raise. This is libc's
        clock_gettime with two arguments too many, the handler's own, which C leaves alone.
        """
        clock = ctypes.PyDLL(None).clock_gettime
        clock.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.py_object]
        return partial(clock, time.CLOCK_MONOTONIC, (self._address.value or 0) + _TURN)

    def turned_at(self) -> int:
        """time.monotonic_ns() at which the main thread last executed Python after it was asked; 0: never."""
        seconds, nanoseconds = _COUNTS.unpack_from(self._memory, _TURN)
        return int(seconds) * 10**9 + int(nanoseconds)

    def heartbeat(self) -> tuple[int, int]:
        """(steps so far, time.monotonic_ns() of the last one); (0, 0) before the first."""
        steps, when = _COUNTS.unpack_from(self._memory, _BEAT)
        return steps, when
