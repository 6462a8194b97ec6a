"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Sequence

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import NOTHING, count, machine_table, row, status
from bench_parts.records import Record, Records
from bench_parts.spreads import quartiles
from bench_parts.statistics import status_of
from bench_parts.words import binary, number

from .advice import Advice
from .measured import Measured
from .summary import command, conclude, measured


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    found, all_measured, machine = conclude(records), measured(records), records[0]
    options = machine["options"]
    parts: list[str | Figure] = [f"# Advice for {options['target']}", *_ended(records, found)]
    if found.best is not None:
        what = f"{'Of what ran, take' if found.lost else 'Take'}{' these options' if options['size'] else ''}"
        batch = f", batch {found.best.candidate.batch}" if options["size"] else ""
        parts.append(f"**{what}:** `{command(records, found.best)}`{batch}")
    elif all_measured and not found.lost and not any(each.is_copies for each in all_measured):
        parts.append("**Nothing that was tried runs here.**")
    parts.append("\n".join(f"- {reason}" for reason in found.reasons))
    parts += _figures(all_measured)
    if all_measured:
        parts += ["## What was measured", _table(all_measured), _left_out(records)]
        parts += ["## How it was measured", _method(machine) + _threads(records)]
        parts += ["## What this does not show", _limits(machine)]
    else:
        parts += [NOTHING, _left_out(records)]
    parts += ["## Machine", machine_table(machine, **_more(machine))]
    return [part for part in parts if part]


def _ended(records: Records, found: Advice) -> list[str]:
    """What failed, in place of that something did."""
    if not found.lost:
        return [status(status_of(records))]
    first, *reasons = found.lost
    ended = status_of(records)
    return ["" if ended == "failed" else status(ended), first, "\n".join(f"- {reason}" for reason in reasons)]


def _figures(found: Sequence[Measured]) -> list[Figure]:
    ran = [each for each in found if each.rate is not None]
    known = [each for each in ran if each.samples is not None]
    if not ran:
        return []
    shown, unit = (known, "samples/s") if known else (ran, "steps/s")
    values = tuple(_value(each) for each in shown)
    names = tuple(each.candidate.name for each in shown)
    memory = tuple(Value((each.memory or 0) / 2**30) for each in ran)
    return [
        Bars("advise-rate", "Rate of each way to run it", unit, names, ((unit, values),), better="higher"),
        Bars(
            "advise-memory", "Memory of a rank, at most", "GiB", tuple(each.candidate.name for each in ran),
            (("GiB", memory),), better="lower",
        ),
    ]  # fmt: skip


def _value(each: Measured) -> Value:
    assert each.seconds is not None
    of, seconds = 1.0 if each.samples is None else each.samples, each.seconds
    if seconds.low is None or seconds.high is None:
        return Value(of / seconds.median)
    return Value(of / seconds.median, of / seconds.high, of / seconds.low)


def _table(found: Sequence[Measured]) -> str:
    lines = [
        row("strategy", "ranks", "batch", "step", "quartiles", "rate", "memory of a rank", "all-reduce alone"),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in found:
        start = (each.candidate.strategy, str(each.candidate.nproc), str(each.candidate.batch or "-"))
        if each.seconds is None:
            lines.append(row(*start, "failed", "", "", "", ""))
            continue
        spread = each.seconds
        lines.append(
            row(
                *start,
                f"{number(1000 * spread.median)} ms",
                quartiles(spread, lambda seconds: number(1000 * seconds), "step"),
                _rate(each),
                "-" if each.memory is None else binary(each.memory),
                "-" if each.all_reduce is None else f"{number(1000 * each.all_reduce)} ms",
            )
        )
    return "\n".join(lines)


def _rate(each: Measured) -> str:
    return "-" if each.rate is None else f"{number(each.rate)} {'steps/s' if each.samples is None else 'samples/s'}"


def _left_out(records: Records) -> str:
    return "\n".join(f"- Left out: {r['strategy']} ({r['why']})." for r in records if r["kind"] == "left_out")


def _method(machine: Record) -> str:
    options = machine["options"]
    what = "a model of `dtk bench throughput`" if options["size"] else "the script, as it is, with its arguments"
    return (
        f"Each was started by `dtk launch` {count(options['rounds'], 'time')}, one after the other, every other round "
        f"backwards, with the same cores in all: {what}. A step is the "
        "time from one step of its optimizer to the next, data, logging and whatever else the loop does included; the "
        f"first {options['warmup']} steps are left out, then {options['steps']} follow, or as many as fit in "
        f"{options['seconds']:g} s. Median and quartiles are those of the steps. Memory is the most that any rank "
        "used: of its GPU, or resident in RAM without one, what torch itself needs included. The all-reduce is that of "
        "as many float32 numbers as there are weights, timed after the steps, when nothing else is done."
    )


def _threads(records: Records) -> str:
    """A sentence; '' of results that do not hold them."""
    found = {f"{r['strategy']} x{r['nproc']}": r["threads"] for r in records if "threads" in r}
    each = ", ".join(f"{threads} of {name}" for name, threads in found.items())
    return f" Threads of a rank: {each}." if found else ""


def _more(machine: Record) -> dict[str, str]:
    limit = machine.get("memory_limit_gib")
    return {
        "GPUs used": str(machine["options"]["gpus"]),
        **({} if limit is None else {"memory limit": f"{limit} GiB, of the control group"}),
    }


def _limits(machine: Record) -> str:
    lines = [
        "- What else there is: DDP whose gradients are sent as bfloat16 (`dtk.DDP(comm_hook='bf16')`) and DataParallel "
        "were not tried. `dtk bench throughput` has DataParallel on its models.",
        "- How well it learns: a larger batch needs another learning rate, and may need more samples.",
        "- What comes later: evaluations, saves, a slower disk, longer sequences.",
        "- More nodes than were used: communication weighs more there.",
        "- Small differences: the candidates ran one after the other, so other programs may have slowed one of them.",
    ]
    if not machine["options"]["gpus"]:
        lines.append("- GPUs: none was used. All ranks share the cores that one process has alone.")
    if machine["options"]["batch_is"] == "global" and not machine["options"]["batches"]:
        lines.append(
            "- Samples: the script's batch is not known, so steps are compared as if they had the same samples."
        )
    return "\n".join(lines)


def show(records: Records) -> None:
    """Print the advice and the numbers."""
    from bench_parts.terminal import print_table
    from rich.table import Table

    found = conclude(records)
    if not measured(records):
        print(NOTHING)
        return
    table = Table("strategy", box=None, header_style="bold", pad_edge=False)
    for head in ("ranks", "batch", "step, ms", "rate", "memory"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in measured(records):
        start = (each.candidate.strategy, str(each.candidate.nproc), str(each.candidate.batch or "-"))
        if each.seconds is None:
            table.add_row(*start, "failed", "", "")
        else:
            memory = "-" if each.memory is None else binary(each.memory)
            table.add_row(*start, number(1000 * each.seconds.median), _rate(each), memory)
    print_table(table)
    print()
    for line in _ended(records, found):
        if line:
            print(line.replace("**", ""))
    if found.best is not None:
        batch = f" and batch {found.best.candidate.batch}" if records[0]["options"]["size"] else ""
        take = "of what ran, take" if found.lost else "take"
        print(f"{take}{' the options of' if batch else ''}: {command(records, found.best)}{batch}")
    for reason in found.reasons:
        print(f"  {reason.replace('**', '')}")
