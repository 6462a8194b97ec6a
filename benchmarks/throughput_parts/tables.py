"""What can be compared: strategies, models and precisions, by name. Names of functions, so reading this needs no torch.

A new model is one line in MODELS and one function in `models`; a new strategy is one line in STRATEGIES.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class StrategySpec:
    """How a strategy is started and what its ranks do."""

    title: str
    launched: bool
    """Whether it runs as ranks under `dtk launch`; else as one process."""
    engine: str
    """The strategy of dist_toolkit that its ranks set up."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of dist_toolkit's strategy object."""
    one_share: bool = False
    """Whether it always has what one rank has (a GPU, or a rank's threads), whatever --nproc says."""
    waits: str = ""
    """How exposed communication is found: `differences` (of the same passes without it), `waits` (time spent waiting
    for collectives); '' where there is no communication between processes."""
    needs: tuple[str, ...] = ()
    """Import names."""


@dataclass(frozen=True)
class Size:
    """The work at one --size."""

    words: str
    batch: int
    """Global batch size unless one is asked for."""
    shape: tuple[int, ...]
    """Of one input sample; tokens of a sequence for language models."""
    classes: int
    """Or the size of the vocabulary."""
    gib: float
    """About what a process needs beside torch itself, in GiB: for the number of strategies that are alive at once."""


@dataclass(frozen=True)
class ModelSpec:
    """A model and the work it is measured on."""

    build: str
    """`module:function` of this package, from a Size to the model, or to the two players of a GAN."""
    task: str
    """What a step is: `classify`, `masked`, `causal` or `gan`; see `tasks`."""
    optimizer: str
    """`sgd` (with momentum), `adamw` or `adam`."""
    small: Size
    full: Size
    needs: tuple[str, ...] = ()
    """Import names."""
    least: int = 1
    """Samples that a process must have."""

    def at(self, size: str) -> Size:
        """The work at --size `small` or `full`."""
        return self.small if size == "small" else self.full


@dataclass(frozen=True)
class PrecisionSpec:
    """What a model computes in."""

    engine: str
    """The precision that dist_toolkit is asked for."""
    words: str
    tf32: bool = False
    """Whether matrix products of float32 may use TF32, on a GPU."""


STRATEGIES = {
    "single": StrategySpec("one process", launched=False, engine="single", one_share=True),
    "dp": StrategySpec("DataParallel", launched=False, engine="data_parallel"),
    "ddp": StrategySpec("DDP", launched=True, engine="ddp", waits="differences"),
    "ddp-bf16": StrategySpec(
        "DDP with bf16 gradients", launched=True, engine="ddp", options={"comm_hook": "bf16"}, waits="differences"
    ),
    "fsdp": StrategySpec("FSDP", launched=True, engine="fsdp", waits="waits"),
    **{
        f"zero{stage}": StrategySpec(
            f"ZeRO-{stage}", launched=True, engine="deepspeed", options={"stage": stage}, waits="waits",
            needs=("deepspeed",),
        )
        for stage in (1, 2, 3)
    },
}  # fmt: skip

_VISION = ("torchvision",)
_TEXT = ("transformers",)

MODELS = {
    "mlp": ModelSpec(
        "models:mlp", "classify", "sgd",
        Size("three linear layers, 784-1024-1024-10", 512, (784,), 10, 0.1),
        Size("three linear layers, 784-1024-1024-10", 8192, (784,), 10, 0.2),
    ),
    "resnet18": ModelSpec(
        "models:resnet18", "classify", "sgd",
        Size("torchvision's ResNet-18 on 32x32 images", 64, (3, 32, 32), 10, 0.4),
        Size("torchvision's ResNet-18 on 224x224 images", 256, (3, 224, 224), 1000, 1.5), _VISION, least=2,
    ),
    "resnet50": ModelSpec(
        "models:resnet50", "classify", "sgd",
        Size("torchvision's ResNet-50 on 32x32 images", 32, (3, 32, 32), 10, 0.7),
        Size("torchvision's ResNet-50 on 224x224 images", 128, (3, 224, 224), 1000, 2.0), _VISION, least=2,
    ),
    "vgg11": ModelSpec(
        "models:vgg11", "classify", "sgd",
        Size("the layers of torchvision's VGG-11 on 32x32 images, with one linear layer behind", 32, (3, 32, 32), 10,
             0.5),
        Size("torchvision's VGG-11 on 224x224 images", 128, (3, 224, 224), 1000, 3.0), _VISION,
    ),
    "bert-like": ModelSpec(
        "models:bert", "masked", "adamw",
        Size("transformers' BertForMaskedLM with 4 layers of width 192, sequences of 64", 16, (64,), 4096, 0.4),
        Size("transformers' BertForMaskedLM as bert-base, sequences of 512", 32, (512,), 30522, 4.0), _TEXT,
    ),
    "gpt2-like": ModelSpec(
        "models:gpt2", "causal", "adamw",
        Size("transformers' GPT2LMHeadModel with 4 layers of width 192, sequences of 64", 16, (64,), 4096, 0.4),
        Size("transformers' GPT2LMHeadModel as gpt2-small, sequences of 1024", 16, (1024,), 50257, 5.0), _TEXT,
    ),
    "dcgan": ModelSpec(
        "models:dcgan", "gan", "adam",
        Size("DCGAN on 32x32 images, two engines: generator and discriminator", 64, (3, 32, 32), 64, 0.3),
        Size("DCGAN on 64x64 images, two engines: generator and discriminator", 256, (3, 64, 64), 100, 1.0), least=2,
    ),
}  # fmt: skip

PRECISIONS = {
    "fp32": PrecisionSpec("fp32", "float32, without TF32"),
    "tf32": PrecisionSpec("fp32", "float32, its matrix products in TF32", tf32=True),
    "bf16": PrecisionSpec("bf16", "bfloat16 autocast, weights in float32"),
    "fp16": PrecisionSpec("fp16", "float16 autocast with a loss scale, weights in float32"),
}

SIZES = ("small", "full")

BASELINES = ("dp", "single")
"""What the others are compared with: the first of these that is measured, else the first strategy that was named."""

EXTRAS = {"torchvision": "bench", "transformers": "hf", "deepspeed": "deepspeed"}
"""Import name -> the extra of dist-toolkit that brings it."""


def load(path: str) -> Callable[..., Any]:
    """The function at `module:function` of this package."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __package__), name)
    return found
