"""A ds_config and the arguments of the script and of `dtk.DeepSpeed`, merged into what DeepSpeed is given. Pure."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_keys import IDLE, PASSED, REFUSED, SCALE_KEYS, TAKEN, ZERO_REFUSED
from dist_toolkit.strategies.optimizers import why_not_sharded


@dataclass(frozen=True)
class Wanted:
    """What the script and the launcher say.

    Attributes:
        stage, offload: of `dtk.DeepSpeed`; None where it does not say.
        optimizer, scheduler: whether rt.setup was given one.
        numel: trainable parameters; `largest`: the largest parameter's elements.
    """

    ranks: int
    stage: int | None = None
    offload: str | None = None
    precision: str = "fp32"
    optimizer: bool = True
    scheduler: bool = False
    device: str = "cpu"
    numel: int = 1
    largest: int = 1


@dataclass(frozen=True)
class Settings:
    """The outcome.

    Attributes:
        config: for deepspeed.initialize.
        clip: the file's gradient_clipping; 0 without one.
        scale, scale_interval: of the loss, for fp16: the first one, and the steps after which it doubles.
        ignored: keys of the file that have no effect here, with the reason.
    """

    config: dict[str, Any]
    stage: int
    offload: str
    clip: float = 0.0
    scale: float = 65536.0
    scale_interval: int = 2000
    ignored: tuple[str, ...] = ()


def merge(given: Mapping[str, Any], wanted: Wanted) -> Settings:
    """The file's values where the arguments say nothing, the arguments' where the file says nothing or "auto".

    Raises:
        ConfigError: an unknown key, or a contradiction: names the key, both values, and what to do.
    """
    _check_keys(given)
    stage = _stage(given, wanted)
    zero = _zero_section(given, wanted, stage)
    scale, interval, ignored = _precision(given, wanted)
    ignored += tuple(f"{key}: {IDLE[key]}" for key in IDLE if key in given and not _is_idle(given[key]))
    ignored += _accumulation(given)
    _check_makers(given, wanted, stage)
    config: dict[str, Any] = {key: _without_auto(value) for key, value in given.items() if key in PASSED}
    config = {key: value for key, value in config.items() if value != "auto"}
    if wanted.device == "cpu" and not wanted.optimizer:
        _optimizer_on_cpu(config)
    config |= {
        "train_micro_batch_size_per_gpu": _micro_batch(given, wanted.ranks),
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "steps_per_print": 2**31 - 1,
    }
    clip = _number(given, "gradient_clipping", 0.0)
    offload = zero.get("offload_optimizer", {}).get("device", "none")
    return Settings(config, stage, offload, clip, scale, interval, ignored)


def _check_keys(given: Mapping[str, Any]) -> None:
    known = PASSED | TAKEN | set(REFUSED) | set(IDLE)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"ds_config: unknown key {key!r}{hint}")
        if key in REFUSED and not _is_idle(given[key]):
            raise ConfigError(f"ds_config: {key!r} is not supported: {REFUSED[key]}; remove it")


def _is_idle(value: Any) -> bool:
    return value in ("auto", None, False, {}) or _is_off(value)


def _is_off(section: Any) -> bool:
    return isinstance(section, Mapping) and section.get("enabled") is False


def _stage(given: Mapping[str, Any], wanted: Wanted) -> int:
    written = _section(given, "zero_optimization").get("stage", "auto" if "zero_optimization" not in given else 0)
    if written == "auto":
        return 2 if wanted.stage is None else wanted.stage
    if wanted.stage is not None and written != wanted.stage:
        raise _conflict("zero_optimization.stage", written, f"DeepSpeed(stage={wanted.stage})")
    if written not in (0, 1, 2, 3) or isinstance(written, bool):
        raise ConfigError(f"ds_config: zero_optimization.stage is {written!r}; ZeRO has stages 0, 1, 2 and 3")
    return int(written)


def _zero_section(given: Mapping[str, Any], wanted: Wanted, stage: int) -> dict[str, Any]:
    zero: dict[str, Any] = _without_auto(_section(given, "zero_optimization"))
    for key, instead in ZERO_REFUSED.items():
        if zero.get(key) not in (None, False, 0, {}) and not (key == "zero_hpz_partition_size" and zero[key] == 1):
            raise ConfigError(f"ds_config: zero_optimization.{key} is not supported: {instead}; remove it")
    zero["stage"] = stage
    # small models need no bucket of gigabytes, and ZeRO-3 keeps one for good
    zero.setdefault("reduce_bucket_size", int(min(5e8, max(wanted.largest, wanted.numel // 8))))
    if stage == 3:  # DeepSpeed's own limit, 100,000, leaves all weights of a small model whole
        zero.setdefault("stage3_param_persistence_threshold", min(100_000, wanted.numel // 1000))
    parts = ["offload_optimizer"] + (["offload_param"] if stage == 3 else [])
    for part in ("offload_optimizer", "offload_param"):
        _merge_offload(zero, part, wanted, part in parts)
    if stage == 0 and ("offload_optimizer" in zero or "offload_param" in zero):
        raise ConfigError("DeepSpeed(offload='cpu') needs stage 1, 2 or 3; stage 0 keeps everything on every rank")
    if "offload_param" in zero and stage != 3:
        raise ConfigError(f"ds_config: zero_optimization.offload_param needs stage 3, not {stage}; remove it")
    return zero


def _merge_offload(zero: dict[str, Any], part: str, wanted: Wanted, applies: bool) -> None:
    section = dict(_section(zero, part, "zero_optimization."))
    device = section.get("device")
    if device == "nvme":
        raise ConfigError(
            f"ds_config: zero_optimization.{part}.device is 'nvme', which this package cannot checkpoint; use 'cpu'"
        )
    if device is not None and wanted.offload is not None and applies and device != wanted.offload:
        raise _conflict(f"zero_optimization.{part}.device", device, f"DeepSpeed(offload={wanted.offload!r})")
    if device is None:
        device = wanted.offload if applies and wanted.offload is not None else "none"
    zero.pop(part, None)
    if device != "none":
        section.setdefault("pin_memory", wanted.device == "cuda")
        zero[part] = section | {"device": device}


def _precision(given: Mapping[str, Any], wanted: Wanted) -> tuple[float, int, tuple[str, ...]]:
    """First loss scale, its interval, and what is ignored."""
    if "bf16" in given and "bfloat16" in given:
        raise ConfigError("ds_config: 'bf16' and 'bfloat16' are one section; keep 'bf16'")
    for key, name in (("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16")):
        enabled = _section(given, key).get("enabled", "auto")
        if enabled != "auto" and bool(enabled) != (wanted.precision == name):
            shown = "true" if enabled else "false"
            what = f"pass rt.setup(..., precision={name!r})" if enabled else f"remove {key}.enabled"
            raise ConfigError(
                f"ds_config: {key}.enabled is {shown}, but precision={wanted.precision!r}; {what}, or change the file"
            )
    _check_types(given)
    fp16 = _section(given, "fp16")
    return _scale(fp16) if wanted.precision == "fp16" else (65536.0, 2000, ())


def _check_types(given: Mapping[str, Any]) -> None:
    for key, value in _section(given, "data_types").items():
        if value not in ("auto", None, "fp32"):
            raise ConfigError(
                f"ds_config: data_types.{key} is {value!r}, but weights and gradients are kept in fp32; remove it"
            )


def _scale(fp16: Mapping[str, Any]) -> tuple[float, int, tuple[str, ...]]:
    unknown = sorted(set(fp16) - SCALE_KEYS)
    if unknown:
        near = difflib.get_close_matches(unknown[0], SCALE_KEYS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; remove it"
        raise ConfigError(f"ds_config: fp16.{unknown[0]} is unknown or not supported{hint}")
    static = _number(fp16, "loss_scale", 0.0, "fp16.")
    if static:
        raise ConfigError(f"ds_config: fp16.loss_scale is {static}; only 0, a dynamic scale, is supported")
    quiet = {"hysteresis", "min_loss_scale", "consecutive_hysteresis", "auto_cast"}
    ignored = tuple(
        f"fp16.{key}: the loss scale is halved at each overflow, and inputs are cast by autocast"
        for key in sorted(quiet & set(fp16))
        if fp16[key] != "auto"
    )
    power = _number(fp16, "initial_scale_power", 16, "fp16.")
    return 2.0**power, int(_number(fp16, "loss_scale_window", 2000, "fp16.")), ignored


def _accumulation(given: Mapping[str, Any]) -> tuple[str, ...]:
    steps = given.get("gradient_accumulation_steps", "auto")
    if steps in ("auto", 1):
        return ()
    return (f"gradient_accumulation_steps={steps}: the script accumulates, with engine.accumulate(batch, {steps})",)


def _check_makers(given: Mapping[str, Any], wanted: Wanted, stage: int) -> None:
    for key, passed in (("optimizer", wanted.optimizer), ("scheduler", wanted.scheduler)):
        section = given.get(key)
        if section in (None, "auto"):
            continue
        kind = section.get("type") if isinstance(section, Mapping) else section
        if passed:
            raise _conflict(key, kind, f"rt.setup({key}=...)")
        if not isinstance(kind, str):
            raise ConfigError(f"ds_config: {key}.type is {kind!r}; name one, such as 'AdamW'")
        reason = why_not_sharded(kind) if key == "optimizer" and stage else None
        if reason is not None:
            raise ConfigError(
                f"ds_config: optimizer.type {kind!r} needs whole parameters ({reason}); use stage 0, or AdamW"
            )
    if not wanted.optimizer and given.get("optimizer") in (None, "auto"):
        raise ConfigError(
            "there is no optimizer: pass one to rt.setup, such as partial(torch.optim.AdamW, lr=3e-4), "
            "or write an optimizer section into the ds_config"
        )
    if not wanted.optimizer and _section(given["optimizer"], "params", "optimizer.").get("lr") == "auto":
        raise ConfigError("ds_config: optimizer.params.lr is 'auto', and rt.setup has no optimizer to take it from")


def _optimizer_on_cpu(config: dict[str, Any]) -> None:
    section = dict(config.get("optimizer", {}))
    if section.get("type", "").lower() in ("adam", "adamw"):
        # DeepSpeed's fused kernels exist for accelerators only
        config["optimizer"] = section | {"params": {"torch_adam": True} | dict(section.get("params", {}))}


def _micro_batch(given: Mapping[str, Any], ranks: int) -> int:
    """The file's micro-batch size, checked against its other two numbers; 1 where it does not say."""
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    total, micro, steps = (given.get(name, "auto") for name in names)
    for name, value in zip(names, (total, micro, steps), strict=True):
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"ds_config: {name} is {value!r}; it is a positive integer, or 'auto'")
    known = (1 if micro == "auto" else micro) * (1 if steps == "auto" else steps) * ranks
    open_ended = "auto" in (micro, steps)
    if total != "auto" and (total % known if open_ended else total != known):
        product = "does not divide it" if open_ended else f"= {known}"
        raise ConfigError(
            f"ds_config: train_batch_size is {total}, but train_micro_batch_size_per_gpu={micro} * "
            f"gradient_accumulation_steps={steps} * {ranks} ranks {product}; "
            "set train_batch_size to 'auto', or change one of them"
        )
    return 1 if micro == "auto" else int(micro)


def _section(given: Mapping[str, Any], key: str, path: str = "") -> Mapping[str, Any]:
    value = given.get(key)
    if value is None or value == "auto":
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"ds_config: {path}{key} is {value!r}; it is a section: {{...}}")
    return value


def _number(given: Mapping[str, Any], key: str, default: float, path: str = "") -> float:
    value = given.get(key, "auto")
    if value == "auto":
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ConfigError(f"ds_config: {path}{key} is {value!r}; it is a number of at least 0, or 'auto'")
    return value


def _without_auto(value: Any) -> Any:
    """A copy without the entries that say "auto": DeepSpeed's own defaults hold for them."""
    if isinstance(value, Mapping):
        return {key: _without_auto(item) for key, item in value.items() if item != "auto"}
    return copy.deepcopy(value)


def _conflict(key: str, written: Any, told: str) -> ConfigError:
    return ConfigError(f"ds_config: {key} is {written!r}, but the script says {told}; drop one of the two")
