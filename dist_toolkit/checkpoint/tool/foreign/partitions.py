"""ZeRO's flat partitions: where the elements of each parameter are, in the weights and in the optimizer's state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from dist_toolkit.checkpoint.tool.foreign.source import LazyTensor, check_dtype, lazy
from dist_toolkit.checkpoint.tool.outcome import UsageError

Shapes = dict[str, tuple[int, ...]]
"""Parameters of one flat tensor, in its order."""


@dataclass(frozen=True)
class _Span:
    """Elements `start` to `stop` of flat tensor `flat` of a rank."""

    rank: int
    flat: int
    start: int
    stop: int


class Partitions:
    """The flat tensors of all ranks.

    Attributes:
        shapes: of all trained parameters.
    """

    def __init__(
        self, groups: Sequence[Shapes], weights: Sequence[Sequence[torch.Tensor]],
        base: Sequence[Mapping[str, Any]], spans: Mapping[str, Sequence[_Span]],
    ) -> None:  # fmt: skip
        self.shapes = {name: shape for group in groups for name, shape in group.items()}
        self._groups, self._weights, self._base, self._spans = groups, weights, base, spans

    def weight(self, name: str) -> LazyTensor:
        """The fp32 weights of a parameter."""
        return self._gathered(name, name, lambda rank, flat: self._weights[rank][flat])

    def states(self) -> Iterator[tuple[str, str, Any]]:
        """(name of the state, parameter, lazy tensor or plain value)."""
        for number, group in enumerate(self._groups):
            for key, value in self._base[0]["state"].get(number, {}).items():
                for name in group:
                    yield key, name, self._state(number, key, value, name)

    def groups(self) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """(options, names of the parameters) of each parameter group."""
        groups = self._base[0]["param_groups"]
        if sorted(number for group in groups for number in group["params"]) != list(range(len(self._groups))):
            raise UsageError("the optimizer's groups are not those of the partitions: this save cannot be converted")
        for group in groups:
            members = [name for number in group["params"] for name in self._groups[number]]
            options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            yield {key: v.item() if isinstance(v, torch.Tensor) else v for key, v in options.items()}, members

    def _state(self, number: int, key: str, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim == 1:
            return self._gathered(name, f"{name}: {key}", lambda rank, flat: self._base[rank]["state"][flat][key])
        everywhere = [base["state"][number][key] for base in self._base]
        if any(bool(other != value) for other in everywhere):
            raise UsageError(f"the ranks hold different {key!r} of {name}: the files are of different saves")
        if not isinstance(value, torch.Tensor):
            if not (value is None or isinstance(value, (bool, int, float, str))):
                raise UsageError(f"the optimizer's state {key!r} is a {type(value).__name__}; it cannot be converted")
            return value
        if value.ndim:
            raise UsageError(f"the optimizer's state {key!r} has shape {list(value.shape)}; it cannot be converted")
        return lazy(value.dtype, (), lambda: value)

    def _gathered(self, name: str, words: str, of: Callable[[int, int], torch.Tensor]) -> LazyTensor:
        spans, shape = self._spans[name], self.shapes[name]
        flats = [of(span.rank, span.flat) for span in spans]
        for span, flat in zip(spans, flats, strict=True):
            if flat.ndim != 1 or span.stop > flat.numel():
                raise UsageError(f"{words}: the part of rank {span.rank} is shorter than its parameters")
        dtype = flats[0].dtype if flats else torch.float32
        check_dtype(dtype, words)

        def load() -> torch.Tensor:
            pieces = [flat[span.start : span.stop] for span, flat in zip(spans, flats, strict=True)]
            whole = torch.cat(pieces) if pieces else torch.empty(0, dtype=dtype)
            return whole[: math.prod(shape)].reshape(shape)

        return lazy(dtype, shape, load)


def stage2(groups: Sequence[Shapes], optimizers: Sequence[Mapping[str, Any]]) -> Partitions:
    """ZeRO 1 and 2: a group's parameters one after another, cut into one part for each rank."""
    weights = [held["single_partition_of_fp32_groups"] for held in optimizers]
    base = [_base(held["base_optimizer_state"]) for held in optimizers]
    gaps = optimizers[0].get("param_alignment_paddings")
    spans: dict[str, list[_Span]] = {}
    for number, group in enumerate(groups):
        ends = [0]
        for held in weights:
            ends.append(ends[-1] + held[number].numel())
        place = 0
        for index, (name, shape) in enumerate(group.items()):
            stop = place + math.prod(shape)
            if stop > ends[-1]:
                raise UsageError(f"{name} is not all there: the parts of group {number} hold {ends[-1]} numbers")
            spans[name] = [
                _Span(rank, number, max(place, begin) - begin, min(stop, end) - begin)
                for rank, (begin, end) in enumerate(pairwise(ends))
                if max(place, begin) < min(stop, end)
            ]
            place = stop + (gaps[number][index] if gaps is not None else 0)
        _check_rest(number, ends[-1] - place, 2 * len(weights))
    return Partitions(groups, weights, base, spans)


def stage3(groups: Sequence[Shapes], optimizers: Sequence[Mapping[str, Any]]) -> Partitions:
    """ZeRO 3: each parameter cut into one part for each rank, padded at its end; a rank's parts one after another."""
    weights = [held["fp32_flat_groups"] for held in optimizers]
    base = [_base(held["optimizer_state_dict"]) for held in optimizers]
    ranks = len(weights)
    spans: dict[str, list[_Span]] = {}
    for number, group in enumerate(groups):
        place = 0
        for name, shape in group.items():
            each = -(-math.prod(shape) // ranks)
            spans[name] = [_Span(rank, number, place, place + each) for rank in range(ranks) if each]
            place += each
        held = {flats[number].numel() for flats in weights}
        if held != {place}:
            raise UsageError(f"the parts of group {number} hold {sorted(held)} numbers, its parameters need {place}")
    return Partitions(groups, weights, base, spans)


def _base(state: Any) -> Mapping[str, Any]:
    """The torch optimizer's state over flat tensors."""
    if not isinstance(state, Mapping) or "param_groups" not in state or "state" not in state:
        raise UsageError(
            "the optimizer's state is saved in DeepSpeed's elastic form, which does not say how it was cut; save with "
            "zero_optimization.elastic_checkpoint false, as is the default"
        )
    return state


def _check_rest(number: int, rest: int, alignment: int) -> None:
    if rest < 0 or rest > alignment * 16:
        raise UsageError(f"group {number}: {rest} numbers are of no parameter: it cannot be told which are whose")
