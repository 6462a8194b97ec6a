"""Optimizer state under the names of the parameters: given by name, or by number where the order is certain. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dist_toolkit.checkpoint.tool.foreign.source import LazyTensor, materialise
from dist_toolkit.checkpoint.tool.outcome import UsageError

_BATCH_NORM = frozenset({"running_mean", "running_var", "num_batches_tracked"})
_HOW = (
    "pass --param-names FILE, a JSON list of the names in the optimizer's order: in the program that saved, "
    "names = {p: n for n, p in model.named_parameters()}; "
    "json.dump([names[p] for g in optimizer.param_groups for p in g['params']], open(FILE, 'w'))"
)


@dataclass
class NamedState:
    """Tensors as `optim.<parameter>.<state>`, other state by parameter, and the groups with names in `params`."""

    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    plain: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def steps(self) -> int | None:
        """The largest step count of any parameter; None where the optimizer counts none."""
        found = [tensor.load() for key, tensor in self.tensors.items() if key.endswith(".step") and not tensor.shape]
        counts = [int(value) for value in found]
        counts += [int(state["step"]) for state in self.plain.values() if isinstance(state.get("step"), (int, float))]
        return max(counts, default=None)


def name_state(
    optimizer: Mapping[str, Any], model: Mapping[str, LazyTensor], rename: Callable[[str], str],
    given: Sequence[str] | None,
) -> NamedState:  # fmt: skip
    """An optimizer's state_dict under names.

    Args:
        model: weights and buffers, by their names here, in the order of the model's state_dict.
        rename: from names in the file to names here.
        given: names here by number, from the user.

    Raises:
        UsageError: it is no optimizer's state_dict, or which state is whose is not certain; says what to pass.
    """
    if any(isinstance(key, str) and key.startswith("param_groups.") for key in optimizer):
        optimizer = _unflattened(optimizer)
    groups = optimizer.get("param_groups")
    state = optimizer.get("state", {})
    if not isinstance(groups, (list, tuple)) or not isinstance(state, Mapping):
        raise UsageError("the optimizer's state is no torch.optim state_dict: it has no param_groups")
    groups = [materialise(group) for group in groups]
    members = [member for group in groups for member in group["params"]]
    if len(set(members)) < len(members):
        raise UsageError("the optimizer holds a parameter twice; its state cannot be given to names")
    if all(isinstance(member, str) for member in members):
        names: dict[Any, str] = {member: rename(member) for member in members}
    else:
        names = _by_number(groups, members, state, model, rename, given)
    _check_names(names.values(), model)
    made = NamedState()
    by_text = {str(member): name for member, name in names.items()}
    for member, values in state.items():
        if str(member) not in by_text:
            raise UsageError(f"the optimizer has state of parameter {member}, which is in none of its groups")
        _add(made, by_text[str(member)], values)
    for group in groups:
        options = {key: _plain(value) for key, value in group.items() if key not in ("params", "param_names")}
        made.groups.append({**options, "params": [names[member] for member in group["params"]]})
    return made


def _add(made: NamedState, name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise UsageError(f"the optimizer's state of {name} is a {type(values).__name__}, not a mapping")
    for key, value in values.items():
        if isinstance(value, LazyTensor):
            made.tensors[f"optim.{name}.{key}"] = value
            continue
        value = materialise(value)
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise UsageError(
                f"the optimizer's state {key!r} of {name} is a {type(value).__name__}; a checkpoint holds tensors and "
                "plain values for each parameter: this optimizer's state cannot be converted"
            )
        made.plain.setdefault(name, {})[str(key)] = value


def _by_number(
    groups: Sequence[Mapping[str, Any]], members: Sequence[Any], state: Mapping[Any, Any],
    model: Mapping[str, LazyTensor], rename: Callable[[str], str], given: Sequence[str] | None,
) -> dict[Any, str]:  # fmt: skip
    """Parameter number -> name."""
    if all(len(group.get("param_names") or ()) == len(group["params"]) for group in groups):
        told = [rename(name) for group in groups for name in group["param_names"]]
        return dict(zip(members, told, strict=True))
    if given is not None:
        if len(given) != len(members) or len(set(given)) != len(given):
            raise UsageError(f"--param-names has {len(set(given))} names; the optimizer has {len(members)} parameters")
        names = dict(zip(members, given, strict=True))
        _check_names(names.values(), model)
        _check_shapes(names, state, model, "--param-names does not fit")
        return names
    if len(groups) > 1:
        raise UsageError(
            f"the optimizer holds its state by number, in {len(groups)} groups: which number is which parameter is "
            f"not in the file; {_HOW}"
        )
    candidates = _parameters(model)
    if len(candidates) != len(members):
        raise UsageError(
            f"the optimizer holds the state of {len(members)} parameters by number, but {len(candidates)} of the "
            f"weights may be parameters (some are buffers, frozen or tied): {_HOW}"
        )
    names = dict(zip(members, candidates, strict=True))
    _check_shapes(names, state, model, "the optimizer's parameters are not in the order of the model's")
    return names


def _parameters(model: Mapping[str, LazyTensor]) -> list[str]:
    """The weights that are parameters as far as can be told, each once: no integers, nothing of batch norm's."""
    found: dict[object, str] = {}
    for name, tensor in model.items():
        if tensor.dtype.is_floating_point and name.rpartition(".")[2] not in _BATCH_NORM:
            found.setdefault(name if tensor.identity is None else tensor.identity, name)
    return list(found.values())


def _check_names(names: Any, model: Mapping[str, LazyTensor]) -> None:
    unknown = [name for name in names if name not in model]
    if unknown:
        raise UsageError(
            f"the optimizer has {len(unknown)} parameters that the weights lack: {', '.join(unknown[:3])}; "
            f"the weights have {', '.join(list(model)[:3])}, ..."
        )


def _check_shapes(
    names: Mapping[Any, str], state: Mapping[Any, Any], model: Mapping[str, LazyTensor], otherwise: str
) -> None:
    """Tensors of a parameter's state have its shape, or are single numbers."""
    by_text = {str(member): name for member, name in names.items()}
    for member, values in state.items():
        name = by_text.get(str(member))
        if name is None or not isinstance(values, Mapping):
            continue
        for key, value in values.items():
            if isinstance(value, LazyTensor) and value.shape not in ((), (1,), model[name].shape):
                raise UsageError(
                    f"{otherwise}: {key} number {member} has shape {list(value.shape)}, {name} has "
                    f"{list(model[name].shape)}; {_HOW}"
                )


def _unflattened(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Of `state.<name>.<state>` and `param_groups.<name>.<option>`, as torch's flatten_optimizer_state_dict has them.

    Parameters whose options are equal are one group.
    """
    state: dict[str, dict[str, Any]] = {}
    options: dict[str, dict[str, Any]] = {}
    for key, value in optimizer.items():
        where, _, rest = key.partition(".")
        name, _, item = rest.rpartition(".")
        if where == "state":
            state.setdefault(name, {})[item] = value
        else:
            options.setdefault(name, {})[item] = materialise(value)
    groups: list[dict[str, Any]] = []
    for name, values in options.items():
        alike = next((g for g in groups if {k: v for k, v in g.items() if k != "params"} == values), None)
        if alike is None:
            groups.append({**values, "params": [name]})
        else:
            alike["params"].append(name)
    return {"state": state, "param_groups": groups}


def _plain(value: Any) -> Any:
    """An option as a plain value: a learning rate may be a tensor."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
