"""DeepSpeed imported as this package needs it: on this rank's device, over its process group, without a word."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dist_toolkit.errors import ConfigError

_world: Any = None
"""The process group that DeepSpeed's groups were made from."""


def load_deepspeed(device: torch.device) -> Any:
    """The module `deepspeed`, set to `device`.

    Raises:
        ConfigError: it is not installed, or it was imported before for another kind of device.
    """
    first = "deepspeed" not in sys.modules
    with _variable("DS_ACCELERATOR", device.type, unless=not first), contextlib.redirect_stdout(sys.stderr):
        try:
            deepspeed: Any = importlib.import_module("deepspeed")
        except ImportError as error:
            raise ConfigError(
                f"strategy 'deepspeed' needs the package deepspeed ({error}); pip install 'dist-toolkit[deepspeed]'"
            ) from error
    chosen = deepspeed.accelerator.get_accelerator().device_name()
    if chosen != device.type:
        raise ConfigError(
            f"DeepSpeed was imported for {chosen!r} before dtk.init chose {device.type!r}; "
            f"set DS_ACCELERATOR={device.type}, or import deepspeed after rt.setup"
        )
    if device.type == "cpu":
        # an op that takes a minute to compile, and that only inference calls
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for handler in deepspeed.utils.logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    # DeepSpeed calls what torch is about to rename; no script can do anything about it
    warnings.filterwarnings("ignore", r".*all_gather_into_tensor.*|.*reduce_scatter_tensor.*", FutureWarning)
    _renew_groups(deepspeed)
    return deepspeed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """DeepSpeed's prints go to stderr; its warnings of what this package asks for on purpose are not shown."""
    log = logging.getLogger("DeepSpeed")
    level = log.level
    log.setLevel(max(level, logging.ERROR))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        log.setLevel(level)


def read_config(given: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """A ds_config as a dict.

    Raises:
        ConfigError: there is no such file, or it is not a JSON object.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    try:
        read = json.loads(Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the ds_config {given}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the ds_config {given} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"the ds_config {given} is not a JSON object")
    return read


def check_zero_keys(given: Mapping[str, Any]) -> None:
    """Compare the keys of zero_optimization, and of the sections in it, with those of the installed DeepSpeed.

    Raises:
        ConfigError: one is unknown to it.
    """
    zero = given.get("zero_optimization")
    if not isinstance(zero, Mapping):
        return
    configs: Any = importlib.import_module("deepspeed.runtime.zero.config")
    offload: Any = importlib.import_module("deepspeed.runtime.zero.offload_config")
    _check_keys(zero, configs.DeepSpeedZeroConfig, "zero_optimization")
    for part, model in (
        ("offload_optimizer", offload.DeepSpeedZeroOffloadOptimizerConfig),
        ("offload_param", offload.DeepSpeedZeroOffloadParamConfig),
    ):
        if isinstance(zero.get(part), Mapping):
            _check_keys(zero[part], model, f"zero_optimization.{part}")


def _check_keys(section: Mapping[str, Any], model: Any, path: str) -> None:
    known = {name for key, field in model.model_fields.items() for name in (key, field.alias) if name}
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"ds_config: {path}.{key} is unknown to DeepSpeed{hint}")


def _renew_groups(deepspeed: Any) -> None:
    """Forget what DeepSpeed keeps of a process group that has ended."""
    global _world
    if _world is not None and _world is not dist.group.WORLD:
        deepspeed.comm.comm.cdb = None
        deepspeed.utils.groups._WORLD_GROUP = None
    _world = dist.group.WORLD


@contextlib.contextmanager
def _variable(name: str, value: str, unless: bool) -> Iterator[None]:
    before = os.environ.get(name)
    if before is None and not unless:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None and not unless:
            os.environ.pop(name, None)
