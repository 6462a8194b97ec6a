"""A second of all-reduce over all ranks: is it right, how fast is it, which interface does it take, who is missing?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtk_launch.doctor.findings import Finding, some
from dtk_launch.doctor.interfaces import of_address
from dtk_launch.doctor.network import Network
from dtk_launch.doctor.rank import MARK
from dtk_launch.tables import size

CHECK = "all-reduce"
RUN = "run"
"""The run directory of the launch, in the folder of the examination."""
_END = 10.0  # seconds for srun to end its step
_TAIL = 400  # characters of what was said last
_LOG_LINES, _LOG_LINE = 3, 200  # lines of torchrun's log, and characters of each
_STAMP = re.compile(r"^\[?[IWEF]\d{4} [\d:.]+ ")
_REFUSED = "dtk: error: "
_POINTER = "dtk: torchrun's own words: "  # to a log that is removed with the folder
_STAGES = (
    ("started", "started"),
    ("ready", "loaded torch"),
    ("joined", "joined the others"),
    ("reduced", "come out of the all-reduce"),
    ("done", "ended"),
)


@dataclass(frozen=True)
class Said:
    """What the ranks have said, and how it ended: exit code, None where the time was up."""

    lines: tuple[Mapping[str, Any], ...] = ()
    code: int | None = 0
    tail: str = ""
    """The last words on stderr."""
    patience: float = field(default=0.0, compare=False)
    log: tuple[str, ...] = ()
    """The last lines of torchrun's log, where it did not end well."""


def run(command: Sequence[str], folder: Path, environ: Mapping[str, str], patience: float, over_nodes: bool) -> Said:
    """Run the launch in `folder`; it is ended after `patience` seconds, with all its ranks."""
    try:
        child = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Said(code=1, tail=f"{command[0]} cannot be started: {error.strerror}", patience=patience)
    code: int | None
    try:
        out, err = child.communicate(timeout=patience)
        code = child.returncode
    except subprocess.TimeoutExpired:
        code = None
        _end(child, over_nodes)
        out, err = child.communicate()
    except BaseException:
        _end(child, over_nodes)
        child.communicate()
        raise
    log = _last_lines(folder / RUN) if code != 0 else ()
    return Said(tuple(read(out)), code, last_words(err if code is not None else _without_srun(err)), patience, log)


def _last_lines(run_dir: Path) -> tuple[str, ...]:
    """Of the log of the first node that has one with words."""
    for path in sorted(run_dir.glob("launcher*.log"), key=lambda path: len(path.name)):
        lines: Iterable[str] = ()
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        told = dict.fromkeys(_STAMP.sub("", line).strip()[:_LOG_LINE] for line in lines if line.strip())
        if told:
            return tuple(told)[-_LOG_LINES:]
    return ()


def _end(child: subprocess.Popen[str], over_nodes: bool) -> None:
    """srun ends its step on SIGTERM; of a killed dtk the kernel ends the ranks."""
    if over_nodes:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def read(text: str) -> Iterator[Mapping[str, Any]]:
    """The lines of rank.py in what a launch has printed."""
    for line in text.splitlines():
        _, mark, rest = line.partition(MARK)
        with contextlib.suppress(ValueError):
            if mark and isinstance(values := json.loads(rest), dict):
                yield values


def _without_srun(text: str) -> str:
    """Without what srun says of the tasks that were ended here."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("srun:"))


def last_words(text: str) -> str:
    """Of what was written to stderr the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_POINTER)]
    told = [line for line in lines if "error" in line.lower()] or lines
    return told[-1][-_TAIL:] if told else ""


def tells_nothing_of_torch(said: Said) -> bool:
    """Whether it failed, and torch has to be asked whether that is why: no rank has told, nor has dtk refused it."""
    told = any(line["stage"] == "torch" for line in said.lines)
    return said.code != 0 and not told and not said.tail.startswith(_REFUSED)


def judge(said: Said, nodes: Sequence[str], nproc: int, networks: Mapping[str, Network]) -> Iterator[Finding]:
    """`nodes`: the host names of the nodes, of which each has `nproc` ranks; `networks`: by host name."""
    results = [line for line in said.lines if line["stage"] == "result"]
    for result in results:
        yield _judge_result(result, said, networks)
    if said.code != 0:
        yield _judge_failure(said, nodes, nproc)
    elif not results:
        yield Finding(
            CHECK,
            "problem",
            "no rank told a result",
            "the launch ended, and nothing shows that it worked",
            "try dtk launch with your own script",
        )


