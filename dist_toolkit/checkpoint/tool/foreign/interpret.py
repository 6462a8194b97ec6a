"""From what another program saved to a checkpoint of format 1: which tensor is which, which step, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dist_toolkit.checkpoint.canonical import flatten
from dist_toolkit.checkpoint.layout import CONVERTED
from dist_toolkit.checkpoint.tool.foreign import names
from dist_toolkit.checkpoint.tool.foreign.optimizer import NamedState, name_state
from dist_toolkit.checkpoint.tool.foreign.source import Converted, LazyTensor, materialise, wrap
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.errors import NotSerializable


def interpret(
    tree: Any, *, step: int | None = None, strip: Sequence[str] = (), model_key: str | None = None,
    optimizer_key: str | None = None, scheduler_key: str | None = None, param_names: Sequence[str] | None = None,
) -> Converted:  # fmt: skip
    """Find model, optimizer and step in a nest of mappings with lazy tensors.

    Raises:
        UsageError: something is not there, or not certain; says what to pass.
    """
    if not isinstance(tree, Mapping):
        raise UsageError(f"the file holds a {type(tree).__name__}, not a state_dict or a dict of them")
    holder, key, weights = names.find_model(tree, model_key)
    rename = names.renaming([name for name in weights if not names.is_extra(name)], strip)
    model = {rename(name): value for name, value in weights.items() if isinstance(value, LazyTensor)}
    extra = {rename(name): materialise(value) for name, value in weights.items() if names.is_extra(name)}
    model = {name: value for name, value in model.items() if name not in extra}
    beside = {name: value for name, value in holder.items() if name != key} if key else {}
    where, state = names.find_optimizer(beside, optimizer_key)
    named = None if state is None else name_state(state, model, rename, param_names)
    if named is None and param_names is not None:
        raise UsageError("--param-names is for optimizer state, and none was found; say where with --optimizer-key")
    schedule = None if scheduler_key is None else materialise(names.lookup(beside, scheduler_key, "--scheduler-key"))
    used = {where, (scheduler_key or "").partition(".")[0]}
    left_out = [str(name) for name in beside if name not in used]
    return assemble(model, extra, named, schedule, _step(step, named, {**tree, **beside}), left_out)


def assemble(
    model: Mapping[str, LazyTensor], extra: Mapping[str, Any], optimizer: NamedState | None, schedule: Any, step: int,
    left_out: Sequence[str],
) -> Converted:  # fmt: skip
    """The checkpoint, under the names of an engine's parts; no random generators, which restart from the step."""
    tensors = {f"model.{name}": tensor for name, tensor in model.items()}
    groups: Any = None
    if optimizer is not None:
        tensors |= optimizer.tensors
        groups = {"groups": optimizer.groups, "state": optimizer.plain}
    values = {
        "engine": _encode("engine", {"optim_groups": groups, "model_extra": dict(extra)}, {}),
        "strategy": {"name": CONVERTED},
        "rng": {"ranks": 0, "step": step},
    }
    if schedule is not None:
        inner: dict[str, LazyTensor] = {}
        values["schedule"] = _encode("schedule", schedule, inner)
        tensors |= inner
    notes = [] if optimizer is not None else ["no optimizer state was found: a restore leaves the optimizer as it is"]
    if left_out:
        notes.append(f"left out: {', '.join(left_out[:12])}{' ...' if len(left_out) > 12 else ''}")
    return Converted(step, tensors, values, notes, optimizer is not None)


def _encode(name: str, state: Any, into: dict[str, LazyTensor]) -> Any:
    try:
        tensors, skeleton = flatten(name, state)
    except NotSerializable as error:
        raise UsageError(f"{error.key} is a {error.type_name}, which a checkpoint cannot hold") from None
    if tensors and name == "engine":
        raise UsageError(f"{next(iter(tensors))} is a tensor in what must be plain values; it cannot be converted")
    into |= {key: wrap(tensor, key) for key, tensor in tensors.items()}
    return skeleton


def _step(given: int | None, optimizer: NamedState | None, beside: Mapping[str, Any]) -> int:
    """The number of optimizer steps: as given, as the optimizer counts, or as the file says."""
    found = given if given is not None else (optimizer.steps() if optimizer is not None else None)
    for key in names.STEP_KEYS if found is None else ():
        value = materialise(beside.get(key))
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
        if isinstance(value, int) and not isinstance(value, bool):
            found = value
            break
    if found is None:
        raise UsageError("how many optimizer steps were done is not in the file; pass --step N")
    if found < 0:
        raise UsageError(f"the step is {found}; pass --step with 0 or more")
    return found
