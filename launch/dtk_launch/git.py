"""Asks git several questions at once, within a time and a size."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reply:
    """What git said. `why` is why it is not all, or '' if it is."""

    out: bytes
    why: str

    @property
    def ok(self) -> bool:
        """Whether this is the whole answer."""
        return not self.why


def ask(folder: Path, commands: Sequence[tuple[str, ...]], sizes: Sequence[int], seconds: float) -> tuple[Reply, ...]:
    """The answers to git commands that only read, run side by side in `folder`. Raises nothing.

    An answer longer than its size is cut there, and all git that runs after `seconds` is killed. No lock is taken, so a
    git of the user is not disturbed.
    """
    deadline = time.monotonic() + seconds
    children = [_start(folder, command) for command in commands]
    outs = [bytearray() for _ in children]
    cut = _read([child for child in children if child], [outs[i] for i, c in enumerate(children) if c], sizes, deadline)
    replies = []
    for child, out, size in zip(children, outs, sizes, strict=False):
        if child is None:
            replies.append(Reply(b"", "git cannot be run"))
            continue
        late = child in cut
        said = _finish(child, late or len(out) > size)
        if len(out) > size:
            replies.append(Reply(bytes(out[:size]), f"more than {size} bytes"))
        elif late:
            replies.append(Reply(bytes(out), f"git took longer than {seconds:g} seconds"))
        else:
            replies.append(
                Reply(bytes(out), "" if child.returncode == 0 else said or f"git ended with {child.returncode}")
            )
    return tuple(replies)


def _start(folder: Path, command: tuple[str, ...]) -> subprocess.Popen[bytes] | None:
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.Popen(
            ("git", "-c", "core.quotepath=off", "-c", "core.fsmonitor=false", *command),
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError:
        return None


def _read(
    children: Sequence[subprocess.Popen[bytes]], outs: Sequence[bytearray], sizes: Sequence[int], deadline: float
) -> list[subprocess.Popen[bytes]]:
    """Fill `outs` until every answer has ended or is too long; the children that were late."""
    with selectors.DefaultSelector() as selector:
        for child, out, size in zip(children, outs, sizes, strict=False):
            assert child.stdout is not None
            selector.register(child.stdout, selectors.EVENT_READ, (child, out, size))
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return [key.data[0] for key in selector.get_map().values()]
            for key, _ in ready:
                _, out, size = key.data
                data = os.read(key.fd, 1 << 16)
                out += data
                if not data or len(out) > size:
                    selector.unregister(key.fileobj)
    return []


def _finish(child: subprocess.Popen[bytes], kill: bool) -> str:
    """End and reap; the first line that it said on stderr."""
    if kill:
        child.kill()
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout, child.stderr:
        said = b"" if kill else child.stderr.readline()
        child.wait()
    return said.decode(errors="replace").strip().removeprefix("fatal: ")
