"""A run directory read back: whether the run lives, what each rank does, how far it has come."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtk_launch import nodes
from dtk_launch.diagnose.evidence import PREEMPTED, signal_name
from dtk_launch.pace import late, present_rate, slow
from dtk_launch.run_steps import Goal, last_checkpoint, last_metrics, read_goal

_SILENT_HERE = 6.0  # seconds without an entry (one comes every two) after which a dtk of this host is looked for
_SILENT = 90.0  # and after which one elsewhere counts as gone: NFS shows a file as it was up to a minute ago


@dataclass(frozen=True)
class RankView:
    """One rank. `state` is starting, running, ended, killed or lost (with its node); None stands for what is not known.

    `rate` is in steps a second; `beat_age` in seconds, of the last optimizer step; `cpu` percent of a core; `slower`
    how many steps the median rank makes while this one makes one, where that marks it as a straggler.
    """

    rank: int
    host: str
    state: str
    code: int | None = None
    pid: int | None = None
    steps: int | None = None
    rate: float | None = None
    beat_age: float | None = None
    late: bool = False
    slower: float | None = None
    rss: int | None = None
    cpu: float | None = None
    gpu: int | None = None


@dataclass(frozen=True)
class RunView:
    """A run's last launch. `state`: starting, running, dead (no recorded end), ended, failed, stopped or preempted.

    `why` says it in words where that is more than the state. `step` and `metric` are those of the last line of
    metrics.jsonl, `logging` whether this launch wrote it; `seconds` from the start to now, or to the end. `until` is
    the last step that it is to make, and `eta` the seconds from now to that, while it runs.
    """

    name: str
    folder: Path
    state: str
    why: str
    code: int | None
    hosts: tuple[str, ...]
    nodes: int
    nproc: int
    restarts: int
    started: float | None
    seconds: float | None
    step: int | None
    metric: tuple[str, float] | None
    logging: bool
    checkpoint: int | None
    ranks: tuple[RankView, ...]
    until: int | None = None
    eta: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether it runs, and hangs."""
        return self.state == "running" and self.why != ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of this launch."""
        return self.state not in ("starting", "running")


def read_run(folder: Path) -> RunView:
    """What the run directory says now."""
    plan, verdict = _read_json(folder / "plan.json"), _read_json(folder / "verdict.json")
    topology = plan.get("topology", {})
    entries = _entries(folder)
    state, why, code = _state(entries, verdict)
    step, logged, metric = last_metrics(folder / "metrics.jsonl")
    starts = [entry.values["started_ns"] for entry in entries if "started_ns" in entry.values]
    ends = [entry.said + entry.silence * (state == "running") for entry in entries]
    started = min(starts) / 1e9 if starts else None
    nproc, most = int(topology.get("nproc", 0)), int(topology.get("nodes", max(1, len(entries))))
    elastic = 0 < int(topology.get("min_nodes", 0)) < most
    expected = nproc * most if state in ("starting", "running") and not elastic else 0
    ranks = _ranks(entries, expected, state)
    logging = started is not None and logged >= started
    goal = read_goal(folder)
    if goal is not None and (started is None or goal.time < started):  # of an earlier launch
        goal = None
    return RunView(
        name=str(plan.get("name", folder.name)),
        folder=folder,
        state=state,
        why=why,
        code=code,
        hosts=tuple(dict.fromkeys(str(entry.values.get("host", "?")) for entry in entries)),
        nodes=most,
        nproc=nproc,
        restarts=max((int(entry.values.get("restart", 0)) for entry in entries), default=0),
        started=started,
        seconds=max(0.0, max(ends) - started) if started is not None else None,
        step=step,
        metric=metric,
        logging=logging,
        checkpoint=last_checkpoint(folder),
        ranks=ranks,
        until=goal.until if goal is not None else None,
        eta=_eta(goal, (step, logged) if logging else None, ranks) if state == "running" else None,
    )


def _eta(goal: Goal | None, logged: tuple[int | None, float] | None, ranks: tuple[RankView, ...]) -> float | None:
    """Seconds to the end by the last logged step, else by the optimizer's steps since the start."""
    now = time.time()
    if goal is None:
        return None
    if logged is not None and logged[0] is not None and logged[0] > goal.begin:
        return goal.seconds_left(logged[0], logged[1], now)
    beats = [(rank.steps, now - (rank.beat_age or 0.0)) for rank in ranks if rank.steps]
    steps, when = max(beats, default=(0, now))
    return goal.seconds_left(goal.begin + steps, when, now)


