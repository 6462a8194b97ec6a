"""The sentences of the report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_parts.markdown import count
from bench_parts.others import UNKNOWN
from bench_parts.statistics import QUIET
from bench_parts.words import binary, number

from .summary import CaseSummary, Part, Summary
from .tables import SCOPES, SOURCE

_FEW = 10  # rounds, below which a median says little


def title(part: Part, setup: Mapping[str, Any]) -> str:
    """`gloo across nodes, 4 ranks on 2 nodes`."""
    if part.ranks == 1:
        return f"{part.backend}: copies within one device"
    where = f" on {count(setup['nodes'], 'node')}" if part.scope == "across" else ""
    return f"{part.backend} {SCOPES[part.scope]}, {part.ranks} ranks{where}"


def headlines(summary: Summary, setup: Mapping[str, Any]) -> list[str]:
    """What was found, a sentence for each backend and scope, and what the network costs."""
    lines = [_headline(part, setup) for part in summary.parts]
    for across in summary.parts:
        within = next((p for p in summary.parts if (p.backend, p.scope) == (across.backend, "within")), None)
        if across.scope == "across" and within is not None:
            lines.append(_compared(within, across))
    if setup["nodes"] > 1 and setup["one_machine"]:
        lines.append(
            f"- The {setup['nodes']} nodes are parts of one machine (they run on the same kernel and share its cores): "
            "what is between them is as fast as that machine, or as slow as a limit that was set for them."
        )
    if setup["device"] == "cpu":
        lines.append("- No GPU was used: these are copies through the memory and the network of the hosts.")
    return lines


def _headline(part: Part, setup: Mapping[str, Any]) -> str:
    if part.ranks == 1:
        copies = ", ".join(f"{name} {_rate(part.best(name).algorithm.median, part.best(name))}" for name in part.moving)
        least = min(case.time_us.median for case in part.cases)
        least_words = f"The cheapest call takes {number(least)} µs."
        return f"- {title(part, setup)}: {copies or 'nothing'}; one rank sends nothing. {least_words}"
    fastest = {name: part.best(name) for name in part.operations}
    bus = ", ".join(f"{name} {_rate(case.bus.median, case)}" for name, case in fastest.items())
    small = part.sizes[0]
    times = ", ".join(f"{name} {number(part.of(name)[0].time_us.median)}" for name in part.operations)
    return f"- {title(part, setup)}: bus bandwidth up to {bus}. Latency in µs, at {binary(small)}: {times}."


def _rate(bandwidth: float, case: CaseSummary) -> str:
    return f"{number(bandwidth)} GB/s (at {binary(case.size)})"


def _compared(within: Part, across: Part) -> str:
    found = []
    for name in across.operations:
        if name in within.operations:
            small = across.of(name)[0].time_us.median / within.of(name)[0].time_us.median
            large = across.best(name).bus.median / within.best(name).bus.median
            found.append(f"{name} {number(small)} times the latency, {number(large)} times the bus "
                         "bandwidth")  # fmt: skip
    return f"- {across.backend}, across nodes against within a node: {'; '.join(found)}."


def method(machine: Mapping[str, Any], setup: Mapping[str, Any], summary: Summary) -> str:
    """How it was measured."""
    options = machine["options"]
    block = "so many operations as take about 50 ms, at least 2" if not options["iterations"] else (
        count(options["iterations"], "operation"))  # fmt: skip
    scopes = {part.scope for part in summary.parts}
    groups = (
        "Within a node, every node's own ranks communicate, on all nodes at the same time; across nodes, all ranks do. "
        if scopes == {"within", "across"}
        else ""
    )
    stops = "it has its last result" if setup["device"] == "cpu" else "its device has done everything"
    return (
        f"{count(setup['ranks'], 'rank')} on {count(setup['nodes'], 'node')}, {count(setup['threads'], 'thread')} "
        f"each, {options['dtype']}. {groups}Every case is an operation of one size. Each was done once with numbers "
        "that differ from rank to rank, and the result compared with what must come out, on every rank; then it was "
        f"warmed up. In each of {options['rounds']} rounds every case has one block ({block}, the same number in all "
        f"rounds), in an order drawn anew in each round (seed {options['seed']}). All ranks start a block together, "
        f"call the operation of torch.distributed over and over, and the clock of each stops when {stops}. The time of "
        "an operation is that of the slowest rank over the number of operations, as nccl-tests gives it "
        "with `-a 3`; its default is the mean over ranks, which has a "
        "column of its own. Medians over rounds are given, with their quartiles. GB/s are 10^9 bytes a second. As in "
        f"[nccl-tests]({SOURCE}), algbw = S/t, and busbw = algbw x a factor that makes it comparable with the speed of "
        "the hardware, whatever the operation and the number of ranks n. S is rounded down to what all ranks can have "
        "equal shares of. all-reduce and broadcast work in place, the others from one buffer into another. "
        f"{_others(summary)}"
    )


def _others(summary: Summary) -> str:
    """How busy other programs were, and what of the report that is in."""
    if summary.others_cores is None:
        return UNKNOWN
    return (
        "While the ranks waited before each round, for a quarter of a second, other programs kept "
        f"{summary.others_cores.words('look')}. A round has a block of every case, so what others do in one is in all "
        "sections and tables alike: in one of the values of each median."
    )


def limits(summary: Summary, setup: Mapping[str, Any]) -> str:
    """What is not to be concluded."""
    lines = ["- Training: there, communication overlaps with computing, and buckets have sizes of their own."]
    if any(part.ranks == 1 for part in summary.parts):
        lines.append(
            "- Communication: there was one rank, so nothing went over a link, and there is no bus bandwidth. "
            "all-reduce and broadcast work in place and have nothing to do then; their time is that of the call."
        )
    if setup["nodes"] == 1:
        lines.append("- A network: all ranks were on one node.")
    elif setup["one_machine"]:
        lines.append("- A network: what the nodes sent each other never left the machine that they are parts of.")
    if setup["device"] == "cpu":
        lines.append("- GPUs: none was used, and nccl was not measured.")
    lines.append("- The backend alone: the time holds the call from Python, a few µs, which matters at small sizes.")
    if (others := summary.others_cores) is not None and others.matter:
        lines.append(
            f"- A quiet machine: other programs kept {QUIET:g} cores or more busy before {others.busy} of "
            f"{count(others.count, 'round')}; the worst is said above."
        )
    if summary.rounds < _FEW:
        lines.append(f"- A reliable median: there were only {count(summary.rounds, 'round')}.")
    return "\n".join(lines)
