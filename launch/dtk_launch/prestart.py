"""Starts to load torch for torchrun in a process of its own while dtk still decides: both take their time at once.

Without it each launch begins a tenth later than torchrun's own (benchmarks/reports/launch). The process runs nothing
until it is told what (agent.py), and is ended where nothing is to be run. What is run is the command of the plan.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_WORDS_THAT_START_NOTHING = {"-h", "--help", "--dry-run"}
_NOT_READ_AT_IMPORT = (
    *("DTK_", "OMP_NUM_THREADS", "ACCELERATE_", "FSDP_", "LT_"),
    *("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "GLOO_SOCKET_IFNAME"),
)
"""What a plan may set and torch does not read while it is imported. With anything else, torchrun is started anew."""


class Prestarted:
    """The process that loads torch. `child` is its handle; torchrun's, once it was told to become that."""

    def __init__(self) -> None:
        import socket
        import subprocess

        self._environ = dict(os.environ)
        self._socket, theirs = socket.socketpair()
        said = os.memfd_create("dtk-agent")
        with theirs:
            self.child: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, os.path.join(os.path.dirname(__file__), "agent.py"), "torchrun", str(os.getpid())],  # noqa: PTH118, PTH120
                stdin=theirs.fileno(),
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        os.close(said)

    def fits(self, torchrun: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Whether this process, as it was started, is what `torchrun` would be in that environment."""
        differing = {name for name, _ in self._environ.items() ^ environ.items()}
        beside = os.path.join(os.path.dirname(sys.executable), "torchrun")  # noqa: PTH118, PTH120
        same_program = list(torchrun) in ([beside], [sys.executable, "-m", "torch.distributed.run"])
        return same_program and all(name.startswith(_NOT_READ_AT_IMPORT) for name in differing)

    def become(
        self, words: Sequence[str], environ: Mapping[str, str], log: int, ignored: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        """Have it run `torchrun WORDS` with this environment, output to the file `log` and these signals ignored."""
        import json
        import socket

        message = {"environ": dict(environ), "words": list(words), "ignored": list(ignored)}
        data = json.dumps(message).encode()
        with self._socket, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: its code says how
            sent = socket.send_fds(self._socket, [data], [log])
            self._socket.sendall(data[sent:])
        return self.child

    def drop(self) -> None:
        """End it: nothing is to be started, or not by it."""
        self._socket.close()
        self.child.kill()
        self.child.wait()


_early: Prestarted | None = None


def begin(words: Sequence[str]) -> None:
    """Start loading, if this is a command line of dtk that launches."""
    global _early
    if sys.platform != "linux" or words[:1] != ["launch"] or not _WORDS_THAT_START_NOTHING.isdisjoint(words):
        return
    with contextlib.suppress(OSError):
        _early = Prestarted()


def end() -> None:
    """End what was begun and not taken."""
    early = _take()
    if early is not None:
        early.drop()


def torchrun(
    argv: Sequence[str], torchrun_words: Sequence[str], environ: Mapping[str, str], log: int, ignored: Sequence[int]
) -> subprocess.Popen[bytes] | None:
    """The process that was begun as `argv`, whose first words are `torchrun_words`; None if it does not fit."""
    early = _take()
    if early is None:
        return None
    if not early.fits(torchrun_words, environ):
        early.drop()
        return None
    return early.become(argv[len(torchrun_words) :], environ, log, ignored)


def _take() -> Prestarted | None:
    global _early
    early, _early = _early, None
    return early
