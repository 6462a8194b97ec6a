"""What a person sees of this benchmark while it measures."""

from __future__ import annotations

from typing import Any

from bench_parts import terminal
from bench_parts.records import Record

from .idle import ROUNDS


class Progress(terminal.Progress):
    """The part, and how many of its rounds are there."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self._rounds = options.rounds

    def record(self, record: Record) -> None:
        """Show what has come to its end."""
        if record["kind"] == "others":
            self.update(f"{record['part']}: {record['round']} of {self._rounds} rounds")
        elif record["kind"] == "idle":
            self.update(f"idle, {record['ranks']}: {record['round']} of {ROUNDS} rounds")
