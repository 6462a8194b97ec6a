"""What the options of `dtk.FSDP` may be, each on its own. Pure."""

from __future__ import annotations

from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.fsdp_init import INITS
from dist_toolkit.strategies.fsdp_wrap import check_wrap

REDUCE_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_SWITCHES = ("reduce_once", "find_unused_parameters", "cast_forward_inputs", "cpu_offload", "activation_checkpointing")


def check_options(options: Any) -> None:
    """Check the types and values of the fields of a `dtk.FSDP`.

    Raises:
        ConfigError: names the field, its value, and what fits.
    """
    check_wrap(options.wrap)
    if not isinstance(options.replicas, int) or isinstance(options.replicas, bool) or options.replicas < 1:
        raise ConfigError(f"FSDP(replicas={options.replicas!r}) is not a positive number of copies")
    if not isinstance(options.reshard_after_forward, (int, type(None))):
        raise ConfigError(
            f"FSDP(reshard_after_forward={options.reshard_after_forward!r}) is not True, False or a number of ranks"
        )
    for name in _SWITCHES:
        if not isinstance(getattr(options, name), bool):
            raise ConfigError(f"FSDP({name}={getattr(options, name)!r}) is not True or False")
    if not isinstance(options.compile, (bool, str)):
        raise ConfigError(f"FSDP(compile={options.compile!r}) is not True, False or the name of a backend")
    if options.reduce_dtype not in (None, *REDUCE_TYPES):
        raise ConfigError(f"FSDP(reduce_dtype={options.reduce_dtype!r}) is unknown; known: {', '.join(REDUCE_TYPES)}")
    if options.init not in INITS:
        raise ConfigError(f"FSDP(init={options.init!r}) is unknown; known: {', '.join(INITS)}")