def _judge_result(result: Mapping[str, Any], said: Said, networks: Mapping[str, Network]) -> Finding:
    backend, ranks = result["backend"], result["ranks"]
    way = "; ".join(_ways(said, backend, networks))
    if not result["right"]:
        return Finding(
            CHECK, "problem", f"{backend} over {ranks} ranks gives a wrong sum ({way})",
            "training would go on with wrong gradients",
            "look for ECC errors of a GPU or of memory (nvidia-smi -q -d ECC, dmesg); try with NCCL_P2P_DISABLE=1",
        )  # fmt: skip
    rate = result["size"] / result["seconds"] / 1e9
    large = f"{size(result['size'])} in {duration(result['seconds'])} ({rate:.2f} GB/s)"
    speed = f"{large}, 8 bytes in {duration(result['latency'])}"
    return Finding(
        CHECK, "ok", f"{backend}{f' by {way}' if way else ''}, {ranks} rank{'s' * (ranks > 1)}: right, {speed}"
    )


def _ways(said: Said, backend: str, networks: Mapping[str, Network]) -> list[str]:
    """The interfaces, or NCCL's ways, that the ranks of `backend` took."""
    found = []
    for line in said.lines:
        if line["stage"] == "way" and line["backend"] == backend:
            for word in line["words"]:
                network = networks.get(line["host"])
                name = of_address(network.interfaces, word) if network is not None and backend == "gloo" else ""
                found.append(name or word)
    return list(dict.fromkeys(found))


def duration(seconds: float) -> str:
    """`1.2 s`, `3.4 ms`, `56 us`."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _judge_failure(said: Said, nodes: Sequence[str], nproc: int) -> Finding:
    started = {line["rank"]: line["host"] for line in said.lines if line["stage"] == "started"}
    failed = [line for line in said.lines if line["stage"] == "failed"]
    how = f"was not over after {said.patience:g} s" if said.code is None else f"failed (exit code {said.code})"
    absent = [node for node in nodes if node not in started.values()] if started else []
    nobody = f"no rank of {some(absent)} has started"
    if failed:
        first = failed[0]
        what = f"rank {first['rank']} on {first['host']} failed in {first['doing']}: {first['error']}"
        late = nobody if absent else _stuck(said, started, len(nodes) * nproc, _STAGES[:2])
        what += f"; {late}" if late else ""
    elif absent:
        what = nobody + _torchrun_words(said)
    elif not started:
        what = "no rank has started" + (f": {said.tail}" if said.tail else "") + _torchrun_words(said)
    else:
        what = _stuck(said, started, len(nodes) * nproc) or said.tail
    if not started and said.tail.startswith(_REFUSED):
        fix = "what dtk says there, and then dtk doctor once more"
    else:
        fix = (
            "mend what is named above, if anything is; else try with TORCH_DISTRIBUTED_DEBUG=DETAIL and "
            "NCCL_DEBUG=INFO, or a longer --timeout"
        )
    what = f"the all-reduce over {len(nodes) * nproc} ranks {how}: {what}"
    return Finding(CHECK, "problem", what, "a training run would stop in the same place", fix)


def _torchrun_words(said: Said) -> str:
    """What its log says that has not been told."""
    return f"; torchrun's last words: {' | '.join(said.log)}" if said.log and said.tail not in said.log else ""


def _stuck(said: Said, started: Mapping[int, str], ranks: int, stages: Sequence[tuple[str, str]] = _STAGES) -> str:
    """Who has not come where others are, or where all of them wait."""
    for stage, doing in stages:
        there = {line["rank"] for line in said.lines if line["stage"] == stage}
        missing = [rank for rank in range(ranks) if rank not in there]
        if missing:
            names = some([f"{rank}{f' on {started[rank]}' if rank in started else ''}" for rank in missing])
            return f"rank{'s' * (len(missing) > 1)} {names} {'have' if len(missing) > 1 else 'has'} not {doing}"
    return ""
