"""What a rank holds of each parameter under ZeRO 1, 2 and 3: a range of its elements, in fp32."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dist_toolkit.group import Group
from dist_toolkit.strategies.flat_range import FlatRange
from dist_toolkit.strategies.state import strip_wrappers


@dataclass(frozen=True)
class Fragment:
    """This rank's elements `start` to `start + count` of a parameter, `count` 0 if it has none.

    Attributes:
        shape: of the whole parameter.
        flat: the one-dimensional tensor that DeepSpeed updates, with fragments of other parameters beside this one;
            the key of the optimizer's state.
        offset: where in `flat` this fragment begins.
    """

    parameter: nn.Parameter
    shape: torch.Size
    flat: torch.Tensor
    offset: int
    start: int
    count: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The view of this fragment in a tensor like `flat`: the weights, or a moment."""
        return flat.detach().narrow(0, self.offset, self.count)

    @property
    def weights(self) -> torch.Tensor:
        """The fp32 weights, one-dimensional; a view."""
        return self.of(self.flat)

    def take(self, whole: torch.Tensor) -> torch.Tensor:
        """These elements of a whole tensor."""
        return whole.detach().reshape(-1).narrow(0, self.start, self.count)


def fragments_of(module: nn.Module, zero: Any, stage: int) -> dict[str, Fragment]:
    """By canonical name, of every parameter that DeepSpeed's optimizer `zero` updates, in the model's order."""
    find = dict(_partitioned_weights(zero) if stage == 3 else _partitioned_state(zero))
    named = ((strip_wrappers(name), parameter) for name, parameter in module.named_parameters())
    return {name: find[parameter] for name, parameter in named if parameter in find}


def _partitioned_state(zero: Any) -> Iterator[tuple[nn.Parameter, Fragment]]:
    """Stages 1 and 2: each rank updates one range of all parameters of a group, laid end to end."""
    for parameters, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is None:
                yield parameter, Fragment(parameter, parameter.shape, flat, 0, 0, 0)
            else:
                place, start = mapping.hp_fragment_address, mapping.lp_fragment_address.start
                yield parameter, Fragment(parameter, parameter.shape, flat, place.start, start, place.numel)


def _partitioned_weights(zero: Any) -> Iterator[tuple[nn.Parameter, Fragment]]:
    """Stage 3: each rank updates one range of every parameter; the last ranges are padded."""
    for parameters in zero.fp16_groups:
        for parameter in parameters:
            group, offset, length = zero.grad_position[zero.get_param_id(parameter)]
            numel = int(parameter.ds_numel)
            start = min(zero._get_param_partition_rank(parameter) * length, numel)
            count = min(length, numel - start)
            flat = zero.fp32_partitioned_groups_flat[group]
            yield parameter, Fragment(parameter, torch.Size(parameter.ds_shape), flat, offset, start, count)


def gather(fragment: Fragment, values: torch.Tensor, group: Group) -> torch.Tensor:
    """The whole tensor of which every rank has its `values`, on the group's device. Collective; exact to the bit."""
    return FlatRange(values, fragment.start, fragment.shape, group).full_tensor()


def refresh(zero: Any, stage: int) -> None:
    """Make the weights that the model computes with those of the fragments, which were written to. Collective."""
    if stage < 3:
        # as DeepSpeed's update_lp_params, but a part at a time: gloo's all-gather would hold all weights once more
        for number, parts in enumerate(zero.parallel_partitioned_bit16_groups):
            ranks = zero.real_dp_process_group[number]
            parts[dist.get_rank(ranks)].data.copy_(zero.single_partition_of_fp32_groups[number].data)
            for source, part in enumerate(parts):
                dist.broadcast(part.data, group=ranks, group_src=source)
        return
    zero._partition_all_parameters()
    for number in range(len(zero.fp16_groups)):
        zero._reassign_or_swap_out_partitioned_parameters(number)
    if zero.persistent_parameters:
        zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def read_frozen(parameter: nn.Parameter) -> torch.Tensor:
    """The whole of a parameter that is not trained; stage 3 splits those too. Collective there."""
    if not hasattr(parameter, "ds_id"):
        return parameter.detach()
    gathered: Any = importlib.import_module("deepspeed.runtime.zero").GatheredParameters
    with gathered([parameter]):
        return parameter.detach().clone()


def frozen_fragment(parameter: nn.Parameter) -> Fragment | None:
    """This rank's part of a parameter that is not trained; None below stage 3, where each rank has all of it.

    A rank that writes to it calls `refresh` afterwards.
    """
    if not hasattr(parameter, "ds_id"):
        return None
    zero3: Any = parameter
    numel, length = int(zero3.ds_numel), zero3.ds_tensor.numel()
    start = min(dist.get_rank(zero3.ds_process_group) * length, numel)
    return Fragment(parameter, torch.Size(zero3.ds_shape), zero3.ds_tensor, 0, start, min(length, numel - start))


def by_flat(fragments: Mapping[str, Fragment]) -> dict[torch.Tensor, list[tuple[str, Fragment]]]:
    """The fragments that lie in each flat tensor, with their names."""
    found: dict[torch.Tensor, list[tuple[str, Fragment]]] = {}
    for name, fragment in fragments.items():
        found.setdefault(fragment.flat, []).append((name, fragment))
    return found
