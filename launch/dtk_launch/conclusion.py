"""The end of a launch: gather what is known of each rank, on all nodes, decide, write verdict.json and say it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dtk_launch import nodes, wholefile
from dtk_launch.diagnose.culprit import judge, lost_connection
from dtk_launch.diagnose.evidence import PREEMPTED, Observed, RankEnd, end_of, exit_codes, tail, told_to_end
from dtk_launch.diagnose.unrecorded import unrecorded_ends
from dtk_launch.diagnose.words import rank_name, unwritten_words, verdict_json, verdict_lines
from dtk_launch.oom import OomWatch
from dtk_launch.outcome import HUNG, LOST, Ending, Outcome, decide, failed_elsewhere
from dtk_launch.plan import LaunchPlan
from dtk_launch.rank_files import RankRecord
from dtk_launch.ranklist import parse_ranks
from dtk_launch.ranks import RankWatch
from dtk_launch.rundir import lack_of_room, launcher_log, make_room

_LOADER = re.compile(r"DataLoader worker \(pid(?:\(s\))? (\d+)")  # that has died
_LAST_LINES = 20  # of a culprit whose output was not shown (--quiet-ranks)


def conclude(
    plan: LaunchPlan,
    watch: RankWatch,
    words: str,
    ending: Ending,
    oom: OomWatch,
    as_json: bool,
    hurry: Callable[[], bool],
    status: Mapping[str, Any],
) -> int:
    """Say how the run ended and return its exit code.

    `words` is what torchrun has written. `hurry` says whether somebody does not want to wait for what the other nodes
    saw, `status` what the node's entry (nodes.py) says of its ranks.
    """
    lacking = lack_of_room(plan.run_dir)
    make_room(plan)
    gathered = _Ends(plan, watch, words, oom, ending.code)
    outcome, ends = _decide(plan, watch, gathered, ending, hurry, status)
    unwritten = next((end.unwritten for end in ends if end.unwritten), "") or lacking
    failure = _write_verdict(plan, outcome, ends, gathered, ending.hang, unwritten)
    unshown = "" if watch.records or ending.signalled is not None else words
    _report(plan, outcome, unshown, ending.signalled is not None, failure or unwritten, not failure)
    if as_json:
        print(json.dumps(_result(plan, watch, outcome)))
    oom.close()
    return outcome.code


class _Ends:
    """How the ranks of this node ended, of the last attempt and of those before it."""

    def __init__(self, plan: LaunchPlan, watch: RankWatch, words: str, oom: OomWatch, torchrun_code: int) -> None:
        self._torchrun_code = torchrun_code
        self._codes, self._told = exit_codes(words), told_to_end(words)
        self._watch, self._oom = watch, oom
        self._folder, self._node = plan.run_dir / "ranks", plan.topology.node
        self._now_ns = time.time_ns()
        self.last = self._of(watch.records)
        if watch.records and torchrun_code != 0:
            where = (self._node, socket.gethostname(), self._now_ns)
            one_node = plan.topology.nodes == 1
            self.last += unrecorded_ends(watch.records, plan.topology.nproc, words, one_node, where)
        self.earlier = [self._of(records) for records in watch.earlier]

    def _of(self, records: Mapping[int, RankRecord]) -> list[RankEnd]:
        found = (self._end(record) for record in records.values())
        return [end for end in found if end is not None]

    def _end(self, record: RankRecord) -> RankEnd | None:
        reported = self._codes.get(record.pid)
        loader = _LOADER.search(record.exit.message) if record.exit is not None else None
        seen = self._watch.codes.get(record.pid)
        if seen == -9 and self._torchrun_code < 0:  # it died with torchrun
            seen = None
        pid = record.pid if -9 in (reported, seen) else int(loader[1]) if loader else None
        observed = Observed(
            reported=reported,
            seen=seen,
            told=record.pid in self._told,
            died_ns=self._watch.ended.get(record.pid),
            failing_ns=self._watch.failing_ns(record.pid),
            words=tail(self._folder, record.rank, "err", record.started_ns),
            fault=self._watch.fault_of(record),
            note=self._oom.verdict(pid) if pid is not None else "",
        )
        return end_of(record, self._node, self._now_ns, observed)


def _decide(
    plan: LaunchPlan,
    watch: RankWatch,
    gathered: _Ends,
    ending: Ending,
    hurry: Callable[[], bool],
    status: Mapping[str, Any],
) -> tuple[Outcome, list[RankEnd]]:
    """The outcome from what all nodes know, and the ends that it rests on."""
    topology = plan.topology
    own, launch = gathered.last, nodes.launch_id(plan)
    stopped = ending.hang is not None and ending.hang["action"] == "stop"
    outcome = decide(ending.code, ending.signalled, own, len(watch.records), stopped, ending.early, ending.lost)
    facts = {"host": socket.gethostname(), **status, "state": "ended", "ends": nodes.ends_to_json(own)}
    facts["signalled"] = ending.signalled
    nodes.publish(plan.run_dir, topology.node, launch, exit_code=outcome.code, **facts)
    if outcome.code != 0 and topology.nodes > 1:
        nodes.publish_failure(plan.run_dir, topology.node, launch)
    if topology.nodes == 1 or outcome.code in (PREEMPTED, LOST) or (outcome.code == 0 and not ending.others_failed):
        return outcome, own
    if outcome.code == HUNG and ending.hang is not None:
        line = f"{outcome.line}: {ending.hang['summary']}" if topology.node != "0" else outcome.line
        return replace(outcome, line=line), [*own, *nodes.ends_of_others(plan.run_dir, launch, topology.node)[0]]
    others: list[RankEnd] = []

    def look() -> set[str]:
        others[:], ended = nodes.ends_of_others(plan.run_dir, launch, topology.node)
        return ended

    def only_lost() -> bool:
        verdict = judge([*own, *others])
        return verdict is None or lost_connection(verdict.culprit)

    alive = nodes.Liveliness(plan.run_dir, launch, topology.node)
    nodes.wait_for_others(topology.nodes, look, only_lost, hurry, alive)
    verdict = judge([*own, *others])
    told = nodes.signalled_nodes(plan.run_dir, launch)
    elsewhere = verdict is not None and failed_elsewhere(verdict.culprit, topology.node, told)
    needed = verdict is not None and not verdict.culprit.failed  # it ended well, and another node failed of it
    if (ending.signalled is not None or outcome.code == 0) and not (elsewhere or needed):
        return outcome, [*own, *others]
    signalled = None if elsewhere or needed else ending.signalled
    outcome = decide(ending.code or 1, signalled, [*own, *others], len(watch.records))
    if outcome.verdict is not None and lost_connection(outcome.verdict.culprit) and not outcome.line:
        outcome = replace(outcome, line=_silent_words(nodes.silent_hosts(plan.run_dir, launch, topology.node)))
    return outcome, [*own, *others]


def _silent_words(hosts: Sequence[str]) -> str:
    """Where the cause of a lost connection may be."""
    if not hosts:
        return ""
    return f"nothing is known of {' and '.join(hosts)}: dead, or cut off, which may be the cause of what follows"


def _write_verdict(
    plan: LaunchPlan,
    outcome: Outcome,
    ends: list[RankEnd],
    gathered: _Ends,
    hang: dict[str, Any] | None,
    unwritten: str,
) -> str:
    """Write verdict.json: why that failed, in the system's words, or ''."""
    attempts = [verdict_json(judge(earlier), 1, earlier) for earlier in gathered.earlier]
    facts: dict[str, Any] = {"run": plan.name, "nodes": plan.topology.nodes, "nproc": plan.topology.nproc}
    facts["unwritten"] = unwritten or None
    facts["hang"] = None if hang is None else {key: value for key, value in hang.items() if key != "stacks"}
    values = verdict_json(outcome.verdict, outcome.code, ends, **facts, earlier_attempts=attempts)
    try:
        text, temporary = json.dumps(values, indent=2, ensure_ascii=False), f".verdict-{plan.topology.node}.tmp"
        wholefile.put(plan.run_dir / "verdict.json", text, plan.run_dir / temporary)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _report(plan: LaunchPlan, outcome: Outcome, words: str, asked: bool, unwritten: str, kept: bool) -> None:
    """Say on stderr how the run ended, if not well. The verdict is the last that is said.

    `words`: what torchrun said, if it started no rank; `asked`: the run was told to end; `unwritten`: why the run
    directory could not be written; `kept`: whether verdict.json could be.
    """
    if outcome.line:
        _say(f"dtk: {outcome.line}")
    culprit = None if outcome.verdict is None else outcome.verdict.culprit
    if unwritten and (culprit is None or culprit.node != plan.topology.node):
        _say(f"dtk: {unwritten_words(unwritten)}")
    if outcome.verdict is None or culprit is None:
        if not asked and outcome.code not in (0, PREEMPTED, HUNG):
            for line in words.splitlines()[-20:]:
                _say(f"  {line}")
            _say(f"dtk: torchrun's own words: {launcher_log(plan)}")
        return
    hosts = _hosts(plan)
    if culprit.node != plan.topology.node:
        what = "failed first" if culprit.failed else "ended first, with exit code 0"
        _say(f"dtk: ended because {rank_name(culprit, hosts)} {what}{f'; {plan.run_dir}/verdict.json' if kept else ''}")
        return
    if culprit.rank in parse_ranks(plan.quiet_ranks, "--quiet-ranks"):
        _say_last(plan, culprit.rank)
    first, *rest = verdict_lines(outcome.verdict, plan.run_dir, hosts, Path.cwd(), unwritten, kept)
    _say("\n".join((f"dtk: {first}", *(f"  {line}" for line in rest))))


def _hosts(plan: LaunchPlan) -> dict[str, str]:
    """Host of each node of this launch that has written; none of a launch on one node."""
    if plan.topology.nodes == 1:
        return {}
    found = nodes.entries(plan.run_dir, nodes.launch_id(plan))
    return {node: str(entry.get("host")) for node, entry in found.items()}


def _say_last(plan: LaunchPlan, rank: int) -> None:
    """Print the last of what a rank wrote to stderr: nobody has seen it."""
    for line in tail(plan.run_dir / "ranks", rank, "err").splitlines()[-_LAST_LINES:]:
        _say(f"[{rank}] {line}")


def _result(plan: LaunchPlan, watch: RankWatch, outcome: Outcome) -> dict[str, Any]:
    """What --json prints."""
    verdict = verdict_json(outcome.verdict, outcome.code, [])
    ranks = [asdict(record) for _, record in sorted(watch.records.items())]
    where = {"name": plan.name, "run_dir": str(plan.run_dir)}
    return {
        "exit_code": outcome.code,
        **where,
        "failure": verdict["culprit"],
        "followers": verdict["followers"],
        "ranks": ranks,
    }


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
