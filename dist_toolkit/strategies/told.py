"""What the launcher says about a strategy, beside its name, put together with what the script says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.strategy import Strategy


def settle_precision(wanted: str | None, told: str | None) -> str:
    """The script's precision, or where it says none the launcher's, or `fp32`.

    Raises:
        ConfigError: they differ.
    """
    if wanted is None:
        return told or "fp32"
    if told not in (None, wanted):
        raise ConfigError(
            f"the script asks for precision {wanted!r}, the launcher for {told!r} (DTK_PRECISION); drop one of the two"
        )
    return wanted


def tuned(strategy: Strategy, told: Iterable[tuple[str, str]]) -> Strategy:
    """The strategy with the launcher's options in the fields that the script leaves at their defaults.

    Args:
        told: variables of `world.TUNING` and their values.

    Raises:
        ConfigError: an option is another strategy's, has a value that nobody knows, or contradicts the script's.
    """
    changes: dict[str, Any] = {}
    for variable, text in told:
        mine = _FIELDS.get(strategy.name, {})
        if variable not in mine:
            known = " or ".join(sorted(name for name, fields in _FIELDS.items() if variable in fields))
            raise ConfigError(
                f"{variable}={text} is for strategy {known}, but this engine's is {strategy.name!r}; unset it"
            )
        name, read = mine[variable]
        changes[name] = _checked(strategy, name, variable, read(variable, text))
    return dataclasses.replace(strategy, **changes) if changes else strategy  # type: ignore[type-var]


def _checked(strategy: Strategy, name: str, variable: str, value: Any) -> Any:
    (default,) = (f.default for f in dataclasses.fields(strategy) if f.name == name)  # type: ignore[arg-type]
    own = getattr(strategy, name)
    if own not in (default, value):
        kind = type(strategy).__name__
        raise ConfigError(
            f"the script asks for {kind}({name}={own!r}), the launcher for {value!r} ({variable}); drop one of the two"
        )
    return value


def _stage(variable: str, text: str) -> int:
    if text not in ("0", "1", "2", "3"):
        raise ConfigError(f"{variable}={text!r} is unknown; ZeRO has stages 0, 1, 2 and 3")
    return int(text)


def _switch(variable: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"{variable}={text!r} is neither true nor false")
    return text == "true"


def _place(variable: str, text: str) -> str:
    if text not in ("none", "cpu"):
        raise ConfigError(f"{variable}={text!r} is unknown; known: none, cpu")
    return text


def _wrap(_: str, text: str) -> Any:
    if text == "auto":
        return text
    if text.isdecimal():
        return int(text)
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


_FIELDS: Mapping[str, Mapping[str, tuple[str, Callable[[str, str], Any]]]] = {
    "deepspeed": {
        "DTK_ZERO_STAGE": ("stage", _stage),
        "DTK_OFFLOAD": ("offload", _place),
        "DTK_DEEPSPEED_CONFIG": ("config", lambda _, text: text),
    },
    "fsdp": {
        "DTK_OFFLOAD": ("cpu_offload", lambda variable, text: _place(variable, text) == "cpu"),
        "DTK_FSDP_WRAP": ("wrap", _wrap),
        "DTK_FSDP_RESHARD": ("reshard_after_forward", _switch),
        "DTK_FSDP_ACTIVATION_CHECKPOINTING": ("activation_checkpointing", _switch),
    },
}
"""Variable -> the strategy's field, and how its text is read."""
