"""The paragraphs of the report that say how it was measured, and what it cannot say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.statistics import QUIET, Spread

from .summary import ModelSummary

_FEW = 5  # rounds, below which quartiles say little


def method(machine: Mapping[str, Any]) -> tuple[str, ...]:
    """How it was measured, in paragraphs."""
    options = machine["options"]
    turns = (
        f"All strategies of a model are alive at once and take turns in blocks of about {options['block_seconds']:g} "
        "s, while the others wait without using a core. All blocks of a model have the same number of steps. The order "
        "rotates each round. The first round is a warm-up and is left out. Rounds asked for: "
        f"{options['rounds']}. Samples/s is the median over blocks; a ratio is taken within each round, and its median "
        "over rounds is given, which need not be the ratio of the two medians. `cores used` is the CPU time of a "
        "strategy's processes a second."
    )
    work = (
        "A step is forward, cross-entropy, backward and SGD with momentum, in float32, through dist_toolkit's Engine "
        "for every strategy; the ranks of ddp are started by `dtk launch`. Every strategy starts from the same weights "
        f"(seed {options['seed']}) and sees the same global batches: synthetic, made once, kept in memory. No data "
        "loading is measured."
    )
    return turns, work


def limits(summary: Sequence[ModelSummary], machine: Mapping[str, Any]) -> list[str]:
    """What a reader must not conclude."""
    strategies = {mode.strategy for model in summary for mode in model.modes}
    lines = []
    if not machine["options"]["gpus"]:
        lines.append("Anything about GPUs: none was used." + (_NO_GPU if "dp" in strategies else ""))
    busy = [m.others_cores for m in summary if m.others_cores is not None and m.others_cores.median >= QUIET]
    if busy:
        lines.append(_shared(max(busy, key=lambda spread: spread.median), machine))
    if "ddp" in strategies and "resnet18" in {model.model for model in summary}:
        lines.append(
            "The same numbers on resnet18: batch normalisation sees a rank's share of the batch in ddp, and in one "
            "process on a CPU the whole batch. The amount of work is the same."
        )
    if machine["environment"]:
        given = ", ".join(f"`{name}={value}`" for name, value in machine["environment"].items())
        lines.append(f"Default settings: {given} was set.")
    if any(mode.samples_per_s.count < _FEW for model in summary for mode in model.modes):
        lines.append(f"A reliable spread: there were fewer than {_FEW} rounds.")
    lines.append("Other machines, several nodes, large models: communication weighs differently there.")
    return lines


_NO_GPU = (
    " With GPUs, DataParallel copies the model to each of them at every step, from one Python process; without, "
    "`torch.nn.DataParallel` does nothing but call the model. So what is compared here is one process that splits each "
    "operation over all cores with ranks that split the batch and average gradients over gloo."
)


def _shared(others: Spread, machine: Mapping[str, Any]) -> str:
    policy = machine["environment"].get("OMP_WAIT_POLICY", "unset")
    return (
        "What a quiet machine would do. Other programs (the launcher's watch over its ranks is among them) kept "
        f"{others.median:.2f} of the {machine['cores']} cores busy in the median block (middle half: {others.low:.2f} "
        f"to {others.high:.2f}). Samples/s are too low by an unknown amount, and the ratios shift too, in favour of "
        "ranks: the threads of one process wait for the slowest of them in every operation, and by default spin while "
        "they do, on the cores that the slowest needs; ranks wait for each other once a step. With "
        f"`OMP_WAIT_POLICY=passive` threads do not spin and this is less; in this run it was {policy}."
    )
