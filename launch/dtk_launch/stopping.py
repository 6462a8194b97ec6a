"""The end of a run that is asked for: the ranks are told, torchrun waits for them, and what is late is killed.

dtk tells each rank itself. torchrun would tell its whole process group, so that the workers of a loader die under their
rank, and would end all ranks when the first has left. So it gets SIGURG instead, which it takes for a signal to end by
(--signals-to-handle): it hands that on to the ranks, where it does nothing, starts none again, and waits.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

from dtk_launch import hostos
from dtk_launch.diagnose.evidence import PREEMPTED, signal_name
from dtk_launch.grace import AGENT_GRACE, Stop
from dtk_launch.ranks import RankWatch, tell

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
_DOUBLE_PRESS = 0.3  # a second SIGINT this soon is the same one, forwarded by a wrapper
_HOLD_AFTER = 0.3  # seconds; by then torchrun has said it, if the scheduler has told every process of the job
_UNSTARTED_GRACE = 2.0  # seconds for a torchrun without ranks to leave the other nodes in order
_SHUTTING_DOWN = "death signal"  # in torchrun's words


def hold_after(stop: Stop) -> float:
    """Seconds after the notice at which torchrun is to wait, if no rank has ended by then.

    It waits `agent_grace` seconds from then on, so where that is shorter than the grace it is told late.
    """
    return _HOLD_AFTER if stop.agent_grace >= stop.grace else max(_HOLD_AFTER, stop.grace - stop.agent_grace + 1)


class Stopping:
    """What dtk has been told and what it has done about it, for one run."""

    def __init__(self, stop: Stop, watch: RankWatch, nproc: int, words: Callable[[], str]) -> None:
        """`words` gives what torchrun has written so far."""
        self.signalled: int | None = None
        """The signal that the run is ended for."""
        self.since_ns = 0
        """Unix time of it."""
        self._stop, self._watch, self._nproc, self._words = stop, watch, nproc, words
        self._given = signal.Signals[f"SIG{stop.signal}"] if stop.signal else None
        self._passed_on = self._held = self._killed = self._unstarted = False
        self._tell: int | None = None
        self._told: set[int] = set()
        self._began = 0.0
        self._grace = stop.grace

    def take(self, signum: int, agent: int) -> None:
        """Act on a signal that dtk got. `agent` is torchrun's pid."""
        if signum in NOTICES and self._given is None:
            self._passed_on = True
            self._watch.signal(signum, agent)
        elif self.signalled is None:
            self._begin(signum, agent, self._given if self._given and signum in (*NOTICES, signal.SIGTERM) else signum)
        elif signum == signal.SIGINT and time.monotonic() - self._began > _DOUBLE_PRESS:
            self._kill(agent)  # a second Ctrl-C: at once. A second SIGTERM says nothing new (SLURM sends two)

    def look(self, agent: int, others_failed: Callable[[], bool]) -> None:
        """What is due now: ranks that have begun since, torchrun's waiting, the end of the grace.

        Ranks that have saved for preemption end the run by themselves, restarts left or not.
        """
        if self.signalled is None:
            if self._preempted():
                # those that were told of it by SIGUSR1 may know no other signal
                self._begin(signal.SIGTERM, agent, None if self._passed_on else self._given or signal.SIGTERM)
            elif others_failed():
                self._grace = min(self._grace, AGENT_GRACE)
                self._begin(signal.SIGTERM, agent, signal.SIGTERM)
            return
        self._tell_ranks(agent)
        self._hold(agent)
        if self._killed:
            return
        passed = time.monotonic() - self._began
        if passed > self._grace:
            self._say_who_is_late(agent)
            self._kill(agent)
        elif self._unstarted and passed > _UNSTARTED_GRACE and not self._watch.records:
            self._kill(agent)

    def _begin(self, signum: int, agent: int, tell: int | None) -> None:
        self.signalled, self._began, self.since_ns, self._tell = signum, time.monotonic(), time.time_ns(), tell
        self._watch.look_again()  # a rank may have started since the last look
        if not self._watch.records:  # nothing to lose, and torchrun without ranks may not know SIGURG yet
            self._held = self._unstarted = True
            hostos.send(agent, signal.SIGTERM)  # a KeyboardInterrupt can get lost in an import
        self._tell_ranks(agent)
        self._hold(agent)
        if not self._held:  # torchrun looks for ended ranks ten times a second, and would tell the others once more
            self._hold(agent, self._watch.one_ends(_HOLD_AFTER))

    def _tell_ranks(self, agent: int) -> None:
        if self._tell is not None:
            for pid in self._watch.running(agent):
                if pid not in self._told:
                    self._told.add(pid)
                    tell(pid, self._tell)

    def _hold(self, agent: int, ended: bool = False) -> None:
        if self._held:
            return
        records = self._watch.records.values()
        ended = ended or any(record.exit is not None or record.pid in self._watch.ended for record in records)
        due = time.monotonic() - self._began > hold_after(self._stop) and len(records) >= self._nproc
        if ended or due:
            self._held = True
            if _SHUTTING_DOWN not in self._words():
                hostos.send(agent, signal.SIGURG)

    def _preempted(self) -> bool:
        """Whether a rank has ended with 75 and none in another way: one that failed is torchrun's to restart."""
        records = self._watch.records
        if any(record.exit is None and record.pid in self._watch.ended for record in records.values()):
            return False
        codes = {record.exit.code for record in records.values() if record.exit is not None}
        return PREEMPTED in codes and codes <= {0, PREEMPTED}

    def _say_who_is_late(self, agent: int) -> None:
        late = set(self._watch.running(agent))
        ranks = ", ".join(str(rank) for rank, record in sorted(self._watch.records.items()) if record.pid in late)
        if ranks and self.signalled is not None:
            told = f"{self._grace:g} s after {signal_name(self.signalled)}"
            print(
                f"dtk: killed, for they were still there {told} (--grace): ranks {ranks}", file=sys.stderr, flush=True
            )

    def _kill(self, agent: int) -> None:
        self._killed = True
        self._watch.signal(signal.SIGKILL, agent)
        hostos.send(agent, signal.SIGKILL)
