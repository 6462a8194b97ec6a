"""What a rank tells the others about itself, as JSON in the store: facts only, no judgement."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from dist_toolkit.guard.recorder import Record, Recorder, is_outside

_UNENDED = ""
ENDED_WELL = "closed"
ENDED_BADLY = "failed"


@dataclass(frozen=True)
class Report:
    """One rank at one moment.

    Attributes:
        rank: whose.
        question: the number of the question it answers.
        number: operations entered so far.
        records: the last of them, oldest first, consecutive.
        waiting: seconds inside the operation under way; 0.0 outside of one.
        quiet: seconds since the last entry.
        here: `file:line` of the script, where the main thread is.
        step: the training step.
        ended: "" while it runs, `closed` when it left in order, `failed` when an error ended it.
        marks: chain hashes at some operations longer ago, by number.
    """

    rank: int
    question: int
    number: int
    records: tuple[Record, ...] = ()
    waiting: float = 0.0
    quiet: float = 0.0
    here: str = "?"
    step: int = 0
    ended: str = _UNENDED
    marks: Mapping[int, int] = field(default_factory=dict)

    def record(self, number: int) -> Record | None:
        """The record with this number, where it is still remembered."""
        if not self.records or not self.records[0].number <= number <= self.records[-1].number:
            return None
        return self.records[number - self.records[0].number]

    def to_json(self) -> str:
        """One line; paths are told once."""
        files = sorted({record.file for record in self.records})
        rows = [[r.number, r.operation, files.index(r.file), r.line, r.step, r.chain] for r in self.records]
        return json.dumps({**asdict(self), "records": rows, "files": files})

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The report that `to_json` wrote."""
        data = json.loads(text)
        files = data.pop("files")
        data["records"] = tuple(
            Record(n, name, files[f], line, step, c) for n, name, f, line, step, c in data["records"]
        )
        data["marks"] = {int(number): chain for number, chain in data["marks"].items()}
        return cls(**data)


def take_report(recorder: Recorder, rank: int, question: int, ended: str = _UNENDED) -> Report:
    """This rank, now. May be called from any thread of it."""
    records = tuple(recorder.records())
    since, now = recorder.inside_since, time.monotonic()
    return Report(
        rank=rank,
        question=question,
        number=records[-1].number if records else 0,
        records=records,
        waiting=now - since if since and not ended else 0.0,
        quiet=now - recorder.last_at,
        here=whereabouts(recorder.owner),
        step=recorder.step,
        ended=ended,
        marks=recorder.marks,
    )


def whereabouts(thread: int) -> str:
    """`file:line` of the script where this thread of this process is; `?` if it is in no script.

    Where it is inside a collective of torch's own, its name too: those calls are not recorded.
    """
    frame = sys._current_frames().get(thread)
    inside = ""
    try:
        while frame is not None:
            module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
            if is_outside(module):
                return f"{frame.f_code.co_filename}:{frame.f_lineno}{inside}"
            if module == _TORCHS_OWN and not name.startswith("_"):
                inside = f" in torch.distributed.{name}"
            frame = frame.f_back
        return "?"
    finally:
        del frame


_TORCHS_OWN = "torch.distributed.distributed_c10d"
