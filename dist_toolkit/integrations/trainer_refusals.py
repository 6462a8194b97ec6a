"""What of a Trainer cannot be kept by checkpoints of this package: said at once, before anything is trained."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from dist_toolkit.errors import ConfigError

SEAMS = (
    "train", "get_train_dataloader", "_init_training_state", "_prepare_for_training", "_run_epoch",
    "_maybe_log_save_evaluate", "_determine_best_metric", "_evaluate", "_save_checkpoint", "_load_rng_state",
    "_finalize_training", "hyperparameter_search", "store_flos",
)  # fmt: skip
"""The methods of Trainer that are overridden or called."""

_SINCE = "5.3"


def refuse_what_cannot_be_kept(trainer: Any) -> None:
    """Look at a Trainer and its TrainingArguments.

    Raises:
        ConfigError: this is no Trainer, its transformers is too old, or an argument contradicts the checkpoints.
    """
    transformers: Any = importlib.import_module("transformers")
    if not isinstance(trainer, transformers.Trainer):
        raise ConfigError(f"attach() takes a Trainer of transformers, not {type(trainer).__name__}")
    missing = [name for name in SEAMS if not hasattr(trainer, name)]
    if missing:
        raise ConfigError(
            f"the Trainer of transformers {transformers.__version__} has no {missing[0]}, which exact checkpoints "
            f"need; install transformers {_SINCE} or later"
        )
    for reason in _reasons(trainer, trainer.args):
        raise ConfigError(reason)


def _reasons(trainer: Any, args: Any) -> Iterator[str]:
    yield from _of_arguments(args)
    accelerator = trainer.accelerator
    if args.device.type not in ("cpu", "cuda"):
        yield (
            f"the Trainer computes on {args.device.type!r}, whose random numbers these checkpoints do not hold; "
            "train on GPUs or with use_cpu=True"
        )
    if "sagemaker" in str(args.parallel_mode).lower():
        yield "SageMaker's model parallelism keeps its own checkpoints; leave attach() out there"
    if trainer.is_deepspeed_enabled:
        yield (
            "attach() does not read the parts of the weights that a DeepSpeed engine made by Accelerate holds; train "
            "with --strategy ddp or fsdp, or leave attach() out and use the Trainer's own checkpoints"
        )
    if args.n_gpu > 1:
        yield (
            f"one process would train on {args.n_gpu} GPUs (DataParallel), whose random numbers these checkpoints do "
            f"not hold; start with `dtk launch --nproc {args.n_gpu}`"
        )
    if getattr(accelerator, "parallelism_config", None) is not None:
        yield "parallelism_config (tensor, context or sequence parallelism) is not kept by these checkpoints; drop it"
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if trainer.is_fsdp_enabled and getattr(plugin, "fsdp_version", 1) != 2:
        yield "FSDP version 1 lays weights out in its own way; use version 2 (FSDP_VERSION=2, as dtk launch sets it)"


def _of_arguments(args: Any) -> Iterator[str]:
    if args.save_only_model:
        yield "save_only_model=True leaves out what a resume needs; drop it, and call trainer.save_model() at the end"
    if args.push_to_hub and str(getattr(args.hub_strategy, "value", args.hub_strategy)) != "end":
        yield "push_to_hub of every checkpoint needs the Trainer's folders; use hub_strategy='end'"
    if args.auto_find_batch_size:
        yield "auto_find_batch_size=True begins the training anew with another batch size; set the batch size"
    if args.ignore_data_skip:
        yield "ignore_data_skip=True trains on the first batches of an epoch again after a resume; drop it"
    if getattr(args, "enable_jit_checkpoint", False):
        yield "enable_jit_checkpoint=True handles SIGTERM, and so does attach(); drop it"
    if "layerwise" in str(args.optim).lower():
        yield f"optim={args.optim!s} keeps its state in hooks of the parameters, not in an optimizer; use another"
