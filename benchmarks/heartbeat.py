"""`dtk bench heartbeat`: what the heartbeat of dtk launch adds to a step, against the same steps without it.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_parts import machine, markdown, terminal
from bench_parts.arguments import Parser, UsageError, add_output, usable_cores
from bench_parts.driver import Benchmark, main
from bench_parts.figures import Figure
from bench_parts.others import UNKNOWN, Others
from bench_parts.processes import POLL, Started, clean_environment, temporary_folder
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.rounds import next_round, of_kind
from bench_parts.statistics import FEWEST, Paired, Spread, ratios, status_of
from bench_parts.work import Work, with_work

RANK = Path(__file__).with_name("_heartbeat_rank.py")
TARGET = 0.005
"""Of a step: what the heartbeat may add at most."""
WORK = (Work("step_ms"),)
_LIMIT = 600.0  # seconds without a word of the rank
_LONGEST_ROUND = _LIMIT / 2  # seconds
_LONGEST_STEP_MS = 1000.0  # until such a step is found, hundreds of shorter ones are made


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    steps: int
    step_ms: float
    out: Path
    json: bool
    resume: bool = False
    overwrite: bool = False

    @property
    def round_seconds(self) -> float:
        """How long a round takes if the steps are as long as asked for."""
        return 2 * self.steps * self.step_ms / 1000


def parse(argv: list[str]) -> Options:
    """Raises UsageError."""
    parser = Parser(prog="dtk bench heartbeat", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=60, metavar="N", help="of both kinds of steps (default: %(default)s)")
    add("--steps", type=int, default=100, metavar="N", help="steps of each kind in a round (default: %(default)s)")
    add("--step-ms", type=float, default=5.0, metavar="MS", help="length of a step (default: %(default)s)")
    add_output(parser, "heartbeat")
    given = parser.parse_args(argv)
    for name in ("rounds", "steps", "step_ms"):
        if not getattr(given, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(given, name)} is not a positive number")
    options = Options(**vars(given))
    if options.step_ms > _LONGEST_STEP_MS:
        raise UsageError(
            f"--step-ms {options.step_ms:g} is more than a second: finding such a step would take too long; "
            f"pass at most {_LONGEST_STEP_MS:g}"
        )
    if options.round_seconds > _LONGEST_ROUND:
        most = int(_LONGEST_ROUND * 1000 / 2 / options.step_ms)
        raise UsageError(
            f"one round would take {_clock(options.round_seconds)} (2 x {options.steps} steps of {options.step_ms:g} "
            f"ms); pass at most --steps {most}, and more --rounds"
        )
    return options


def _clock(seconds: float) -> str:
    """`0:10:00`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def duration(options: Options) -> str:
    """About how long all rounds take, in words; what comes before the first is not in it."""
    seconds = options.rounds * options.round_seconds
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 2 * size or (seconds >= size and unit == "minute"):
            return markdown.count(round(seconds / size), unit)
    return "a second"


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = {"rounds": options.rounds, "steps": options.steps, "step_ms": options.step_ms}
    return {**machine.describe(usable_cores()), "options": shown}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """One rank under dtk launch, which does both kinds of steps in turns."""
    first = next_round(done)
    if first > options.rounds:
        return
    rounds = f"{options.rounds} rounds of 2 x {options.steps} steps of {options.step_ms:g} ms"
    say(f"{rounds}, about {duration(options)} ...")
    words = [sys.executable, "-m", "dtk_launch", "launch", "--nproc", "1", "--device", "cpu", "--run-dir", "run"]
    words += [str(RANK), str(first), str(options.rounds), str(options.steps), str(options.step_ms)]
    with temporary_folder() as home:
        process = Started(words, home, clean_environment(os.environ, 1), options.out / "failed")
        once = {record["kind"] for record in of_kind(done, "setup", "call")}
        try:
            for record in _records(process, home / "run" / "ranks" / "0.log"):
                if record["kind"] not in once:
                    add(record)
        finally:
            process.end(0.0)


def _records(process: Started, log: Path) -> Iterator[dict[str, Any]]:
    """What the rank prints, as it comes. Raises ProcessFailed where it fails, or prints nothing for too long."""
    seen, deadline = 0, time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        ended = process.wait(POLL) is not None
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole[seen:]:
            yield json.loads(line)
            deadline = time.monotonic() + _LIMIT
        seen = len(whole)
        if ended:
            break
    if process.wait(0.0) != 0 or not seen:
        raise process.failure("the rank failed")


class Progress(terminal.Progress):
    """How many rounds are there."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds = options.rounds

    def record(self, record: Record) -> None:
        """Show what has come to its end."""
        if record["kind"] == "setup":
            self.update("a round of warm-up ...")
        elif record["kind"] == "others" and record["round"]:
            self.update(f"{record['round']} of {self._rounds} rounds")


def keep(records: Records) -> Records:
    """Rounds of which both blocks are there."""
    counts = Counter(record["round"] for record in of_kind(records, "block"))
    return [record for record in records if record["kind"] not in ("block", "others") or counts[record["round"]] == 2]


def _measured(records: Records) -> list[Record]:
    """Blocks, but for the warm-up's."""
    return [record for record in of_kind(records, "block") if not record.get("warmup")]


def quantities(records: Records) -> list[Quantity]:
    """The time of a step, with and without."""
    found: dict[str, list[float]] = {}
    for record in _measured(records):
        found.setdefault(record["mode"], []).append(record["milliseconds"])
    numbers = (Quantity((mode, "step"), "ms", "lower", tuple(values)) for mode, values in found.items())
    return with_work(numbers, records[0]["options"], WORK)


