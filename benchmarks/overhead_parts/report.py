"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import NOTHING, RATIOS, count, machine_table, row, status
from bench_parts.others import UNKNOWN
from bench_parts.records import Records
from bench_parts.spreads import interval, quartiles
from bench_parts.statistics import FEWEST, Paired

from .summary import FeedSummary, LoopSummary, Summary, summarise
from .tables import BASELINE, FEEDS, LOOPS, SAME_OPTIONS

_RATIO = "{:.3f}".format
_FEW = 10  # rounds, below which a median says little


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    summary = summarise(records)
    machine = next(r for r in records if r["kind"] == "machine")
    setup = next((r for r in records if r["kind"] == "setup"), None)
    missing = [f"- Left out: {r['loop']} ({r['why']})." for r in records if r["kind"] == "left_out"]
    parts: list[str | Figure] = ["# Overhead of a training step", status(summary.status)]
    if machine["options"]["quick"]:
        parts.append("**This was a `--quick` run: the times mean nothing.**")
    if summary.feeds and setup is not None:
        parts += [
            "\n".join([*_headlines(summary), *missing]),
            "## Results",
            *_figures(summary),
            *(part for feed in summary.feeds for part in (_table(feed), _others(feed))),
        ]
        parts += [_guard(summary), "## How it was measured", _method(machine, setup)]
        parts += ["## What this does not show", _limits(summary, setup)]
    else:
        parts += [NOTHING, "\n".join(missing)]
    parts += ["## Machine", machine_table(machine, device="-" if setup is None else setup["device"])]
    return [part for part in parts if part]


def verdict(value: Paired, than: str) -> str:
    """In words: faster or slower where the interval says so, else that it says neither; of few rounds, the number."""
    if value.spread.count < _FEW or value.low is None or value.high is None:
        return f"takes {value.spread.median:.2f} times the time of {than} ({count(value.spread.count, 'round')})"
    percent = 100 * (value.spread.median - 1)
    if value.low <= 1 <= value.high:
        low, high = (100 * (bound - 1) for bound in (value.low, value.high))
        return (
            f"is neither faster nor slower, as far as was seen, than {than} ({low:+.1f} % to {high:+.1f} % of its time)"
        )
    return f"takes {abs(percent):.1f} % {'more' if percent > 0 else 'less'} time than {than}"


def _headlines(summary: Summary) -> list[str]:
    """What was found, a sentence each."""
    lines = []
    for feed in summary.feeds:
        for loop in feed.loops:
            if loop.ratio is not None:
                title = LOOPS[loop.loop].title
                found = f"- {feed.feed}: {title} {verdict(loop.ratio, 'the hand-written loop')}"
                if loop.wrapper is not None and loop.loop.startswith("dtk"):
                    found += f"; it {verdict(loop.wrapper, _tuned(feed))}"
                lines.append(found + ".")
    return lines


def _tuned(feed: FeedSummary) -> str:
    """The hand-written loop with dist_toolkit's options; results of an older one had the buckets that torch makes."""
    calls = {loop.loop: loop.collectives for loop in feed.loops}
    tuned, plain = calls.get(SAME_OPTIONS), calls.get("dtk")
    if tuned is None or plain is None or tuned == plain:
        return "one with the same DDP options"
    return f"one whose DDP has other buckets (its gradients go in {tuned:g} collectives, here in {plain:g})"


def _figures(summary: Summary) -> list[Figure]:
    names = list(dict.fromkeys(loop.loop for feed in summary.feeds for loop in feed.loops if loop.ratio is not None))
    if not names:
        return []

    def value(feed: FeedSummary, name: str) -> Value | None:
        ratio = next((loop.ratio for loop in feed.loops if loop.loop == name), None)
        return None if ratio is None else Value.paired(ratio)

    series = tuple((name, tuple(value(feed, name) for feed in summary.feeds)) for name in names)
    known = any(each is not None and each.low is not None for _, values in series for each in values)

    return [
        Bars(
            name="overhead",
            title=f"A step, in times of the same step {LOOPS[BASELINE].title.partition(',')[0]}",
            unit=f"times{', and 95 % of the median' if known else ''}",
            categories=tuple(feed.feed for feed in summary.feeds),
            series=series,
            better="lower",
            baseline=1.0,
        )
    ]


def _table(feed: FeedSummary) -> str:
    compared = any(loop.wrapper for loop in feed.loops)
    tuned = (f"time / {SAME_OPTIONS}", "95 % of the median") if compared else ()
    head = ("loop", "", "ms a step", f"time / {BASELINE}", "quartiles", "95 % of the median", *tuned,
            f"µs a step more than {BASELINE}", f"CPU time / {BASELINE} (95 %)", "collectives a step",
            "weights")  # fmt: skip
    lines = [f"**{feed.feed}** ({FEEDS[feed.feed]}), {feed.steps} steps a block. {RATIOS}", "", row(*head)]
    lines.append("|---|---|" + "---:|" * (len(head) - 3) + "---|")
    return "\n".join([*lines, *(_loop_row(loop, compared) for loop in feed.loops)])


