"""The sentences of the report of `dtk bench launch`: how it was measured, and what it does not show. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bench_parts.markdown import count
from bench_parts.others import UNKNOWN, Others, threads_in_words
from bench_parts.records import Records

from . import answers, idle, starts

_FEW = 10  # rounds, below which a median says little
_PARTS = {"start": "the starts", "answer": "the answers", "idle": "the runs"}
_BASELINES = {"start": starts.BASELINE, "answer": answers.BASELINE}


def method(records: Records) -> str:
    """How it was measured."""
    return " ".join(_method(records))


def _method(records: Records) -> Iterator[str]:
    rounds = rounds_of(records)
    turns = [f"{count(rounds[kind], 'round')} of {_PARTS[kind]}" for kind in ("start", "answer") if rounds[kind]]
    if turns:
        yield (
            f"{' and '.join(turns)}, each after one round of warm-up that is left out: it brings the files into the "
            "system's memory. A round runs every command once, one after the other, in an order that turns from round "
            "to round. Ratios are of the same round; given are medians and, in brackets, quartiles over the rounds."
        )
    if rounds["start"]:
        yield (
            "The clock of a start runs from before the command is started: to the first line of the script on the last "
            "rank to come to it, by the clock that all processes share, and to the end of the command."
        )
    if rounds["idle"]:
        yield (
            f"While it runs: for each kind of ranks one run, looked at {count(rounds['idle'], 'time')} for "
            f"{idle.SECONDS:g} s, the first {idle.SETTLE:g} s after all ranks had come up (a run that is under way "
            "needs no round of warm-up). Shares are CPU time as the system counts it for the two processes, in ticks "
            f"of 10 ms: {0.01 / idle.SECONDS:.2%} of a core."
        )
    many = f"dtk launch --nproc {idle.RANKS}"
    kinds = [kind for kind in ("start", "idle") if rounds[kind]]
    ranks = [{"command": many, **record} for record in records if record["kind"] in kinds]
    if threads := threads_in_words(ranks):
        yield f"OMP_NUM_THREADS of the ranks: {threads}; their scripts compute nothing."
    yield _others_in_words(records)


def limits(records: Records) -> str:
    """What is not to be concluded."""
    rounds = rounds_of(records)
    lines = []
    if rounds["start"]:
        lines.append(
            "- A training script: the scripts here import nothing but a little of Python. Importing torch and forming "
            "a process group come on top of these times, whoever starts the ranks."
        )
    if rounds["start"] or rounds["answer"]:
        lines.append(
            "- A first start: the files were in the system's memory. From a cold disk, or a file system that is far "
            "away, every command takes longer."
        )
    ranks = {"start": f"{starts.RANKS} ranks for the starts", "idle": f"{idle.RANKS} ranks for the shares of a core"}
    if started := [words for kind, words in ranks.items() if rounds[kind]]:
        lines.append(f"- Many ranks, or several nodes: there were {' and '.join(started)}, on one node.")
    lines.append(
        "- The speed of training under the launcher, and its memory: see `dtk bench heartbeat` for what a step takes."
    )
    if any(found.matter for found in _others(records).values()):
        lines.append(
            "- A quiet machine: other programs took a part of the cores, as said above. They make all times longer, "
            "and a start that they met looks worse than the others of its round."
        )
    few = [_rounds_in_words(kind, number) for kind, number in rounds.items() if 0 < number < _FEW]
    if few:
        lines.append(
            f"- A reliable spread: quartiles of fewer than {_FEW} rounds are rough, and there were only "
            f"{', '.join(few)}."
        )
    return "\n".join(lines)


def rounds_of(records: Records) -> dict[str, int]:
    """Kind -> rounds that tables can show: of starts and answers, those that have the one with which others are
    compared; of looks, those of the kind of ranks with the fewest.
    """
    found = {
        kind: len({r["round"] for r in records if r["kind"] == kind and r["command"] == baseline})
        for kind, baseline in _BASELINES.items()
    }
    looks = Counter(record["ranks"] for record in records if record["kind"] == "idle")
    return {**found, "idle": min(looks.values(), default=0)}


def _rounds_in_words(kind: str, number: int) -> str:
    if kind == "idle":
        return f'{count(number, "look")} at each run ("While it runs")'
    return f"{count(number, 'round')} of {_PARTS[kind]}"


def _others(records: Records) -> dict[str, Others]:
    """Of each part of which it was seen."""
    found = {
        part: Others.by_round([r for r in records if r["kind"] == "others" and r["part"] == part])
        for part in ("starts", "answers")
    }
    looks = [r for r in records if r["kind"] == "idle" and r.get("others_cpu_seconds") is not None]
    found["runs"] = Others.of(
        {f"{r['ranks']}, round {r['round']}": r["others_cpu_seconds"] / r["seconds"] for r in looks}
    )
    return {part: others for part, others in found.items() if others is not None}


def _others_in_words(records: Records) -> str:
    found = _others(records)
    if not found:
        return UNKNOWN
    return (
        f"Other programs kept, {'; '.join(f'during the {part}, {others.words()}' for part, others in found.items())}."
    )
