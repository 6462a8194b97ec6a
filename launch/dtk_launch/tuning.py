"""The options that tune a strategy: which fit which strategy, and how they are passed on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dtk_launch.errors import PlanError, unknown
from dtk_launch.options import PRECISIONS, SWITCH, LaunchOptions, flag_of

_FITS: Mapping[str, tuple[str, ...]] = {
    "offload": ("deepspeed", "fsdp"),
    "zero_stage": ("deepspeed",),
    "deepspeed_config": ("deepspeed",),
    "fsdp_wrap": ("fsdp",),
    "fsdp_reshard": ("fsdp",),
    "fsdp_activation_checkpointing": ("fsdp",),
    "fsdp_state_dict": ("fsdp",),
}
"""The strategies that an option means something to; `precision` fits all."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": PRECISIONS,
    "offload": ("none", "cpu"),
    "zero_stage": ("0", "1", "2", "3"),
    "fsdp_reshard": SWITCH,
    "fsdp_activation_checkpointing": SWITCH,
    "fsdp_state_dict": ("sharded", "full"),
}

FLAGS: Mapping[str, str] = {
    f"DTK_{name.upper()}": flag_of(name) for name in ("precision", *_FITS) if name != "fsdp_state_dict"
}
"""The variables by which the runtime learns of them. Its checkpoints have one format, whoever saves."""


def given(options: LaunchOptions) -> dict[str, str]:
    """The options of this file that were given, by name."""
    values = {name: str(getattr(options, name)) for name in ("precision", *_FITS)}
    return {
        name: value
        for name, value in values.items()
        if value not in ("", "auto", "none") or (name == "fsdp_wrap" and value)
    }


def tuning_words(options: LaunchOptions) -> list[str]:
    """As words of a command line: what was given, and what a file of settings could say otherwise."""
    told = {"precision": options.precision, "offload": options.offload} | given(options)
    return [word for name, value in told.items() for word in (flag_of(name), value)]


def check_tuning(options: LaunchOptions, sources: Mapping[str, str] | None = None) -> None:
    """Refuse values that nobody knows, options of another strategy, and options that contradict each other."""
    asked = given(options)
    for name, value in asked.items():
        where = f" ({sources[name]})" if sources else ""
        if name in _CHOICES and value not in _CHOICES[name]:
            raise PlanError(f"{flag_of(name)}={value}{where}: {unknown('value', value, _CHOICES[name])}")
        fits = _FITS.get(name, (options.strategy,))
        if options.strategy not in fits:
            raise PlanError(
                f"{flag_of(name)}={value}{where} is for strategy {' or '.join(fits)}, but the strategy is "
                f"{options.strategy}; drop it, or pass --strategy {fits[0]}"
            )
    if "deepspeed_config" in asked:
        for name in ("zero_stage", "offload"):
            if name in asked:
                raise PlanError(
                    f"{flag_of(name)}={asked[name]} and --deepspeed-config={asked['deepspeed_config']}: the file says "
                    "it; change the file, or drop one of the two"
                )
    if "offload" in asked and options.zero_stage == "0":
        raise PlanError("--offload=cpu needs --zero-stage 1, 2 or 3; stage 0 keeps everything on every rank")
    if "fsdp_wrap" in asked:
        wrapped_classes(options.fsdp_wrap)


def wrapped_classes(wrap: str) -> tuple[str, ...]:
    """The classes that `--fsdp-wrap` names; empty for auto, none and a number. Raises PlanError for anything else."""
    if wrap in ("", "auto", "none"):
        return ()
    if re.fullmatch(r"[1-9]\d*", wrap):
        return ()
    names = tuple(name.strip() for name in wrap.split(","))
    if not all(name.isidentifier() for name in names):
        raise PlanError(
            f"--fsdp-wrap={wrap!r} is not auto, none, a number of parameters or class names; "
            "pass for example --fsdp-wrap BertLayer"
        )
    return names
