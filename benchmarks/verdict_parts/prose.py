"""The sentences of the report of `dtk bench verdict`: how it was measured, and what it does not show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.others import UNKNOWN, Others, threads_in_words

Runs = Sequence[Mapping[str, Any]]

_METHOD = (
    "Each run is made to fail in a known way, once; there is no warm-up, as nothing is timed. Every failing rank notes "
    "the moment of its fault by the clock that all share; the earliest is the truth. Where every rank fails, the order "
    "of the ranks and the ways they fail are drawn; when they are to fail 1 ms apart, another than the one that is to "
    "be first may be so by that clock, and counts. `dtk` is the culprit of its verdict.json, `torchrun` the "
    '"Root Cause" that torchrun printed at the end of the very same run (of two nodes: right if either agent names the '
    "rank). dtk helps torchrun, too: under dtk a rank that has only lost a connection puts off its end. Intervals are "
    "Wilson's score intervals (95 %) of the share of right answers, as if runs were drawn independently."
)


def method(runs: Runs) -> str:
    """How it was measured."""
    parts = [_METHOD]
    if threads := threads_in_words(runs):
        parts.append(f"OMP_NUM_THREADS of the ranks was {threads}.")
    others = _others(runs)
    parts.append(f"Other programs kept {others.words('run')}." if others else UNKNOWN)
    return " ".join(parts)


def limits(runs: Runs) -> str:
    """What is not to be concluded."""
    lines = [
        "- Failures as they come: these are the ways that were thought of, each as often as the plan has it. A share "
        "over all of them says nothing of how often a job's verdict will be right.",
        "- GPUs: no rank uses one. What nccl does when a rank is gone is not seen.",
        "- Many nodes: two nodes are two launchers on this machine, with one clock; times of several machines differ "
        "by what their clocks do.",
        "- torchrun alone: it was asked under dtk, whose bootstrap changes when ranks end.",
    ]
    others = _others(runs)
    if others and others.matter:
        lines.append(
            "- A quiet machine: other programs took a part of the cores, as said above. Whoever has to tell 1 ms from "
            "2 ms finds that harder then."
        )
    return "\n".join(lines)


def _others(runs: Runs) -> Others | None:
    """By run."""
    seen = [run for run in runs if run.get("others_cpu_seconds") is not None]
    return Others.of({run["name"]: run["others_cpu_seconds"] / run["seconds"] for run in seen})
