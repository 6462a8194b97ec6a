"""The state of a ZeRO engine under canonical names, in pieces along dimension 0: no rank holds a whole copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from dist_toolkit.errors import StateMismatch
from dist_toolkit.group import Group
from dist_toolkit.strategies.state import saved_optimizer_state
from dist_toolkit.strategies.zero_fragments import Fragment, by_flat, gather
from dist_toolkit.tensors import TensorMeta


class Pieces:
    """Makes tensors that are split over the ranks along dimension 0.

    A tensor of which a rank would have nothing is whole on every rank instead: those are the smallest ones.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._mesh = DeviceMesh(group.device.type, torch.arange(group.world.world_size))

    def empty(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A new one, not filled."""
        own = self._own(shape)
        sizes = shape if own is None else (own.stop - own.start, *shape[1:])
        return self._wrap(torch.empty(sizes, dtype=dtype, device=self._group.device), shape)

    def cut(self, whole: torch.Tensor) -> torch.Tensor:
        """Of a whole tensor: this rank's piece is a copy."""
        own = self._own(whole.shape)
        return whole if own is None else self._wrap(whole[own].clone(), whole.shape)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """The whole of one. Collective where it is split."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def _own(self, shape: torch.Size | tuple[int, ...]) -> slice | None:
        ranks, rank = self._group.world.world_size, self._group.world.rank
        size = shape[0] if len(shape) else 0
        each = -(-size // ranks)
        if (ranks - 1) * each >= size or ranks == 1:
            return None
        return slice(rank * each, min((rank + 1) * each, size))

    def _wrap(self, piece: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        if self._own(shape) is None:
            return piece
        sizes = torch.Size(shape)
        stride = torch.empty(sizes, device="meta").stride()
        made: torch.Tensor = DTensor.from_local(
            piece, self._mesh, [Shard(0)], run_check=False, shape=sizes, stride=stride
        )
        return made


def capture_optimizer(
    optimizer: torch.optim.Optimizer, fragments: Mapping[str, Fragment], pieces: Pieces, group: Group
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Tensors as `optim.<name>.<state>`, and other state by name. Collective; one gathered tensor at a time."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, fragment in fragments.items():
        for key, value in optimizer.state.get(fragment.flat, {}).items():
            if not isinstance(value, torch.Tensor):
                plain.setdefault(name, {})[key] = value
            elif value.shape == fragment.flat.shape:
                tensors[f"optim.{name}.{key}"] = pieces.cut(gather(fragment, fragment.of(value), group))
            else:
                tensors[f"optim.{name}.{key}"] = value
    return tensors, plain


def optimizer_template(
    saved: Mapping[str, TensorMeta], fragments: Mapping[str, Fragment], pieces: Pieces
) -> dict[str, torch.Tensor]:
    """New tensors to read the saved `optim.<name>.<state>` into. Changes nothing.

    Raises:
        StateMismatch: there is saved state of a parameter that is not trained here, or of another shape.
    """
    template: dict[str, torch.Tensor] = {}
    for key, name, state, meta in saved_optimizer_state(saved, fragments, "which is not trained"):
        if _is_scalar(meta.shape, fragments[name], state):
            template[key] = torch.empty(meta.shape, dtype=meta.dtype)
        elif meta.shape != tuple(fragments[name].shape):
            raise StateMismatch(
                "optim",
                f"{key} has shape {list(meta.shape)} in the checkpoint; ZeRO splits state of the shape of its "
                f"parameter, {list(fragments[name].shape)}",
            )
        else:
            template[key] = pieces.empty(meta.shape, meta.dtype)
    return template


def install_optimizer(
    optimizer: torch.optim.Optimizer, fragments: Mapping[str, Fragment], state: Mapping[str, Any], pieces: Pieces
) -> None:
    """Make the optimizer's state exactly the saved one. Collective; one gathered tensor at a time.

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
                    if kind not in after:
                        after[kind] = _like(flat, before.get(kind), value.dtype)
                    fragment.of(after[kind]).copy_(fragment.take(pieces.whole(value)))
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


def _like(flat: torch.Tensor, before: Any, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(before, torch.Tensor) and before.shape == flat.shape and before.dtype == dtype:
        return before.zero_()
    return torch.zeros_like(flat, dtype=dtype, requires_grad=False)


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
