"""Records -> measurements and the advice. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from shlex import join
from statistics import median
from typing import Any

from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import Spread, status_of
from bench_parts.work import Work, with_work
from throughput_parts.fitting import is_out_of_memory

from .advice import Advice, advise
from .candidates import Candidate, candidates, launch_words, script_words
from .measured import Measured

WORK = tuple(map(Work, ("target", "words", "size", "device", "precision", "batch_is")))


def candidate_of(record: Record) -> Candidate:
    """Of a record of kind `seen` or `failed`."""
    return Candidate(record["strategy"], record["nproc"], record["batch"])


def measured(records: Records) -> list[Measured]:
    """All that was tried, in turn."""
    machine = records[0]
    found: dict[Candidate, list[Record]] = {}
    for record in records:
        if record["kind"] in ("seen", "failed"):
            found.setdefault(candidate_of(record), []).append(record)
    seen = [record for record in records if record["kind"] == "seen"]
    weights = max((record["weights"] for record in seen), default=0)  # a rank of ZeRO holds a part
    return [_measured(candidate, starts, machine, weights) for candidate, starts in found.items()]


def _measured(candidate: Candidate, starts: Sequence[Record], machine: Record, weights: int) -> Measured:
    last = starts[-1]
    if last["kind"] == "failed":  # those before were tried again with --resume
        return Measured(candidate, None, None, None, None, weights, None, last["why"], fills_memory(last))
    starts = [each for each in starts if each["kind"] == "seen"]
    per_rank = machine["options"]["batch_is"] == "rank"
    samples = None if candidate.batch is None else float(candidate.batch * (candidate.nproc if per_rank else 1))
    summed = [each["all_reduce"] for each in starts if each["all_reduce"] is not None]
    return Measured(
        candidate=candidate,
        seconds=Spread.of([seconds for each in starts for seconds in each["seconds"]]),
        samples=samples,
        memory=max(each["gpu"] or each["rss"] for each in starts),
        room=starts[0]["gpu_total"] or int(memory_gib(machine) * 2**30 / candidate.nproc),
        weights=weights,
        all_reduce=median(each["seconds"] * max(1.0, 4 * weights / each["bytes"]) for each in summed)
        if summed
        else None,
        ranks=min(each["ranks"] for each in starts),
        on_gpu=all(each["gpu"] for each in starts),
    )


def memory_gib(machine: Record) -> float:
    """GiB that all ranks could have: of the machine, or of the control group that was tighter, as that of a job."""
    found: float = machine.get("memory_limit_gib", machine["memory_gib"])
    return found


def fills_memory(failed: Record) -> bool:
    """Whether a start failed as it does not fit into the memory."""
    return bool(failed.get("out_of_memory", tells_of_memory(failed["why"])))


def tells_of_memory(output: str) -> bool:
    """Whether what a start said at its end is that torch found no memory, or that the kernel's killer was at work."""
    return is_out_of_memory(output)


def follows(records: Records) -> bool:
    """Whether the script takes its strategy from `--strategy`, as far as what it imports and which ranks met tell."""
    return all(r["follows"] and r["ranks"] >= r["nproc"] for r in records if r["kind"] == "seen")


def conclude(records: Records) -> Advice:
    """The advice."""
    found = measured(records)
    return advise(found, follows(records), busy(records), len(_asked(records) - {each.candidate for each in found}))


def _asked(records: Records) -> set[Candidate]:
    """What was to be measured."""
    options = records[0]["options"]
    return set(candidates(options["strategies"], options["nproc"], options["batches"]))


def busy(records: Records) -> float:
    """Cores that other programs used, the median over starts; 0 where it could not be seen."""
    seen = [r["others"] for r in records if r["kind"] == "seen" and r["others"] is not None]
    return median(seen) if seen else 0.0


def command(records: Records, best: Measured) -> str:
    """The `dtk launch` line to take, quoted for a shell; of a model, the options alone."""
    options = records[0]["options"]
    device = "cpu" if options["device"] == "cpu" else "auto"
    words = launch_words(best.candidate, device, options["precision"], follows(records))
    script = [] if options["size"] else [options["target"], *script_words(options["words"], best.candidate.batch)]
    return join(["dtk", "launch", *words, *script])


def as_json(records: Records) -> dict[str, Any]:
    """All as plain values. The best has no strategy where the script follows none."""
    found = conclude(records)
    unnamed = {} if follows(records) else {"strategy": None}
    return {
        "status": status_of(records),
        "failed": {each.candidate.name: each.failed for each in measured(records) if each.failed},
        "best": None if found.best is None else asdict(found.best.candidate) | unnamed,
        "command": None if found.best is None else command(records, found.best),
        "reasons": [reason.replace("**", "") for reason in (*found.lost, *found.reasons)],
        "measured": [asdict(each) | {"rate": each.rate, "fits": each.fits} for each in measured(records)],
    }


def quantities(records: Records) -> list[Quantity]:
    """The time of a step of each candidate."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["kind"] == "seen":
            found.setdefault(candidate_of(record).name, []).extend(record["seconds"])
    numbers = (Quantity((name, "step"), "s", "lower", tuple(seconds)) for name, seconds in found.items())
    return with_work(numbers, records[0]["options"], WORK)
