"""What a checkpoint is made of: each part gives its state, and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from dist_toolkit import seeding
from dist_toolkit.checkpoint.canonical import flatten, tensor_keys, unflatten
from dist_toolkit.errors import ConfigError, NotSerializable, StateMismatch
from dist_toolkit.tensors import TensorMeta


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state: a loader, a schedule, a user's own object."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state: tensors and plain data."""
        ...

    def load_state_dict(self, state: Any) -> object:
        """Take a state back."""
        ...


@runtime_checkable
class Templated(Stateful, Protocol):
    """A Stateful that says where its tensors are to be read to: an engine, its averaged weights."""

    prefixes: tuple[str, ...]

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors to read the saved ones into; StateMismatch where they do not fit. Changes nothing."""
        ...


class Part(Protocol):
    """One part of a checkpoint, as the checkpointer handles it."""

    name: str

    def capture(self, step: int) -> tuple[dict[str, torch.Tensor], Any]:
        """Tensors by their key in the checkpoint, and plain values."""
        ...

    def template(self, saved: Mapping[str, TensorMeta], values: Any) -> dict[str, torch.Tensor]:
        """Tensors to read the saved ones into, by key. StateMismatch where they cannot be this part's."""
        ...

    def install(self, tensors: Mapping[str, torch.Tensor], values: Any) -> None:
        """Take the state over, once all tensors are read."""
        ...

    def is_fixed(self, key: str) -> bool:
        """Whether this is a tensor of this part that it has from the first step to the last: a run is known by them."""
        ...


class EnginePart:
    """A Templated object: its tensors under their own names, which start with its `prefixes`."""

    def __init__(self, name: str, engine: Templated, prefix: str) -> None:
        self.name, self._engine, self._prefix = name, engine, prefix

    def capture(self, step: int) -> tuple[dict[str, torch.Tensor], Any]:
        """Live tensors; they must not change until they are written."""
        tensors: dict[str, torch.Tensor] = {}
        plain: dict[str, Any] = {}
        for key, value in self._engine.state_dict().items():
            if isinstance(value, torch.Tensor):
                tensors[self._prefix + key] = value
            else:
                plain[key] = value
        nested, values = flatten(self.name, plain)
        for key, tensor in nested.items():  # lists of tensors in an optimizer's state, tensors as extra state
            raise NotSerializable(key, tensor)
        return tensors, values

    def template(self, saved: Mapping[str, TensorMeta], values: Any) -> dict[str, torch.Tensor]:
        """New tensors like the engine's, compared with the saved ones by name, shape and type."""
        mine = {key[len(self._prefix) :]: meta for key, meta in saved.items() if self._owns(key)}
        template = self._engine.load_template(mine, unflatten(values, {}))
        return {self._prefix + key: t.detach() if t.requires_grad else t for key, t in template.items()}

    def install(self, tensors: Mapping[str, torch.Tensor], values: Any) -> None:
        """Hand tensors and plain values over."""
        mine = {key[len(self._prefix) :]: tensor for key, tensor in tensors.items()}
        self._engine.load_state_dict(mine | unflatten(values, {}))

    def is_fixed(self, key: str) -> bool:
        """Weights, buffers and averages: an optimizer may have no state before its first step."""
        return self._owns(key) and not key.startswith(f"{self._prefix}optim.")

    def _owns(self, key: str) -> bool:
        return key.startswith(tuple(self._prefix + prefix for prefix in self._engine.prefixes))


class StatePart:
    """A Stateful object: its whole state_dict, which must be the same on every rank."""

    def __init__(self, name: str, target: Stateful) -> None:
        self.name, self._target = name, target

    def capture(self, step: int) -> tuple[dict[str, torch.Tensor], Any]:
        """The state, taken apart."""
        return flatten(self.name, self._target.state_dict())

    def template(self, saved: Mapping[str, TensorMeta], values: Any) -> dict[str, torch.Tensor]:
        """New tensors on the CPU."""
        check = getattr(self._target, "check_state_dict", None)
        if check is not None:  # a target that can tell beforehand whether it could take this
            check(unflatten(values, {}))
        return {key: torch.empty(saved[key].shape, dtype=saved[key].dtype) for key in sorted(tensor_keys(values))}

    def install(self, tensors: Mapping[str, torch.Tensor], values: Any) -> None:
        """Put the state together and hand it over."""
        self._target.load_state_dict(unflatten(values, tensors))

    def is_fixed(self, key: str) -> bool:
        """All that a module has; other objects may hold more from step to step."""
        return isinstance(self._target, torch.nn.Module) and key.startswith(f"{self.name}.")


