"""Copies of what is being saved, so that training may go on: host memory that each save uses again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NoReturn

import torch


class Lacking(Sequence[torch.Tensor]):
    """Stands for tensors that could not be copied: raises why where they are asked for."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, index: object) -> NoReturn:
        raise self._error

    def __len__(self) -> NoReturn:
        raise self._error


class Staging:
    """Memory for the tensors of one save at a time."""

    def __init__(self) -> None:
        self._memory: list[torch.Tensor] = []
        self._kinds: list[tuple[torch.device, torch.dtype, torch.Size]] = []
        self._alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}

    def hold(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same tensors, in memory that nobody changes until the next `hold`. Waits for copies from a GPU."""
        kinds = [(data.device, data.dtype, data.shape) for data in tensors]
        if kinds != self._kinds:
            self._memory = []  # before there is new memory
            self._memory = [torch.empty(s, dtype=t, pin_memory=d.type == "cuda") for d, t, s in kinds]
            self._kinds = kinds
            self._alike = defaultdict(list)
            for number, (device, dtype, _) in enumerate(kinds):
                self._alike[device, dtype].append(number)
        for numbers in self._alike.values():
            # one call for all of a kind: with many small tensors the calls would cost more than the bytes
            torch._foreach_copy_([self._memory[n] for n in numbers], [tensors[n] for n in numbers], non_blocking=True)
        for device in {device for device, _ in self._alike if device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        return self._memory
