"""`dtk stacks RUN`: where the ranks of a running run are, asked now."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from dtk_launch import processes
from dtk_launch.diagnose import hang_words
from dtk_launch.diagnose.endings import GONE, place_in
from dtk_launch.diagnose.waits import Place
from dtk_launch.diagnose.words import ranks_words
from dtk_launch.dumps import Dump, Dumper, source_line
from dtk_launch.errors import DtkError
from dtk_launch.rank_files import RankRecord
from dtk_launch.runview import read_run
from dtk_launch.streams import json_text
from dtk_launch.tables import header


class NotRunning(DtkError):
    """No rank of the run can be asked here."""

    exit_code = 1


def show(run_dir: Path, as_json: bool) -> None:
    """Print the places of the ranks on this host. Raises NotRunning where none can be asked."""
    folder = run_dir / "ranks"
    records = [record for path in sorted(folder.glob("*.json")) if (record := RankRecord.read(path)) is not None]
    here, elsewhere = live(records), _elsewhere(records)
    if not here:
        raise NotRunning(_why_none(run_dir, elsewhere, bool(records)))
    dumps = Dumper(folder).dump(here, processes.look_at_all())
    standings = [standing_of(record, dumps[record.rank]) for record in sorted(here, key=lambda record: record.rank)]
    if as_json:
        stacks = {rank: {"main": dump.main, "workers": dump.workers} for rank, dump in dumps.items()}
        values = hang_words.hang_json(standings, stacks, run_dir=str(folder.parent), host=socket.gethostname())
        print(json_text(values))
        return
    for group in hang_words.groups_of(standings):
        print(hang_words.group_words(group, Path.cwd()))
        if group.standing.place is not None and group.standing.place.text:
            print(f"    {group.standing.place.text}")
    print(f"whole stacks: {folder}/*.stacks", file=sys.stderr)
    if elsewhere:
        print(f"not asked, as they are on other hosts: {_hosts(elsewhere)}", file=sys.stderr)


def _why_none(run_dir: Path, elsewhere: Mapping[str, list[int]], started: bool) -> str:
    """Why no rank of the run can be asked here."""
    view = read_run(run_dir)
    if view.over:
        return f"no rank of {run_dir} can be asked, as this run is over: {header(view)[0]}"
    if not started:
        return f"no rank of {run_dir} can be asked, as no rank of this run has started yet"
    where = f"; dtk stacks works on the host of the ranks: {_hosts(elsewhere)}" if elsewhere else ""
    return f"no rank of {run_dir} runs on this host ({socket.gethostname()}){where}"


def live(records: list[RankRecord]) -> list[RankRecord]:
    """Those whose process is the one that wrote the record, on this host, and still there."""
    found = []
    for record in records:
        if record.host != socket.gethostname():
            continue
        seen = processes.look(record.pid)
        if seen is not None and seen.state != "Z" and processes.started_before(seen, record.started_ns):
            found.append(record)
    return found


def standing_of(record: RankRecord, dump: Dump) -> hang_words.Standing:
    """Where a rank is, by its stacks."""
    workers = users_places([place_in(text, source_line) for text in dump.workers.values()])
    place = place_in(dump.main, source_line)
    if place is None and record.exit is not None:
        place = GONE
    return hang_words.Standing(record.rank, place, workers, failed=record.failure)


def users_places(places: list[Place | None]) -> tuple[Place, ...]:
    """The different places in the user's code."""
    return tuple({repr(place.line): place for place in places if place is not None and place.user is not None}.values())


def _elsewhere(records: list[RankRecord]) -> Mapping[str, list[int]]:
    hosts: dict[str, list[int]] = {}
    for record in records:
        if record.exit is None and record.host != socket.gethostname():
            hosts.setdefault(record.host, []).append(record.rank)
    return hosts


def _hosts(elsewhere: Mapping[str, list[int]]) -> str:
    return "; ".join(f"{host} ({ranks_words(ranks)})" for host, ranks in elsewhere.items())
