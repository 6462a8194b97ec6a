"""A model's and an optimizer's state under canonical names: `model.<name>`, `optim.<name>.<state>`, `optim_groups`."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch

from dist_toolkit.errors import StateMismatch
from dist_toolkit.tensors import TensorMeta, misfit

_LOG = logging.getLogger("dist_toolkit")
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Name parts that torch.compile, FSDP and activation checkpointing put into a parameter's name."""


def strip_wrappers(name: str) -> str:
    """The name that the parameter has in the user's own model."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def capture_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str]) -> dict[str, Any]:
    """State tensors as `optim.<name>.<state>`, other state and the groups as the plain value `optim_groups`."""
    state: dict[str, Any] = {}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                state[f"optim.{names[parameter]}.{key}"] = value
            else:
                plain.setdefault(names[parameter], {})[key] = value
    groups = [_plain_group(group, names) for group in optimizer.param_groups]
    state["optim_groups"] = {"groups": groups, "state": plain}
    return state


def compare_tensors(saved: Mapping[str, TensorMeta], mine: Mapping[str, torch.Tensor], part: str) -> None:
    """Refuse saved tensors that have other names, shapes or types than `mine`.

    Raises:
        StateMismatch: names the first ones.
    """
    words = misfit(saved, {key: TensorMeta(tuple(t.shape), t.dtype) for key, t in mine.items()}, part)
    if words:
        raise StateMismatch(part, words)


def optimizer_template(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str], saved: Mapping[str, TensorMeta]
) -> dict[str, torch.Tensor]:
    """New tensors to read the saved `optim.<name>.<state>` into, placed like the parameter. Changes nothing.

    Raises:
        StateMismatch: there is saved state of a parameter that the model does not have.
    """
    by_name = {name: parameter for parameter, name in names.items()}
    return {
        key: _new_state(by_name[name], state, meta, optimizer)
        for key, name, state, meta in saved_optimizer_state(saved, by_name, "which the model lacks")
    }


def saved_optimizer_state(
    saved: Mapping[str, TensorMeta], here: Container[str], otherwise: str
) -> Iterator[tuple[str, str, str, TensorMeta]]:
    """Key, name of the parameter, name of its state, and what was saved, of each `optim.<name>.<state>`.

    Raises:
        StateMismatch: a parameter is not among those `here`; the message ends with `otherwise`.
    """
    for key, meta in saved.items():
        if key.startswith("optim."):
            name, _, state = key.removeprefix("optim.").rpartition(".")
            if name not in here:
                raise StateMismatch("optim", f"the checkpoint holds optimizer state of {name!r}, {otherwise}")
            yield key, name, state, meta


def has_optimizer(values: Mapping[str, Any]) -> bool:
    """Whether a saved state has an optimizer's; one that was converted from another program's weights alone has none.

    The optimizer then stays as it is.
    """
    return values["optim_groups"] is not None


def check_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str], values: Mapping[str, Any], tell: bool
) -> None:
    """Refuse saved groups that are not this optimizer's (see `check_groups`); warn, if `tell`, where there are none."""
    if has_optimizer(values):
        check_groups(optimizer, names, values["optim_groups"])
    elif tell:
        _LOG.warning("the checkpoint was converted from weights alone: the optimizer stays as it is")


def check_groups(optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str], saved: Mapping[str, Any]) -> None:
    """Refuse saved parameter groups that hold other parameters than this optimizer's.

    Raises:
        StateMismatch: says how many parameters each has.
    """
    mine = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    theirs = [group["params"] for group in saved["groups"]]
    if mine != theirs:
        raise StateMismatch(
            "optim",
            f"the optimizer has groups of {[len(g) for g in mine]} parameters, the saved one of "
            f"{[len(g) for g in theirs]}, or their order differs; build it as it was built for the saved run",
        )


def install_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str], state: Mapping[str, Any]
) -> None:
    """Make the optimizer's state and its groups' options exactly the saved ones; tensors are kept, not copied."""
    by_name = {name: parameter for parameter, name in names.items()}
    plain = state["optim_groups"]
    found: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain["state"].items()}
    for key, tensor in state.items():
        if key.startswith("optim."):
            name, _, kind = key.removeprefix("optim.").rpartition(".")
            found.setdefault(name, {})[kind] = tensor
    optimizer.state.clear()
    for name, values in found.items():
        optimizer.state[by_name[name]] = values
    for group, saved in zip(optimizer.param_groups, plain["groups"], strict=True):
        for key, value in saved.items():
            if key == "params":
                continue
            current = group.get(key)
            if isinstance(current, torch.Tensor):
                current.fill_(value)
            else:
                group[key] = tuple(value) if isinstance(current, tuple) else value


def _plain_group(group: Mapping[str, Any], names: Mapping[torch.Tensor, str]) -> dict[str, Any]:
    plain = {
        key: value.item() if isinstance(value, torch.Tensor) else value
        for key, value in group.items()
        if key != "params"
    }
    return plain | {"params": [names[parameter] for parameter in group["params"]]}


def _new_state(parameter: torch.Tensor, key: str, meta: TensorMeta, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    if meta.shape == tuple(parameter.shape) and key != "step":
        return torch.empty_like(parameter.detach(), dtype=meta.dtype)
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    # torch keeps Adam's step counts on the CPU unless the update runs as one kernel or in a graph
    on_device = key != "step" or group.get("fused") or group.get("capturable")
    return torch.empty(meta.shape, dtype=meta.dtype, device=parameter.device if on_device else "cpu")
