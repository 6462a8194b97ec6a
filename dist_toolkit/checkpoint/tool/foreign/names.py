"""Where weights and optimizer state are in another program's checkpoint, and the names that they get here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dist_toolkit.checkpoint.tool.foreign.source import LazyTensor
from dist_toolkit.checkpoint.tool.outcome import UsageError

MODEL_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net")
OPTIMIZER_KEYS = ("optimizer", "optim", "optimizer_state_dict", "optim_state_dict", "optimizer_state",
                  "optimizer_states", "optimizers")  # fmt: skip
STEP_KEYS = ("global_step", "global_steps", "step", "steps", "iteration", "iter")
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_EXTRA = "_extra_state"


def find_model(tree: Mapping[str, Any], key: str | None) -> tuple[Mapping[str, Any], str, Mapping[str, Any]]:
    """(the mapping that holds it, its key there, the weights); the key is empty where the tree is the weights.

    Raises:
        UsageError: there are none, or several candidates.
    """
    if key is not None:
        holder, name, found = _follow(tree, key, "--model-key")
        if not _is_weights(found):
            raise UsageError(f"--model-key {key}: no weights are there, a mapping of names to tensors")
        return holder, name, found
    if _is_weights(tree):
        return tree, "", tree
    candidates = [name for name in MODEL_KEYS if _is_weights(tree.get(name))]
    if len(candidates) > 1:
        raise UsageError(f"weights are in {' and in '.join(candidates)}; say which with --model-key")
    if candidates:
        return tree, candidates[0], tree[candidates[0]]
    inner = [value for value in tree.values() if isinstance(value, Mapping)]
    if len(tree) == len(inner) == 1:
        return find_model(inner[0], None)
    raise UsageError(f"no weights were found; say where with --model-key: the file holds {_keys(tree)}")


def find_optimizer(holder: Mapping[str, Any], key: str | None) -> tuple[str, Mapping[str, Any] | None]:
    """(its key, the optimizer's state_dict), None if there is none.

    Raises:
        UsageError: several candidates, several optimizers in one, or nothing at `key`.
    """
    if key is not None:
        _, name, found = _follow(holder, key, "--optimizer-key")
    else:
        candidates = [name for name in OPTIMIZER_KEYS if holder.get(name)]
        if len(candidates) > 1:
            raise UsageError(f"optimizer state is in {' and in '.join(candidates)}; say which with --optimizer-key")
        if not candidates:
            return "", None
        name, found = candidates[0], holder[candidates[0]]
    if isinstance(found, (list, tuple)):
        if len(found) != 1:
            raise UsageError(f"{name} holds the state of {len(found)} optimizers; an engine has one")
        found = found[0]
    if not isinstance(found, Mapping):
        raise UsageError(f"{name} holds no optimizer's state_dict, but a {type(found).__name__}")
    return name, found


def renaming(names: Sequence[str], strip: Sequence[str]) -> Callable[[str], str]:
    """From names in the file to names here: without `module.` of DDP, parts that wrappers put in, and `strip`.

    Raises:
        UsageError: no name begins with one of `strip`, or two names become the same.
    """
    inside = all(name.startswith("module.") for name in names)

    def rename(name: str) -> str:
        name = name.removeprefix("module.") if inside else name
        name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        for prefix in strip:
            name = name.removeprefix(prefix) or name
        return name

    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names]
    for prefix in strip:
        if not any(name.startswith((prefix, f"module.{prefix}")) for name in plain):
            raise UsageError(f"--strip {prefix}: no weight's name begins with it; there is {next(iter(names), 'none')}")
    made = [rename(name) for name in names]
    if len(set(made)) < len(made):
        twice = next(name for name in made if made.count(name) > 1)
        raise UsageError(f"two weights get the name {twice} once prefixes are taken off; leave out --strip")
    return rename


def is_extra(name: str) -> bool:
    """Whether it is what a module gives as `get_extra_state`, which need not be a tensor."""
    return name.rpartition(".")[2] == _EXTRA


def lookup(tree: Mapping[str, Any], key: str, option: str) -> Any:
    """What is at a key, or at keys joined by dots. Raises UsageError."""
    return _follow(tree, key, option)[2]


def _follow(tree: Mapping[str, Any], key: str, option: str) -> tuple[Mapping[str, Any], str, Any]:
    if key in tree:
        return tree, key, tree[key]
    first, _, rest = key.partition(".")
    if rest and isinstance(tree.get(first), Mapping):
        return _follow(tree[first], rest, option)
    raise UsageError(f"{option} {key}: there is no such key; there are {_keys(tree)}")


def _is_weights(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    tensors = [isinstance(item, LazyTensor) for name, item in value.items() if not is_extra(name)]
    return any(tensors) and all(tensors)


def _keys(tree: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key in list(tree)[:12]) or "nothing"