@dataclass(frozen=True)
class _Entry:
    """A node's entry. `said` is when it was written by its own clock, `silence` how long ago by the file's."""

    values: Mapping[str, Any]
    said: float
    silence: float

    @property
    def running(self) -> bool:
        """Whether it says that its ranks run; `gone` may hold all the same."""
        return self.values.get("state") == "running"

    @property
    def gone(self) -> bool:
        """Whether the dtk that wrote it has gone without a word."""
        pid = self.values.get("pid")
        here = self.values.get("host") == socket.gethostname() and isinstance(pid, int)
        if here and self.silence > _SILENT_HERE and not _exists(pid):
            return True
        return self.silence > _SILENT


def _entries(folder: Path) -> list[_Entry]:
    """The entries of the last launch, by node."""
    found = []
    for node, values in sorted(nodes.entries(folder).items(), key=lambda item: (len(item[0]), item[0])):
        with contextlib.suppress(OSError, TypeError):
            silence = time.time() - (folder / "nodes" / f"{node}.json").stat().st_mtime
            found.append(_Entry(values, values.get("time_ns", 0) / 1e9, max(0.0, silence)))
    newest = min(found, key=lambda entry: entry.silence, default=None)
    return [entry for entry in found if newest and entry.values.get("launch") == newest.values.get("launch")]


def _state(entries: list[_Entry], verdict: Mapping[str, Any]) -> tuple[str, str, int | None]:
    """(state, why, exit code) of a run."""
    running = [entry for entry in entries if entry.running]
    if any(not entry.gone for entry in running):
        stuck = next((entry.values["hang"] for entry in running if entry.values.get("hang")), "")
        return "running", f"hang: {stuck}" if stuck else "", None
    if running and len(running) == len(entries):
        last = min(running, key=lambda entry: entry.silence)
        return "dead", f"no end was recorded; its dtk on {last.values.get('host')} has gone", None
    code = verdict.get("exit_code")
    if code is None:
        code = max((int(entry.values.get("exit_code") or 0) for entry in entries), default=None)
    if code is None:
        return "starting", "", None
    culprit = verdict.get("culprit") or {}
    why = f"rank {culprit['rank']}: {culprit['how']}" if culprit.keys() >= {"rank", "how"} else ""
    if code > 128 and not culprit:
        return "stopped", f"by {signal_name(code - 128)}", code
    hang = verdict.get("hang") or {}
    if not culprit and hang.get("summary"):
        why = f"hang: {hang['summary']}"
    state = {0: "ended", PREEMPTED: "preempted"}.get(code, "failed")
    return state, why if state == "failed" else "", code


def _ranks(entries: list[_Entry], expected: int, state: str) -> tuple[RankView, ...]:
    """The rows of all nodes. One that says nothing while others do, or did to the end, is lost."""
    rows: dict[int, RankView] = {rank: RankView(rank, "", "starting") for rank in range(expected)}
    for entry in sorted(entries, key=lambda entry: entry.said):  # a rank of a lost node may be another node's by now
        lost = entry.running and state != "dead" and (entry.gone or state != "running")
        for row in entry.values.get("ranks", ()):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                rows[int(row["rank"])] = _lost(row, entry) if lost else _rank(row, entry, state == "running")
    slower = slow({rank: row.rate for rank, row in rows.items()})
    return tuple(
        RankView(**{**vars(rows[rank]), "slower": slower.get(rank)}) if rank in slower else rows[rank]
        for rank in sorted(rows)
    )


def _lost(row: Mapping[str, Any], entry: _Entry) -> RankView:
    since = entry.said - row["beat_ns"] / 1e9 + entry.silence if "beat_ns" in row else None
    host = str(entry.values.get("host", "?")).partition(".")[0]
    return RankView(int(row["rank"]), host, "lost", steps=row.get("steps"), beat_age=since)


def _rank(row: Mapping[str, Any], entry: _Entry, alive: bool) -> RankView:
    """A rank of a node. Slow and late are judged by the node's own clock, as of when it wrote the entry."""
    running = row["state"] == "running" and alive
    since = entry.said - row["beat_ns"] / 1e9 if "beat_ns" in row else None
    rate = row.get("rate")
    return RankView(
        rank=int(row["rank"]),
        host=str(entry.values.get("host", "?")).partition(".")[0],
        state=str(row["state"]),
        code=row.get("code"),
        pid=row.get("pid"),
        steps=row.get("steps"),
        rate=present_rate(rate, since) if running else rate,
        beat_age=None if since is None else max(0.0, since) + entry.silence,
        late=running and late(rate, since),
        rss=row.get("rss"),
        cpu=row.get("cpu"),
        gpu=row.get("gpu"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError:
        return {}
    return _parsed(path, status.st_mtime_ns, status.st_ino, status.st_size)


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, *version: int) -> dict[str, Any]:
    """A file in one version of it: plan.json can have megabytes of a diff. Not to be changed by the caller."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _exists(pid: Any) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, OverflowError):
        return True
    return True
