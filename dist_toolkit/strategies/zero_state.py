"""The state of a ZeRO engine under canonical names: what a rank hands to a checkpoint is the memory that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dist_toolkit.errors import StateMismatch
from dist_toolkit.group import Group
from dist_toolkit.strategies.flat_range import FlatRange
from dist_toolkit.strategies.state import saved_optimizer_state
from dist_toolkit.strategies.zero_fragments import Fragment, by_flat
from dist_toolkit.tensors import TensorMeta


def part_of(fragment: Fragment, values: torch.Tensor, group: Group, home: torch.Tensor | None = None) -> torch.Tensor:
    """A rank's `values` of a parameter's elements, as what they are of the whole tensor; a view of them."""
    if fragment.shape.numel() == 0:
        return values.view(fragment.shape)
    return FlatRange(values, fragment.start, fragment.shape, group, home)


def local_of(part: torch.Tensor) -> torch.Tensor:
    """The values of a `part_of`, one-dimensional."""
    return part.to_local() if isinstance(part, FlatRange) else part.reshape(-1)


def capture_optimizer(
    optimizer: torch.optim.Optimizer, fragments: Mapping[str, Fragment], group: Group
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Tensors as `optim.<name>.<state>`, the live ones, and other state by name."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, fragment in fragments.items():
        for key, value in optimizer.state.get(fragment.flat, {}).items():
            if not isinstance(value, torch.Tensor):
                plain.setdefault(name, {})[key] = value
            elif value.shape == fragment.flat.shape:
                tensors[f"optim.{name}.{key}"] = part_of(fragment, fragment.of(value), group)
            else:
                tensors[f"optim.{name}.{key}"] = value
    return tensors, plain


def optimizer_template(
    saved: Mapping[str, TensorMeta], fragments: Mapping[str, Fragment], group: Group
) -> dict[str, torch.Tensor]:
    """New tensors to read the saved `optim.<name>.<state>` into, laid out as DeepSpeed's own. Changes nothing.

    Raises:
        StateMismatch: there is saved state of a parameter that is not trained here, or of another shape or type.
    """
    template: dict[str, torch.Tensor] = {}
    homes: dict[tuple[int, str], torch.Tensor] = {}
    for key, name, state, meta in saved_optimizer_state(saved, fragments, "which is not trained"):
        fragment = fragments[name]
        if _is_scalar(meta.shape, fragment, state):
            template[key] = torch.empty(meta.shape, dtype=meta.dtype)
            continue
        place = (id(fragment.flat), state)
        if place not in homes:
            homes[place] = torch.zeros_like(fragment.flat, dtype=meta.dtype, requires_grad=False)
        if (meta.shape, meta.dtype) != (tuple(fragment.shape), homes[place].dtype):
            raise StateMismatch(
                "optim",
                f"{key} is {meta.dtype} of shape {list(meta.shape)} in the checkpoint; ZeRO splits state of the shape "
                f"of its parameter, {list(fragment.shape)}, and keeps {homes[place].dtype} of the others beside it",
            )
        template[key] = part_of(fragment, fragment.of(homes[place]), group, homes[place])
    return template


def install_optimizer(
    optimizer: torch.optim.Optimizer, fragments: Mapping[str, Fragment], state: Mapping[str, Any]
) -> None:
    """Make the optimizer's state exactly the saved one, in the tensors that it has; without any, keep the new ones.

    Raises:
        StateMismatch: parameters that ZeRO updates as one have different step counts.
    """
    found: dict[str, dict[str, Any]] = {name: dict(state["optim_groups"]["state"].get(name, {})) for name in fragments}
    for key, tensor in state.items():
        if key.startswith("optim."):
            name, _, kind = key.removeprefix("optim.").rpartition(".")
            found[name][kind] = tensor
    for flat, members in by_flat(fragments).items():
        before = dict(optimizer.state.get(flat, {}))
        after: dict[str, Any] = {}
        for name, fragment in members:
            for kind, value in found[name].items():
                if isinstance(value, torch.Tensor) and not _is_scalar(tuple(value.shape), fragment, kind):
                    if kind not in after and isinstance(value, FlatRange):
                        after[kind] = _moved(before.get(kind), value.home)
                else:
                    _once(after, kind, value, name)
        if after:
            optimizer.state[flat] = {kind: _placed(value, flat, optimizer) for kind, value in after.items()}
        else:
            optimizer.state.pop(flat, None)


def install_groups(optimizer: torch.optim.Optimizer, saved: list[Mapping[str, Any]]) -> None:
    """Take the saved options of the parameter groups over: learning rates, and so on."""
    for group, options in zip(optimizer.param_groups, saved, strict=True):
        for key, value in options.items():
            current = group.get(key)
            if key == "params":
                continue
            if isinstance(current, torch.Tensor):
                current.fill_(value)
            else:
                group[key] = tuple(value) if isinstance(current, tuple) else value


def plain_groups(optimizer: torch.optim.Optimizer, names: list[list[str]]) -> list[dict[str, Any]]:
    """The options of the parameter groups, and the names in each."""
    return [
        {key: v.item() if isinstance(v, torch.Tensor) else v for key, v in group.items() if key != "params"}
        | {"params": members}
        for group, members in zip(optimizer.param_groups, names, strict=True)
    ]


def _is_scalar(shape: tuple[int, ...], fragment: Fragment, kind: str) -> bool:
    return not shape and (kind == "step" or tuple(fragment.shape) != ())


def _moved(before: Any, read: torch.Tensor) -> torch.Tensor:
    """What was read, in the tensor that there was."""
    if isinstance(before, torch.Tensor) and before.shape == read.shape and before.dtype == read.dtype:
        return before.copy_(read)
    return read


def _once(after: dict[str, Any], kind: str, value: Any, name: str) -> None:
    """One value for all parameters that are updated as one."""
    known = after.setdefault(kind, value)
    if known is not value and bool(known != value):
        raise StateMismatch(
            "optim",
            f"the checkpoint has {kind}={value} for {name!r} and {kind}={known} for another parameter of its group; "
            "ZeRO updates them as one: resume with the strategy it was saved with",
        )


def _placed(value: Any, flat: torch.Tensor, optimizer: torch.optim.Optimizer) -> Any:
    if not isinstance(value, torch.Tensor) or value.shape == flat.shape:
        return value
    # torch keeps Adam's step counts on the CPU unless the update runs as one kernel or in a graph
    group = optimizer.param_groups[0]
    on_device = group.get("fused") or group.get("capturable")
    return value.clone().to(flat.device if on_device else "cpu")
