"""The paragraphs of the report that say how it was measured, and what it cannot say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.statistics import QUIET, Spread

from .names import APART, work_name
from .steptimes import FEW, KEPT
from .summary import WorkSummary
from .tables import MODELS, PRECISIONS, STRATEGIES

_FEW = 5  # rounds, below which quartiles say little
_MANY = 100  # steps, below which a few slow ones decide what 95 % of them do not exceed


def method(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> tuple[str, ...]:
    """How it was measured, in paragraphs."""
    return (_turns(summary, machine), _work(summary, machine), _shares(machine), _parts(summary), _memory(machine))


def _turns(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> str:
    options = machine["options"]
    alive = "All strategies of a workload are alive at once"
    if any(work.apart for work in summary):
        alive = (
            "As many strategies of a workload as were expected to fit into memory, or --at-once, are alive at once (a "
            f"ratio of two that were not, or one of which was measured by a later --resume, is marked {APART}: it "
            "compares different minutes)"
        )
    return (
        f"{alive} and take turns in blocks, while the others wait without using a core. All blocks of a workload have "
        f"the same number of steps, to take about {options['block_seconds']:g} s on average ({_lengths(summary)} in "
        "the median). The order rotates each round. The first "
        f"round is a warm-up and is left out. Rounds asked for: {options['rounds']}. Samples/s is the median over "
        "blocks; a ratio is taken within each round, and its median over rounds is given, which need not be the ratio "
        "of the two medians. Step p50 and p95 are of the steps of all rounds together, on rank 0 (of a block with more "
        f"than {KEPT} steps, {KEPT} at even distances in the order of their length); no p95 of fewer than {FEW} steps. "
        "`cores used` is the CPU time of a strategy's processes a second."
    )


def _lengths(summary: Sequence[WorkSummary]) -> str:
    medians = [work.block_seconds.median for work in summary]
    least, most = f"{min(medians):.2g}", f"{max(medians):.2g}"
    return f"{least} s" if least == most else f"{least} to {most} s, by workload,"


def _work(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> str:
    optimizers = {MODELS[work.model].optimizer for work in summary}
    named = [words for name, words in _OPTIMIZERS.items() if name in optimizers]
    losses = "cross-entropy" + (" (DCGAN: two engines, binary cross-entropy)" if "adam" in optimizers else "")
    precisions = [f"{name}: {PRECISIONS[name].words}" for name in dict.fromkeys(work.precision for work in summary)]
    return (
        f"A step is the next batch of dist_toolkit's loader, forward, {losses}, backward and an optimizer step, "
        f"through dist_toolkit's Engine for every strategy, with its default options; `dtk launch` starts ranks. "
        f"Optimizers: {', '.join(named)}. {'; '.join(precisions)}. Every strategy starts from the same weights (seed "
        f"{machine['options']['seed']}) and sees the same global batches: synthetic samples, shuffled, in memory, "
        "fetched by the training process itself."
    )


_OPTIMIZERS = {"sgd": "SGD with momentum", "adamw": "AdamW for language models", "adam": "Adam for DCGAN"}


def _shares(machine: Mapping[str, Any]) -> str:
    options = machine["options"]
    most = max(_list(options["nproc"]))
    each = "a GPU" if options["gpus"] else f"{max(1, machine['cores'] // most)} of the {machine['cores']} cores"
    weak = "Weak scaling: every rank has a batch of the same size." if options.get("scaling") == "weak" else (
        "Strong scaling: all ranks share one global batch."
    )  # fmt: skip
    return (
        f"`xN` is a strategy with N equal shares of the machine, {each} each: N ranks, or for DataParallel one process "
        f"with all N. `single` is one process with one share: where scaling begins. {weak} Scaling is over the same "
        "strategy with one share, else over `single`; its efficiency is that over N."
    )


def _list(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _parts(summary: Sequence[WorkSummary]) -> str:
    ways = {STRATEGIES[mode.strategy].waits for work in summary for mode in work.modes if mode.parts_ms}
    text = (
        "The parts of a step are timed in steps of their own behind each block, "
        f"{_timed(summary)} in all of each strategy: medians over the steps of a round and over rounds, means over "
        "ranks; their sum need not be the step's p50, which is of other steps. On a GPU they are events in the stream "
        "that computes, and nothing waits for the device "
        "(DataParallel on several GPUs waits for all of them between parts)."
    )
    if "differences" in ways:
        text += (
            " Exposed communication of DDP is what forward and backward last longer than the same passes in `no_sync`, "
            "where nothing is communicated, on the same batch right behind them; where one of the two did not last "
            "longer, it counts as 0, so what is small is told too large."
        )
    if "waits" in ways:
        text += (
            " Exposed communication of FSDP and ZeRO is the time that forward, backward and optimizer wait in "
            "torch.distributed's collectives, or for them; it is not part of the three, and holds waiting for a slower "
            "rank as well. What these strategies add otherwise (copies, hooks) is in the three."
        )
    return text


def _timed(summary: Sequence[WorkSummary]) -> str:
    numbers = [mode.timed_steps for work in summary for mode in work.modes if mode.parts_ms]
    least, most = min(numbers, default=0), max(numbers, default=0)
    return str(least) if least == most else f"{least} to {most}"


def _memory(machine: Mapping[str, Any]) -> str:
    text = (
        "Peak memory is resident memory since a process's start, its data set included; pages of libraries count in "
        "each process. FLOP/s are those of forward and backward passes as torch's FlopCounterMode counts them "
        "(matrix products and convolutions) times samples/s"
    )
    if machine["options"]["gpus"]:
        return f"{text}; MFU is that over the dense peak of the GPU in the vendor's data sheet, at this precision."
    return f"{text}. No MFU: it is over the peak of a GPU."


def limits(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> list[str]:
    """What a reader must not conclude."""
    strategies = {mode.strategy for work in summary for mode in work.modes}
    lines = []
    if not machine["options"]["gpus"]:
        lines.append("Anything about GPUs: none was used." + (_NO_GPU if "dp" in strategies else ""))
    weak = machine["options"].get("scaling") == "weak"
    seen = {work_name(work, summary, weak): work.others_cores for work in summary}
    busy = {name: cores for name, cores in seen.items() if cores is not None and cores.median >= QUIET}
    if busy:
        lines.append(_shared(busy, machine))
    normalised = sorted({work.model for work in summary} & {"resnet18", "resnet50", "dcgan"})
    if normalised and any(mode.ranks > 1 for work in summary for mode in work.modes):
        lines.append(
            f"The same numbers on {', '.join(normalised)}: batch normalisation sees a rank's share of the batch, and "
            "in one process on a CPU the whole batch. The amount of work is the same."
        )
    if "ddp-bf16" in strategies or any(work.precision in ("bf16", "fp16") for work in summary):
        lines.append("How well a model learns in 16 bits: only the time is measured.")
    if machine["environment"]:
        given = ", ".join(f"`{name}={value}`" for name, value in machine["environment"].items())
        lines.append(f"Default settings: {given} was set.")
    if any(mode.samples_per_s.count < _FEW for work in summary for mode in work.modes):
        lines.append(f"A reliable spread: there were fewer than {_FEW} rounds.")
    steps = sorted(mode.samples_per_s.count * work.steps for work in summary for mode in work.modes)
    timed = [mode for work in summary for mode in work.modes if mode.parts_ms]
    if any(mode.timed_steps < _MANY for mode in timed):
        least = min(mode.timed_steps for mode in timed)
        lines.append(
            f"Small differences between parts of steps: they are of {least} steps or a few more, and exposed "
            "communication varies most from round to round, as its quartiles show."
        )
    lines += _tail(steps)
    lines.append("Tuned strategies: each has its default options. Reading real data, and a model's whole training.")
    lines.append("Other machines, several nodes, large models: communication weighs differently there.")
    return lines


def _tail(steps: Sequence[int]) -> list[str]:
    """What p95 does not say, of how many steps each strategy was timed."""
    told = [number for number in steps if number >= FEW]
    found = []
    if told and min(told) < _MANY:
        found.append(f"p95 is of as few as {min(told)} steps, so that a few slow ones decide it")
    if len(told) < len(steps):
        found.append(f"there are only {min(steps)} steps of some strategies")
    return [f"The tail of step times: {'; '.join(found)}."] if found else []


_NO_GPU = (
    " With GPUs, DataParallel copies the model to each of them at every step, from one Python process (its scatter, "
    "replicate and gather are then parts of the step); without, `torch.nn.DataParallel` does nothing but call the "
    "model. So what is compared here is one process that splits each operation over all cores with ranks that split "
    "the batch and communicate over gloo."
)


def _shared(busy: Mapping[str, Spread], machine: Mapping[str, Any]) -> str:
    cores = [f"{cores.median:.2f} ({name})" for name, cores in busy.items()]
    policy = machine["environment"].get("OMP_WAIT_POLICY", "unset")
    return (
        "What a quiet machine would do. Other programs (the launcher's watch over its ranks is among them) kept "
        f"so many of the {machine['cores']} cores busy in the median block: {', '.join(cores)}. "
        "Samples/s are too low by an unknown amount, and the ratios may shift too; in favour of ranks, as is to be "
        "expected: the threads of one process wait for the slowest of them in every operation, and by default spin "
        "while they do, on the cores that the slowest needs; ranks wait for each other once a step. Scaling may look "
        "worse than it is: `single` leaves cores to other programs, what uses all of them cannot. With "
        f"`OMP_WAIT_POLICY=passive` threads do not spin; in this run it was {policy}."
    )