def _others(feed: FeedSummary) -> str:
    return (
        UNKNOWN
        if feed.others_cores is None
        else f"Other programs, the launcher among them, kept {feed.others_cores.words()}."
    )


def _loop_row(loop: LoopSummary, compared: bool) -> str:
    ratio, wrapper, extra = loop.ratio, loop.wrapper, loop.extra_us
    tuned = (f"{wrapper.spread.median:.3f}", interval(wrapper, _RATIO)) if wrapper else ("", "")
    return row(
        loop.loop,
        LOOPS[loop.loop].title,
        f"{loop.step_ms.median:.3f}",
        f"{ratio.spread.median:.3f}" if ratio else "1",
        quartiles(ratio.spread, _RATIO) if ratio else "",
        interval(ratio, _RATIO) if ratio else "",
        *(tuned if compared else ()),
        f"{extra.spread.median:+.0f} ({interval(extra, '{:+.0f}'.format)})" if extra else "",
        f"{loop.cpu.spread.median:.3f} ({interval(loop.cpu, _RATIO)})" if loop.cpu else "",
        "" if loop.collectives is None else f"{loop.collectives:g}",
        _weights(loop),
    )


def _weights(loop: LoopSummary) -> str:
    if loop.loop == BASELINE:
        return ""
    if loop.identical is None:
        return "not compared"
    return "identical" if loop.identical else f"within {loop.difference:.0e}"


def _guard(summary: Summary) -> str:
    parts = []
    if summary.guard_us is not None:
        found = summary.guard_us
        parts.append(
            f"Desync guard: {found.spread.median:+.1f} µs a step ({interval(found, '{:+.1f}'.format)}) as the "
            "difference between dtk and dtk-noguard in the same round"
        )
    if summary.guard_alone_us is not None:
        parts.append(f"its three records of a step timed alone: {summary.guard_alone_us:.1f} µs")
    return "; ".join(parts) + "." if parts else ""


def _method(machine: Mapping[str, Any], setup: Mapping[str, Any]) -> str:
    options = machine["options"]
    return (
        f"{count(setup['ranks'], 'rank')} with {count(setup['threads'], 'thread')} each, {setup['backend']}. All "
        "loops live in the same processes and the same process group. They start from the same weights "
        f"({setup['parameters']:,} in four linear layers), see the same global batches of "
        f"{options['batch']} samples a rank in the same order, and use SGD with momentum in float32. After "
        f"{setup['warmup_steps']} steps and one round of warm-up, which are left out, each of {options['rounds']} "
        f"rounds has one block of {options['steps']} steps of every loop, feed by feed, in an order drawn anew in each "
        f"round (seed {options['seed']}). The clock runs from all ranks being ready to all having finished. Ratios and "
        "differences are taken within a round; the median over rounds is given, its quartiles, and a 95 % interval of "
        "the median by resampling rounds. CPU time is that of all threads of all ranks; what other programs do changes "
        "it less. `weights` compares the final weights with the hand-written loop's. With loaders the ranks take the "
        "same global batches, but not each the same share of them, so sums round differently."
    )


def _of_about(steps: list[float]) -> str:
    """The lengths of the hand-written loop's steps in ms."""
    if not steps:
        return ""
    low, high = (f"{bound:.0f}" if bound >= 10 else f"{bound:.1f}" for bound in (min(steps), max(steps)))
    return f", with steps of {low} ms by hand" if low == high else f", with steps of {low} to {high} ms by hand"


def _limits(summary: Summary, setup: Mapping[str, Any]) -> str:
    steps = [loop.step_ms.median for feed in summary.feeds for loop in feed.loops if loop.loop == BASELINE]
    lines = [
        f"- Other models, and longer or shorter steps: there was this one model of {setup['parameters']:,} weights"
        f"{_of_about(steps)}. What a library adds to the step of another is not measured."
    ]
    if setup["device"] == "cpu":
        lines.append("- GPUs: none was used. There, Python runs ahead of the device and may be hidden altogether.")
    lines.append("- The start of an epoch: few blocks hold one, and medians leave them out.")
    if any(feed.others_cores.matter for feed in summary.feeds if feed.others_cores is not None):
        lines.append(
            "- A quiet machine: other programs took a part of the cores, as is said under each table. That falls on "
            "whatever loop has its turn, and widens the intervals."
        )
    rounds = min(loop.step_ms.count for feed in summary.feeds for loop in feed.loops)
    if rounds < _FEW:
        least = "" if rounds >= FEWEST else f", and a 95 % interval takes {FEWEST}"
        lines.append(f"- A reliable median: there were only {count(rounds, 'round')}{least}.")
    return "\n".join(lines)
