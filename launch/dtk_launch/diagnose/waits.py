"""What a stack is doing: which known call it waits in, and at which line of the user's code. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dtk_launch.diagnose.evidence import is_users
from dtk_launch.diagnose.stacks import Frame, Stack

Source = Callable[[str, int], str]
"""(file, line) -> the text of the line, '' if it is not known."""


class Kind(Enum):
    """What a stack is in."""

    COLLECTIVE = "collective"
    DATA = "data"
    BACKWARD = "backward"
    COMPILE = "compile"
    FILES = "files"
    PROGRAM = "program"
    NETWORK = "network"
    LOCK = "lock"
    THREAD = "thread"
    SLEEP = "sleep"
    CODE = "code"
    STOPPED = "stopped"
    ENDING = "ending"


PATIENT = {Kind.COMPILE, Kind.FILES, Kind.PROGRAM, Kind.NETWORK, Kind.THREAD}
"""Waits that end by themselves, though nothing that dtk can see moves meanwhile."""

WAITS = {Kind.COLLECTIVE, Kind.DATA, Kind.PROGRAM, Kind.NETWORK, Kind.LOCK, Kind.THREAD, Kind.SLEEP, Kind.ENDING}
"""Waits for somebody else: the CPU that is used meanwhile is not the waiting thread's, or a spinning one's."""

_PUBLIC = r"(?!_)\w+$"
# In this order: a DataLoader that waits does so in a queue. (kind, file, function)
_RULES = tuple(
    (kind, re.compile(file), re.compile(function))
    for kind, file, function in (
        (Kind.COLLECTIVE, r"/torch/distributed/(distributed_c10d|_functional_collectives|rendezvous)\.py$", _PUBLIC),
        (Kind.COLLECTIVE, r"/torch/distributed/nn/functional\.py$", r"."),
        (Kind.DATA, r"/torch/utils/data/dataloader\.py$", r"_try_get_data$"),
        (Kind.COMPILE, r"/torch/(_dynamo|_inductor|_functorch|fx)/|/triton/", r"."),
        (Kind.FILES, r"/torch/(serialization\.py|distributed/checkpoint/)|/safetensors/", _PUBLIC),
        (Kind.BACKWARD, r"/torch/autograd/(graph|__init__)\.py$", r"_engine_run_backward|backward|grad"),
        (Kind.PROGRAM, r"/subprocess\.py$", r"."),
        (Kind.THREAD, r"/concurrent/futures/\w+\.py$", _PUBLIC),
        (Kind.LOCK, r"/multiprocessing/(queues|synchronize|pool|process)\.py$", _PUBLIC),
        (Kind.LOCK, r"/(queue|threading)\.py$", r"(?!_|run$)\w+$"),
        (Kind.NETWORK, r"/(socket|ssl|http/client|selectors)\.py$|/(urllib3|botocore|aiohttp)/", r"."),
    )
)  # fmt: skip
# Calls into C leave no frame of Python: the text of the line tells.
_LINES = (
    (Kind.SLEEP, re.compile(r"\bsleep\(")),
    (Kind.COLLECTIVE, re.compile(r"\.wait\(")),
    (Kind.LOCK, re.compile(r"\.(acquire|get|join|result)\(|^with [\w.]*(lock|mutex|sem)", re.IGNORECASE)),
    (Kind.NETWORK, re.compile(r"\.(recv|accept|connect)\(")),
)


@dataclass(frozen=True)
class Place:
    """What a stack is in.

    `call` is the function that is named for it; `user` the innermost line of the user's code, None if there is none;
    `function` the innermost function of all, file and name; `text` is the user's line.
    """

    kind: Kind
    call: str
    user: Frame | None
    function: tuple[str, str]
    text: str

    @property
    def key(self) -> tuple[object, ...]:
        """Equal where nothing has moved: at the same wait of the same line, or still in the same function."""
        user = self.user
        if self.kind in WAITS:
            return self.line
        return (self.kind, *self.function, user and (user.file, user.function))

    @property
    def line(self) -> tuple[object, ...]:
        """Equal for ranks that are in the same place of the program."""
        user = self.user
        return (self.kind, self.call, user and (user.file, user.line))


STOPPED = Place(Kind.STOPPED, "", None, ("", ""), "")
"""That of a process which a signal has stopped: it does not tell."""

FOR_RANKS = {Kind.COLLECTIVE, Kind.BACKWARD}
"""Where a rank waits for the others: DDP and FSDP reduce gradients inside backward."""


def place_of(stack: Stack, source: Source) -> Place | None:
    """Where a stack is; None for one without frames."""
    if not stack:
        return None
    depth = next((index for index, frame in enumerate(stack) if is_users(frame.file)), None)
    user = None if depth is None else stack[depth]
    text = source(user.file, user.line).strip() if user is not None else ""
    function = (stack[0].file, stack[0].function)
    for kind, file, name in _RULES:
        named = [f for f in stack[:depth] if file.search(f.file) and name.match(f.function) and f.function != "wrapper"]
        if named:  # the outermost: what the program has called
            call = "the DataLoader" if kind is Kind.DATA else named[-1].function
            return Place(kind, call, user, function, text)
    if depth == 0:
        for kind, words in _LINES:
            if words.search(text):
                return Place(kind, "wait" if kind is Kind.COLLECTIVE else "", user, function, text)
    return Place(Kind.CODE, stack[0].function, user, function, text)