def summary(records: Records) -> dict[str, Any]:
    """The numbers of the report; empty without a whole round. Between ratio_low and ratio_high is the 95 % interval of
    the median; both are None of fewer than FEWEST rounds."""
    blocks = {
        mode: {r["round"]: r["milliseconds"] for r in _measured(records) if r["mode"] == mode}
        for mode in ("with", "without")
    }
    paired: Paired | None = ratios(blocks["with"], blocks["without"])
    call = next((r["microseconds"] for r in records if r["kind"] == "call"), None)
    if paired is None or call is None:
        return {}
    step = Spread.of(list(blocks["without"].values()))
    others = Others.by_round([record for record in of_kind(records, "others") if not record["warmup"]])
    return {
        "rounds": paired.spread.count,
        "step_ms": step.median,
        "call_us": call,
        "call_share": call / 1000 / step.median,
        "ratio": paired.spread.median,
        "ratio_low": paired.low,
        "ratio_high": paired.high,
        "target": TARGET,
        "below_target": call / 1000 / step.median < TARGET,
        "warmup": any(record.get("warmup") for record in of_kind(records, "block")),
        "threads": next((record["threads"] for record in of_kind(records, "setup")), 1),
        "others_cores": None if others is None else asdict(others),
    }


def as_json(records: Records) -> dict[str, Any]:
    """How the run ended, and the numbers of the report."""
    return {"status": status_of(records), **summary(records)}


def render(records: Records) -> list[str | Figure]:
    """The report."""
    status, found = status_of(records), summary(records)
    parts: list[str | Figure] = ["# The heartbeat of dtk launch", markdown.status(status)]
    if found:
        parts.append(
            f"- One call of the hook takes {found['call_us']:.2f} microseconds, {found['call_share']:.3%} of a step of "
            f"{found['step_ms']:.1f} ms."
        )
        lines = [
            "| | |", "|---|---|",
            markdown.row("a step without the heartbeat", f"{found['step_ms']:.3f} ms"),
            markdown.row("one call of the hook, timed alone", f"{found['call_us']:.2f} us"),
            markdown.row("that is, of such a step", f"{found['call_share']:.4%} (to be below {TARGET:.1%})"),
            markdown.row(
                "a step with / a step without, of the same round",
                f"{found['ratio']:.4f} ({_interval(found, '95 % interval of the median: ')})",
            ),
        ]  # fmt: skip
        parts += ["\n".join(lines), "## How it was measured", _method(found, records[0]["options"])]
        parts += ["## What this does not show", _limits(found)]
    else:
        parts.append(markdown.NOTHING)
    parts += ["## Machine", markdown.machine_table(records[0])]
    return [part for part in parts if part]


def _method(found: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    others = Others(**found["others_cores"]) if found["others_cores"] else None
    return (
        "One process: one rank under `dtk launch`, with steps of forward, backward and AdamW on four linear layers, "
        f"{markdown.count(found['threads'], 'thread')}. "
        f"{'One round of warm-up, which is left out, then' if found['warmup'] else 'Without a round of warm-up:'} "
        f"{markdown.count(found['rounds'], 'round')} of {options['steps']} steps with and {options['steps']} steps "
        "without in turns. A step without has the heartbeat taken out of torch's table of hooks. A ratio is that of "
        "the two medians of a round; given is the median over rounds. The hook alone was called 100,000 times in a "
        f"row. {f'Other programs, the launcher among them, kept {others.words()}.' if others else UNKNOWN}"
    )


def _limits(found: Mapping[str, Any]) -> str:
    lines = [
        "- Other steps: the hook is called once for each step of an optimizer, so its share is smaller of a longer "
        "step, and larger of a shorter one, or where several optimizers make steps.",
        f"- An effect smaller than {_smallest(found)}: only the hook timed alone, whose memory is at hand each "
        "time it is called, tells of that.",
        "- What `dtk launch` does beside the rank (it reads heartbeats and follows the output): it goes on in steps "
        "with and without alike. `dtk bench launch` has its share of a core.",
        "- Several ranks, several nodes, and GPUs: there was one rank, on the CPU.",
    ]
    others = Others(**found["others_cores"]) if found["others_cores"] else None
    if others and others.matter:
        lines.append(
            "- A quiet machine: other programs took a part of the cores, as said above. Steps with and without take "
            "turns, so both are slower alike, and the interval is wider."
        )
    return "\n".join(lines)


def _smallest(found: Mapping[str, Any]) -> str:
    if found["ratio_low"] is None:
        return f"what {markdown.count(found['rounds'], 'round')} can tell (a 95 % interval takes {FEWEST})"
    return "the interval of the ratio"


def show(records: Records) -> None:
    """The result in a line."""
    found = summary(records)
    if not found:
        print(markdown.NOTHING)
        return
    print(f"{found['call_us']:.2f} us a step, {found['call_share']:.4%} of {found['step_ms']:.2f} ms")
    print(f"with / without: {found['ratio']:.4f} ({_interval(found)})")


def _interval(found: Mapping[str, Any], name: str = "") -> str:
    """In words, `name` first; of too few rounds for one, their number."""
    if found["ratio_low"] is None:
        return markdown.count(found["rounds"], "round")
    return f"{name}{found['ratio_low']:.4f} to {found['ratio_high']:.4f}"


BENCHMARK = Benchmark("heartbeat", parse, describe, Progress, measure, render, as_json, show, quantities, keep)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
