"""What a run gives beside its report: failures, the largest batches, numbers to compare and plain values. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import status_of
from bench_parts.work import Name, Work, with_work

from .cases import label
from .steptimes import middle_and_slow
from .summary import key_of, summarise


def _shares(nproc: Any) -> Any:
    """Into how many the machine is dealt out; older results have one number in the place of several."""
    return max(nproc) if isinstance(nproc, list | tuple) else nproc


def _of_several(name: Name) -> bool:
    """Whether it is of more than one share."""
    return not name[3].endswith(" x1")


WORK = (
    Work("size", counts=lambda size: size or "small"),
    Work("device"),
    Work("nproc", counts=_shares),
    Work("scaling", of=_of_several, counts=lambda scaling: scaling or "strong"),
)
"""A batch of one share is the same with weak and strong scaling. Older results have no size and no scaling."""


def failures(records: Records) -> dict[str, str]:
    """Mode, in words -> why it failed, of those that were not started again and measured since."""
    found: dict[str, str] = {}
    for r in records:
        if r["kind"] in ("failed", "setup"):
            name = f"{label(*key_of(r))} on {r['model']} ({r['precision']}, batch {r['batch']})"
            found.pop(name, None)
            if r["kind"] == "failed":
                found[name] = r["why"]
    return found


def fits(records: Records) -> list[Record]:
    """The largest batches that were looked for."""
    return [r for r in records if r["kind"] == "fit"]


def quantities(records: Records) -> list[Quantity]:
    """Of each mode, by round: samples/s, the median step, the slow one of blocks with enough steps; its peak memory.

    The report's step times are of the steps of all rounds together; by round they have another median, and a noise.
    What a block says of memory is the most until then, so that blocks are not independent: only the largest counts.
    """
    found: dict[tuple[tuple[str, ...], str, str], list[float]] = {}
    for r in records:
        if r["kind"] != "block" or r["warmup"]:
            continue
        name = (r["model"], r["precision"], f"batch {r['batch']}", label(*key_of(r)))
        middle, slow = middle_and_slow([r["step_ms"]])
        of = (
            ("samples/s", "samples/s", r["samples_per_s"]), ("step p50 by round", "ms", middle),
            *((("step p95 by round", "ms", slow),) if slow is not None else ()),
            ("peak RSS of all processes", "MiB", r["rss_mib"]["sum"]),
            *((("peak GPU memory", "MiB", r["gpu_reserved_mib"]),) if "gpu_reserved_mib" in r else ()),
        )  # fmt: skip
        for what, unit, value in of:
            found.setdefault(((*name, what), unit, "higher" if unit == "samples/s" else "lower"), []).append(value)
    numbers = (
        Quantity(name, unit, better, (max(values),) if unit == "MiB" else tuple(values), once=unit == "MiB")  # type: ignore[arg-type]
        for (name, unit, better), values in found.items()
    )
    return with_work(numbers, records[0]["options"], WORK)


def as_json(records: Records) -> dict[str, Any]:
    """The summary as plain values, with the status of the run."""
    return {
        "status": status_of(records),
        "workloads": [asdict(work) for work in summarise(records)],
        "largest_batches": [dict(fit) for fit in fits(records)],
        "failed": failures(records),
    }
