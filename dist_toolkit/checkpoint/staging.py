"""Copies of what is being saved, so that training may go on: host memory that each save uses again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dist_toolkit.checkpoint.writer import OutChunk


class Staging:
    """Memory for the chunks of one save at a time."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def hold(self, chunks: Sequence[OutChunk]) -> list[OutChunk]:
        """The same chunks, in memory that nobody changes until the next `hold`. Waits for copies from a GPU."""
        wanted = {(chunk.name, chunk.offsets): chunk.data for chunk in chunks}
        self._memory = {
            place: memory for place, memory in self._memory.items() if place in wanted and _alike(memory, wanted[place])
        }
        for place, data in wanted.items():
            memory = self._memory.get(place)
            if memory is None:
                memory = self._memory[place] = torch.empty(
                    data.shape, dtype=data.dtype, pin_memory=data.device.type == "cuda"
                )
            memory.copy_(data, non_blocking=True)
        for device in {data.device for data in wanted.values() if data.device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        return [replace(chunk, data=self._memory[chunk.name, chunk.offsets]) for chunk in chunks]


def _alike(memory: torch.Tensor, data: torch.Tensor) -> bool:
    return memory.shape == data.shape and memory.dtype == data.dtype
