"""Which modules of a model are gathered and freed as one: its units. The rest of the model is one more unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from dist_toolkit.errors import ConfigError

Wrap = str | int | type[nn.Module] | Sequence[type[nn.Module] | str]

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def check_wrap(wrap: Wrap) -> None:
    """Refuse what is neither `auto`, nor module classes or their names, nor a positive number of parameters.

    Raises:
        ConfigError: says what fits.
    """
    if isinstance(wrap, int) and not isinstance(wrap, bool):
        if wrap < 1:
            raise ConfigError(f"FSDP(wrap={wrap}) is not a positive number of parameters")
        return
    if wrap == "auto":
        return
    if not all(
        isinstance(kind, str) or (isinstance(kind, type) and issubclass(kind, nn.Module)) for kind in _kinds(wrap)
    ):
        raise ConfigError(
            f"FSDP(wrap={wrap!r}) is not 'auto', a tuple of module classes or of their names, or a number of parameters"
        )


def find_units(model: nn.Module, wrap: Wrap) -> list[nn.Module]:
    """The modules to shard, inner ones first, without the model itself.

    `auto`: the classes that a Hugging Face model must not be split inside, torch's transformer layers, and modules that
    are repeated in a list or a Sequential and are more than one layer. A number: the smallest modules that hold at
    least so many parameters not in a unit yet. A module that shares a parameter with one outside of it is no unit.

    Raises:
        ConfigError: a class is not in the model, or cannot be called.
    """
    if isinstance(wrap, int):
        found = _by_size(model, wrap)
    elif wrap == "auto":
        found = _auto(model)
    else:
        found = _by_class(model, _kinds(wrap))
    tied = _shared_paths(model)
    paths = _paths(model)
    chosen = {id(module) for module in found if not _is_entangled(paths[id(module)], tied)}
    return [module for module in _inner_first(model) if id(module) in chosen and module is not model]


def _kinds(wrap: Wrap) -> tuple[type[nn.Module] | str, ...]:
    if isinstance(wrap, (str, type)):
        return (wrap,)
    return tuple(wrap) if isinstance(wrap, (tuple, list, set, frozenset)) else (False,)  # type: ignore[return-value]


def _auto(model: nn.Module) -> list[nn.Module]:
    names = {str(name) for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    named = [module for module in model.modules() if type(module).__name__ in names]
    found = named or [module for module in model.modules() if isinstance(module, _BLOCKS)] + list(_repeated(model))
    # a block inside of a block is part of it
    inner = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in inner and _has_parameters(module)]


def _repeated(model: nn.Module) -> Iterator[nn.Module]:
    for container in model.modules():
        if isinstance(container, _CONTAINERS):
            kinds = [type(child) for child in container.children()]
            for child in container.children():
                if kinds.count(type(child)) > 1 and type(child) not in _CONTAINERS and not _is_layer(child):
                    yield child


def _is_layer(module: nn.Module) -> bool:
    """Whether it is one of torch's own layers, such as Linear."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, _BLOCKS)


def _by_size(model: nn.Module, least: int) -> list[nn.Module]:
    found: list[nn.Module] = []
    taken: set[int] = set()
    for module in _inner_first(model):
        free = {id(p): p.numel() for p in module.parameters() if id(p) not in taken}
        if sum(free.values()) >= least and _can_be_called(module):
            found.append(module)
            taken |= set(free)
    return found


def _by_class(model: nn.Module, kinds: Sequence[type[nn.Module] | str]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for kind in kinds:
        fits = [module for module in model.modules() if _is_a(module, kind)]
        if not fits:
            known = sorted({type(module).__name__ for module in model.modules() if _can_be_called(module)})
            name = kind if isinstance(kind, str) else kind.__name__
            raise ConfigError(f"FSDP(wrap=...) names {name}, which is not in the model; it has {', '.join(known)}")
        uncalled = [module for module in fits if not _can_be_called(module)]
        if uncalled:
            raise ConfigError(
                f"FSDP(wrap=...) names {type(uncalled[0]).__name__}, which is never called; name what is in it"
            )
        found += [module for module in fits if _has_parameters(module)]
    return found


def _is_a(module: nn.Module, kind: type[nn.Module] | str) -> bool:
    return type(module).__name__ == kind if isinstance(kind, str) else isinstance(module, kind)


def _can_be_called(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _inner_first(model: nn.Module) -> list[nn.Module]:
    # named_modules gives parents before children
    return list(model.modules())[::-1]


def _paths(model: nn.Module) -> dict[int, list[str]]:
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return paths


def _shared_paths(model: nn.Module) -> list[list[str]]:
    """Of each parameter that has more than one name: all of them."""
    paths: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        paths.setdefault(id(parameter), []).append(path)
    return [names for names in paths.values() if len(names) > 1]


def _is_entangled(unit: Sequence[str], tied: Sequence[Sequence[str]]) -> bool:
    """Whether a parameter has names both inside of the unit and outside."""
    for names in tied:
        inside = [any(name.startswith(f"{path}.") for path in unit) for name in names]
        if any(inside) and not all(inside):
            return True
    return False