class RngPart:
    """The generators of every rank: each rank saves and restores its own.

    On another number of ranks the streams cannot go on as they were; each rank then takes a new one, derived from
    (seed, step, number of ranks, rank), so that this resume too is the same each time.
    """

    name = "rng"

    def __init__(self, rank: int, world_size: int, device: torch.device, seed: int) -> None:
        self._rank, self._world_size, self._device, self._seed = rank, world_size, device, seed

    def capture(self, step: int) -> tuple[dict[str, torch.Tensor], Any]:
        """This rank's generators as `rng.<rank>.<generator>`."""
        state = seeding.capture(self._device)
        return {f"rng.{self._rank}.{key}": tensor for key, tensor in state.items()}, {
            "ranks": self._world_size,
            "step": step,
        }

    def template(self, saved: Mapping[str, TensorMeta], values: Any) -> dict[str, torch.Tensor]:
        """New tensors for this rank's generators; none where the number of ranks has changed."""
        if values["ranks"] != self._world_size:
            return {}
        wanted = {f"rng.{self._rank}.{key}" for key in seeding.capture(self._device)}
        missing = sorted(wanted - set(saved))
        if missing:
            raise StateMismatch(
                "rng", f"the checkpoint lacks {', '.join(missing)}; waive 'rng' to go on with other random numbers"
            )
        return {key: torch.empty(saved[key].shape, dtype=saved[key].dtype) for key in sorted(wanted)}

    def install(self, tensors: Mapping[str, torch.Tensor], values: Any) -> None:
        """Set this process's generators."""
        if values["ranks"] == self._world_size:
            prefix = f"rng.{self._rank}."
            seeding.restore(
                {key[len(prefix) :]: tensors[key] for key in tensors if key.startswith(prefix)}, self._device
            )
        else:
            seeding.seed_all(seeding.derive(self._seed, "resume", values["step"], self._world_size, self._rank))

    def is_fixed(self, key: str) -> bool:
        """None: another number of ranks has others."""
        return False


def build_parts(engines: Mapping[str, Any], states: Mapping[str, Any]) -> list[Part]:
    """The parts for engines and for other objects with a state.

    Raises:
        ConfigError: an object has no state_dict and load_state_dict, two parts share a name, or one holds a dot.
    """
    for given in (*engines, *states):
        if not isinstance(given, str) or not given or "." in given:
            raise ConfigError(
                f"{given!r} cannot name a part of a checkpoint; pass a string without dots (they part tensors' names)"
            )
    parts: list[Part] = []
    for name, engine in engines.items():
        if not isinstance(engine, Templated):
            raise ConfigError(f"{name}={type(engine).__name__} is not an engine; pass what rt.setup(...) returned")
        prefix = "" if len(engines) == 1 else f"{name}."
        parts.append(EnginePart(name, engine, prefix))
        for extra, state in getattr(engine, "extra_parts", dict)().items():
            templated = isinstance(state, Templated)
            parts.append(EnginePart(prefix + extra, state, prefix) if templated else StatePart(prefix + extra, state))
    for name, state in states.items():
        if not isinstance(state, Stateful):
            raise ConfigError(f"{name}={type(state).__name__} has no state_dict() and load_state_dict(); give it both")
        parts.append(StatePart(name, state))
    names = [part.name for part in parts]
    taken = sorted({name for name in names if names.count(name) > 1 or name in ("rng", "model", "optim")})
    if taken:
        raise ConfigError(
            f"these names of checkpointed state are taken twice or reserved: {', '.join(taken)}; rename them"
        )
    return parts
