"""Whether each node reaches the first at the port where a job meets, and how its clock differs. Standard library."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dtk_launch.doctor.findings import Finding

CHECK = "clock"
_SKEW, _GRAVE_SKEW = 1.0, 60.0
_ROUNDS = 5
_HELLO = "dtk-doctor"


@dataclass(frozen=True)
class Contact:
    """What one node found at the first. Seconds; `ahead`: of the first node's clock, to half the round trip."""

    error: str = ""
    round_trip: float = 0.0
    ahead: float = 0.0


@dataclass(frozen=True)
class Hosting:
    """What the first node saw: an error if the port cannot be had, and who came."""

    port: int
    error: str = ""
    came: tuple[str, ...] = ()


def host(port: int, others: Sequence[str], patience: float, now: Callable[[], float] = time.time) -> Hosting:
    """Tell the time at `port` until all `others` have asked, for `patience` seconds at most."""
    came: set[str] = set()
    all_came = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                kind, _, name = line.strip().partition(" ")
                if kind == "bye":
                    came.add(name)
                    if came >= set(others):
                        all_came.set()
                    return
                if kind != _HELLO:
                    return
                lines.write(f"{_HELLO} {now()!r}\n")
                lines.flush()

    def accept(listener: socket.socket) -> None:
        while not all_came.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            connection.settimeout(patience)
            threading.Thread(target=_quietly, args=(serve, connection), daemon=True).start()

    try:
        listener = _listen(port)
    except OSError as error:
        return Hosting(port, os.strerror(error.errno) if error.errno else str(error))
    with listener:
        listener.settimeout(0.2)
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        all_came.wait(patience if others else 0)
        all_came.set()
        thread.join()
    return Hosting(port, "", tuple(name for name in others if name in came))


def _listen(port: int) -> socket.socket:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6, reuse_port=False)


def _quietly(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        serve(connection)
    except (OSError, ValueError):  # a peer that has gone, or that is another program
        return


def contact(address: str, port: int, own: str, patience: float, now: Callable[[], float] = time.time) -> Contact:
    """Ask the host at `address` for its time, until it answers or `patience` seconds are over."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return _ask(address, port, own, max(0.1, deadline - time.monotonic()), now)
        except ConnectionRefusedError as error:  # it may not be there yet
            if time.monotonic() > deadline:
                return Contact(error.strerror or str(error))
            time.sleep(0.1)
        except (OSError, UnicodeError, ValueError) as error:
            return Contact(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _ask(address: str, port: int, own: str, patience: float, now: Callable[[], float]) -> Contact:
    best = Contact("no answer", round_trip=patience)
    with (
        socket.create_connection((address, port), patience) as connection,
        connection.makefile("rw", encoding="utf-8", newline="\n") as lines,
    ):
        for _ in range(_ROUNDS):
            began, before = time.monotonic(), now()
            lines.write(f"{_HELLO} {own}\n")
            lines.flush()
            said = lines.readline().split()
            took = time.monotonic() - began
            if said[:1] != [_HELLO]:
                raise ValueError("another program answers there")
            if took <= best.round_trip:
                best = Contact("", took, float(said[1]) - (before + took / 2))
        lines.write(f"bye {own}\n")
        lines.flush()
    return best


def judge(head: str, hosting: Hosting, contacts: Mapping[str, Contact]) -> Iterator[Finding]:
    """`contacts`: of each node but the first, `head`."""
    ports, at = "ports", f"{head}:{hosting.port}"
    if hosting.error:
        yield Finding(
            ports, "problem", f"port {hosting.port} of {head} cannot be had: {hosting.error}",
            "it is where the nodes of a job of this number meet",
            "end what has it there (ss -ltnp), or submit the job again",
        )  # fmt: skip
        return
    lost = {node: found.error for node, found in contacts.items() if found.error}
    if lost:
        words = "; ".join(f"{node} ({error})" for node, error in list(lost.items())[:3])
        words += f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        yield Finding(
            ports, "problem", f"{at} is not reached by {words}", "the nodes would wait for each other until a timeout",
            f"have the name {head} lead to its address on every node, and all TCP ports open between the nodes",
        )  # fmt: skip
    else:
        slowest = max((found.round_trip for found in contacts.values()), default=0.0)
        yield Finding(ports, "ok", f"all nodes reach {at}, at most {slowest * 1000:.2f} ms there and back")
    yield from _judge_skew(head, {node: found for node, found in contacts.items() if not found.error})


def _judge_skew(head: str, contacts: Mapping[str, Contact]) -> Iterator[Finding]:
    skews = {node: -found.ahead for node, found in contacts.items()}
    wrong = {node: skew for node, skew in skews.items() if abs(skew) > _SKEW}
    if wrong:
        words = ", ".join(
            f"{node} {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} {head}" for node, skew in wrong.items()
        )
        grave = any(abs(skew) > _GRAVE_SKEW for skew in wrong.values())
        yield Finding(
            CHECK, "problem" if grave else "warning", f"clocks differ: {words}",
            "who failed first, which record is newer and how old a heartbeat is are read from them; munge refuses "
            "credentials that are minutes off", "have the nodes set their clocks: chronyc tracking, timedatectl",
        )  # fmt: skip
    elif skews:
        most = max(map(abs, skews.values()))
        yield Finding(CHECK, "ok", f"the clocks of all nodes are within {most * 1000:.1f} ms of that of {head}")


def judge_stamps(ahead: float) -> Iterator[Finding]:
    """`ahead`: seconds by which the stamps of the run directory's files are ahead of this host's clock."""
    if abs(ahead) > _SKEW:
        yield Finding(
            CHECK, "warning",
            f"the file system's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's",
            "how old a file is, and so a heartbeat, is read from it", "have both set their clocks: chronyc tracking",
        )  # fmt: skip
    else:
        yield Finding(CHECK, "ok", "the stamps of files agree with this host's clock")
