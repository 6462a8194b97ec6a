"""Looks after a run that makes no step: looks at its ranks, decides whether they are stuck, and says so. docs/hangs.md.

While steps are made it reads a few words of shared memory a second. Only a silence makes it look at processes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtk_launch import nodes, silence, wholefile
from dtk_launch.diagnose import hang, hang_words
from dtk_launch.diagnose.pace import Pace
from dtk_launch.diagnose.waits import Kind
from dtk_launch.looks import Looker
from dtk_launch.plan import LaunchPlan
from dtk_launch.rank_files import RankRecord
from dtk_launch.ranks import RankWatch

_EVERY = 1.0  # seconds between two glances
_FRESH = 120.0  # seconds for which what another node said of its ranks counts


class Stalls:
    """The ranks of this node, looked at once a second, and the verdict on a hang of the run."""

    def __init__(self, plan: LaunchPlan, watch: RankWatch, vitals: int | None) -> None:
        """`vitals`: descriptor of the ranks' pages."""
        self.found: dict[str, Any] | None = None
        """The hang that the run is in, as hang.json has it; None while it moves."""
        self._plan, self._watch = plan, watch
        self._pace = Pace(plan.hang.seconds, time.monotonic_ns())
        self._looker = Looker(plan.run_dir / "ranks", vitals)
        self._suspicion: hang.Suspicion | None = None
        self._stuck: set[int] = set()
        self._seen: dict[str, tuple[int, float]] = {}
        self._held_up = False  # and it has been said
        self._next = self._next_look = 0.0
        self._first = plan.topology.node == "0"
        self._launch = nodes.launch_id(plan)
        self._on = "" if plan.topology.nodes == 1 else f"{socket.gethostname()} (node {plan.topology.node})"
        self._told = None if self._first else silence.Told(plan.run_dir / "hang.json", self._launch)
        self._steps = 0  # when the hang was found
        of_earlier = [plan.run_dir / "hang.json"] if self._first else []
        for path in (*of_earlier, self._state_path(plan.topology.node)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @property
    def to_be_ended(self) -> bool:
        """Whether the run hangs and is to end for it."""
        return self.found is not None and self.found["action"] == "stop"

    def in_words(self) -> str:
        """The hang that the run is in, in a line; '' while it moves."""
        return str(self.found["summary"]) if self.found is not None else ""

    def hear(self) -> None:
        """Take over what the first node has found, if this is another one."""
        said = self._told.news() if self._told is not None else None
        if said is not None:
            self._found(said)

    def poll(self) -> None:
        """Glance at the heartbeats, at most once a second, and look closer when they have been silent for too long."""
        now = time.monotonic()
        if now < self._next or not self._plan.hang.watched:
            return
        self._next = now + _EVERY
        live = self._live()
        now_ns = time.monotonic_ns()
        beats = {(record.pid, record.exit is None): self._looker.beat(record) for record in live.values()}
        self._pace.observe(beats, now_ns)
        silent = self._pace.silent(now_ns)
        self.hear()
        if not live or silent < self._pace.timeout:
            self._rest(live)
        elif self._suspicion is None or now >= self._next_look:
            self._suspicion = self._suspicion or hang.Suspicion()
            self._suspicion.add(self._looker.look(live, hang.is_worth_samples(silent, self._pace.patience)))
            self._next_look = time.monotonic() + hang.looks_apart(self._pace.timeout, silent)
            self._judge(silent)

    def _live(self) -> dict[int, RankRecord]:
        return {rank: record for rank, record in self._watch.records.items() if record.pid not in self._watch.ended}

    def _rest(self, live: Mapping[int, RankRecord]) -> None:
        """Steps are made, or a rank has just come or gone: nobody is suspected."""
        if self.found is not None:
            if self._pace.steps > self._steps:
                self._moves_again()
            elif live and not self._stuck & {record.pid for record in live.values()}:
                self.found = None  # a restart
        if self._suspicion is not None:
            self._suspicion, self._held_up = None, False
            self._looker.forget()
            with contextlib.suppress(OSError):
                self._state_path(self._plan.topology.node).unlink(missing_ok=True)

    def _moves_again(self) -> None:
        if self._first:
            _say(["dtk: the run moves again"])
        self.found = None

    def _judge(self, silent: float) -> None:
        """Fire if the run is stuck: the first node decides for all."""
        assert self._suspicion is not None
        state = self._suspicion.state()
        if state is None:
            return
        if self.found is not None and hang.Sign.MOVING in self._suspicion.signs.values():
            self._moves_again()
        others = self._others(state) if self._plan.topology.nodes > 1 else ()
        if self.found is not None or not self._first or others is None:
            return
        states = [state, *(other for other, _ in others)]
        elsewhere = [standing for _, standings in others for standing in standings]
        if hang.is_stuck(states, silent, self._pace.timeout, self._pace.patience):
            self._fire(silent, elsewhere)
        elif not self._held_up and hang.is_held_up(states, silent, self._pace.patience):
            self._held_up = True
            lines = hang_words.held_up_lines([*self._standings(), *elsewhere], Path.cwd())
            _say([f"dtk: no step for {_seconds(silent)}: work that takes long, or an endless loop; it goes on",
                  *(f"    {line}" for line in lines)])  # fmt: skip

    def _fire(self, silent: float, elsewhere: list[hang_words.Standing]) -> None:
        own = self._standings()
        cwd = Path.cwd()
        step, plan = self._pace.step, self._plan
        usual = f" (a step takes {_seconds(step)})" if step is not None else ""
        what = f"no step for {_seconds(silent)}{usual}" if self._pace.steps else f"no step in {_seconds(silent)}"
        first, *groups = hang_words.summary([*own, *elsewhere], cwd)
        found = hang_words.hang_json(
            [*own, *elsewhere],
            {rank: {"main": d.main, "workers": d.workers} for rank, d in self._looker.dumps.items()},
            launch=self._launch,
            time_ns=time.time_ns(),
            silent_seconds=round(silent, 3),
            step_seconds=step,
            steps=self._pace.steps,
            action=plan.hang.action,
            summary=first,
        )
        self._found(found)
        _write(plan.run_dir / "hang.json", found)
        goes_on = "the run is ended" if plan.hang.action == "stop" else "the run goes on; --on-hang stop would end it"
        _say([f"dtk: hang: {what}: {first}", *(f"    {line}" for line in groups),
              f"    stacks: {plan.run_dir}/hang.json; {goes_on}"])  # fmt: skip

    def _found(self, hang: dict[str, Any]) -> None:
        self.found, self._steps = hang, self._pace.steps
        self._stuck = {record.pid for record in self._live().values()}

    def _standings(self) -> list[hang_words.Standing]:
        assert self._suspicion is not None
        assert self._suspicion.last is not None
        found = []
        for rank, seen in self._suspicion.last.ranks.items():
            at_work = seen.main.place is not None and seen.main.place.kind in (Kind.CODE, Kind.BACKWARD)
            places = (worker.place for worker in seen.workers.values())
            workers = tuple({repr(p.line): p for p in places if p is not None and p.user is not None}.values())
            sign, always_in = self._suspicion.signs.get(rank), self._suspicion.always_in(rank)
            busy = at_work and sign is hang.Sign.DOUBTFUL
            moves = sign is hang.Sign.MOVING
            failed = record.failure if (record := self._watch.records.get(rank)) is not None else ""
            found.append(hang_words.Standing(rank, seen.main.place, workers, busy, self._on, moves, always_in, failed))
        return found

    def _state_path(self, node: str) -> Path:
        return self._plan.run_dir / "nodes" / f"{node}.silent"

    def _others(self, own: hang.NodeState) -> list[tuple[hang.NodeState, list[hang_words.Standing]]] | None:
        """Publish this node's state and read those of the other nodes; None while one of them says nothing."""
        plan = self._plan
        _write(self._state_path(plan.topology.node), silence.to_json(self._launch, own, self._standings()))
        found = []
        for node, entry in nodes.entries(plan.run_dir, self._launch).items():
            if node == plan.topology.node or entry.get("state") != "running":
                continue
            said = silence.read(self._state_path(node), self._launch)
            if said is None:
                return None
            stamp, state, standings = said
            if self._seen.get(node, (0, 0.0))[0] != stamp:
                self._seen[node] = (stamp, time.monotonic())
            if time.monotonic() - self._seen[node][1] > _FRESH:
                return None
            found.append((state, standings))
        return found


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        wholefile.put(path, json.dumps(values, ensure_ascii=False), path.with_suffix(path.suffix + ".tmp"))


def _say(lines: list[str]) -> None:
    with contextlib.suppress(OSError):
        print("\n".join(lines), file=sys.stderr, flush=True)
