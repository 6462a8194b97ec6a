"""All that one node finds out about itself; in an allocation each runs this module, by srun."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dtk_launch.allocation import Allocation
from dtk_launch.doctor import asked, clock, filesystem, limits, network, nvidia_smi, versions
from dtk_launch.doctor.plainly import restore
from dtk_launch.errors import PlanError
from dtk_launch.reach import addressed

_MARK = "DTK-NODE"
_MADE = "made"  # a file that says that the folder above was not there
_MOST = 8  # in a line
_CHUNK = 600  # characters of a line: srun keeps lines of less than a kilobyte whole


@dataclass(frozen=True)
class NodeFacts:
    """What one node has seen. `hosting` of the first of several, `contact` of the others."""

    node: str
    versions: versions.Versions
    gpus: nvidia_smi.Gpus
    network: network.Network
    filesystem: filesystem.Filesystem
    limits: limits.Limits
    hosting: clock.Hosting | None = None
    contact: clock.Contact | None = None


@dataclass(frozen=True)
class Order:
    """What a node of an allocation is asked to do."""

    folder: str
    """Of this examination, below the run directory."""
    shown: str
    """What the folder of the run directories is called."""
    ask_torch: bool
    patience: float
    """Seconds in which the nodes have to reach the first."""


def look(node: str, folder: Path, shown: Path, ask_torch: bool, nodes: Sequence[str] = (), head: str = "") -> NodeFacts:
    """Look at this machine; what is written goes to `folder`, which is `shown` as the folder of the run directories."""
    found = versions.probe()
    if ask_torch and found.torch:
        found = replace(found, asked=asked.ask_torch())
    return NodeFacts(
        node, found, nvidia_smi.probe(), network.probe(nodes, head), replace(filesystem.probe(folder), path=str(shown)),
        limits.probe(),
    )  # fmt: skip


def look_in_step(order: Order, environ: Mapping[str, str]) -> NodeFacts:
    """The same on a node of a step, which meets the others meanwhile. Raises PlanError outside of one."""
    step = Allocation.from_env(environ)
    if step is None:
        raise PlanError("this is no srun step")
    with contextlib.suppress(PlanError):  # contact() will say so
        step = addressed(step)
    head, others = step.head_address or step.head, step.nodes[1:]
    port = 20000 + step.job_id % 12000  # where a dtk launch of this job meets
    folder = Path(order.folder)
    error = leave_mark(folder, step.node_name)
    results: dict[str, Any] = {}

    def meet() -> None:
        if not others:
            return
        if step.node_rank == 0:
            results["hosting"] = clock.host(port, others, order.patience)
        else:
            results["contact"] = clock.contact(head, port, step.node_name, order.patience)

    meeting = threading.Thread(target=meet)
    meeting.start()
    facts = look(step.node_name, folder, Path(order.shown), order.ask_torch, step.nodes, head)
    meeting.join()
    if error:
        facts = replace(facts, filesystem=replace(facts.filesystem, error=error))
    return replace(facts, **results)


def leave_mark(folder: Path, node: str) -> str:
    """Write a file by which other nodes see that this one has the same folder; why that cannot be, '' if it could."""
    try:
        made = not folder.parent.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if made:
            (folder / _MADE).touch()
        (folder / f"{node}.seen").write_text(node)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def lines(facts: NodeFacts) -> Iterator[str]:
    """The facts as lines that may be mixed with those of other nodes."""
    text = base64.b64encode(zlib.compress(json.dumps(asdict(facts)).encode())).decode()
    parts = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    for number, part in enumerate(parts):
        yield f"{_MARK} {facts.node} {number} {len(parts)} {part}"


def read(text: str) -> dict[str, NodeFacts]:
    """Node -> its facts, of those whose lines are all there, in whatever order they came."""
    parts: dict[str, dict[int, str]] = {}
    whole: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 5 and words[0] == _MARK and words[2].isdecimal() and words[3].isdecimal():
            parts.setdefault(words[1], {})[int(words[2])] = words[4]
            whole[words[1]] = int(words[3])
    found = {}
    for node, pieces in parts.items():
        if len(pieces) == whole[node]:
            data = base64.b64decode("".join(pieces[number] for number in sorted(pieces)))
            found[node] = restore(NodeFacts, json.loads(zlib.decompress(data)))
    return found


def unseen(folder: Path, nodes: Sequence[str]) -> tuple[str, ...]:
    """The nodes whose marks are not in `folder`, as this one sees it; of many the first."""
    try:
        there = set(os.listdir(folder))  # noqa: PTH208
    except OSError:
        there = set()
    return tuple(node for node in nodes if f"{node}.seen" not in there)[:_MOST]


def main(words: Sequence[str]) -> None:
    """`look ORDER` prints this node's facts, `see ORDER` whose marks it does not see; `leave ORDER` tidies up."""
    verb, order = words[0], json.loads(words[1])
    if verb == "look":
        for line in lines(look_in_step(restore(Order, order), os.environ)):
            print(line, flush=True)
    elif verb == "see":
        names = json.dumps(unseen(Path(order["folder"]), order["nodes"]))
        print(f"{_MARK}-SEES {os.environ.get('SLURMD_NODENAME', '')} {names}")
    else:
        _tidy(Path(order["folder"]))


def _tidy(folder: Path) -> None:
    """Remove the folder, and the one above it if it was made for this."""
    made = (folder / _MADE).exists()
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody has put something there
        if made:
            folder.parent.rmdir()


def read_unseen(text: str) -> dict[str, tuple[str, ...]]:
    """Node -> those whose marks it does not see, of what `see` has printed on all."""
    found = {}
    for line in text.splitlines():
        mark, _, rest = line.partition(" ")
        node, _, names = rest.partition(" ")
        if mark == f"{_MARK}-SEES":
            found[node] = tuple(json.loads(names))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
