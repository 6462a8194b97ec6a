"""`dtk bench advise MODEL|SCRIPT`: which strategy and batch to take, from measured steps, memory and communication.

Files and exit codes: see bench_parts.driver. 1 where something failed and the others were measured; that a candidate
does not fit into memory is an answer, and no failure unless none runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advise_parts import report
from advise_parts.arguments import Options, parse
from advise_parts.candidates import Candidate, candidates, launch_words, script_words, turns
from advise_parts.summary import as_json, candidate_of, fills_memory, quantities, tells_of_memory
from bench_parts import machine
from bench_parts.driver import Benchmark, main
from bench_parts.processes import ProcessFailed
from bench_parts.ranks import running
from bench_parts.records import Record, Records
from bench_parts.terminal import Progress
from dtk_launch.cgroups import memory_limit

_HERE = Path(__file__).resolve().parent


def describe(options: Options) -> Mapping[str, Any]:
    """The first record. The script is named as given; a digest says which one that is."""
    shown = (
        "words", "size", "strategies", "nproc", "device", "gpus", "precision", "batches", "batch_is", "rounds",
        "warmup", "steps", "seconds",
    )  # fmt: skip
    found = machine.describe(options.cores)
    limit = memory_limit()
    if limit is not None and limit / 2**30 < found["memory_gib"]:
        found["memory_limit_gib"] = round(limit / 2**30, 2)
    if not options.size:
        found["script_sha256"] = _digest(Path(options.target))
    return {**found, "options": {"target": options.given, **{name: getattr(options, name) for name in shown}}}


def _digest(script: Path) -> str:
    """The first half of SHA-256 of the script's folder and text: another's of the same name differs."""
    return hashlib.sha256(os.fsencode(script.resolve().parent) + b"\0" + script.read_bytes()).hexdigest()[:32]


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """Every candidate, one after the other; one that fails does not end the others."""
    for strategy, package in () if done else options.left_out:
        add({"kind": "left_out", "strategy": strategy, "why": f"{package} is not installed"})
    there = {(record["round"], candidate_of(record)) for record in done if record["kind"] == "seen"}
    unfit = {candidate_of(record) for record in done if record["kind"] == "failed" and fills_memory(record)}
    lost: dict[str, str] = {}
    """Names of those that failed, and why."""
    todo = list(turns(candidates(options.strategies, options.nproc, options.batches), options.rounds))
    ran = any(record["kind"] == "seen" for record in done)
    for number, (turn, candidate) in enumerate(todo, 1):
        if (turn, candidate) in there or candidate in unfit or candidate.name in lost:
            continue
        say(f"{number} of {len(todo)}: {candidate.name} ...")
        about = {"strategy": candidate.strategy, "nproc": candidate.nproc, "batch": candidate.batch, "round": turn}
        try:
            add({**about, **_seen(options, candidate)})
            ran = True
        except ProcessFailed as error:
            say(f"{candidate.name} failed: {_reason(error)}")
            is_unfit = tells_of_memory(str(error))
            add({**about, "kind": "failed", "why": _reason(error), "out_of_memory": is_unfit})
            if is_unfit:
                unfit.add(candidate)
            else:
                lost[candidate.name] = _reason(error)
        if not ran and len(lost) > 1 and len(set(lost.values())) == 1:
            names, why = " and ".join(lost), next(iter(lost.values()))
            raise ProcessFailed(
                f"{names} failed alike: {why}; that is the script's own, so nothing else was tried; the logs of the "
                f"last are in {options.out / 'failed'}"
            )
    if not ran:
        raise ProcessFailed(f"nothing that was tried runs; the logs of the last are in {options.out / 'failed'}")
    if lost:
        tried = len({candidate for _, candidate in todo})
        names = "; ".join(lost)
        raise ProcessFailed(f"{len(lost)} of {tried} failed: {names}; the others were measured", failed=names)


def _seen(options: Options, candidate: Candidate) -> dict[str, Any]:
    keep, threads = options.out / "failed", options.threads(candidate.nproc)

    def command(run_dir: Path) -> Sequence[str]:
        words = ["--run-dir", str(run_dir), *launch_words(candidate, options.device, options.precision)]
        probe = [f"--{name}={getattr(options, name)}" for name in ("warmup", "steps", "seconds")]
        return [sys.executable, "-m", "dtk_launch", "launch", *words, str(_HERE / "_advise_rank.py"), *probe,
                *script(options, candidate)]  # fmt: skip

    with running(command, threads, keep, cwd=Path.cwd()) as records:
        seen = [record for record in records if record["kind"] == "seen"]
    if not seen:
        raise ProcessFailed("the script ended its process before enough steps were seen, as os._exit(0) does")
    return seen[0]


def script(options: Options, candidate: Candidate) -> list[str]:
    """The script and its arguments."""
    if options.size:
        return [
            str(_HERE / "_advise_model.py"),
            options.target,
            "--size",
            options.size,
            "--batch",
            str(candidate.batch),
        ]
    return [options.target, *script_words(options.words, candidate.batch)]


_SILENT = ", and no optimizer step was seen in it: neither what comes before the first nor any other may take longer"


def _reason(error: ProcessFailed) -> str:
    """That nothing was heard, else the exception among the last words, else the verdict's line, else the last."""
    if silent := re.match(r"the ranks reported nothing [^.]*|the ranks were not ready [^.]*", str(error)):
        return silent[0] + (_SILENT if "reported" in silent[0] else "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"\w(Error|Exception|Exit|Interrupt): |the script made ", line)]
    verdict = [line for line in lines if line.startswith("dtk: rank")]
    return (named or verdict or lines)[-1][:300]


BENCHMARK = Benchmark(
    "advise", parse, describe, lambda options: Progress(), measure, report.render, as_json, report.show, quantities
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
