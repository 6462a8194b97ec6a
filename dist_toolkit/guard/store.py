"""The guard's own line to the store that the ranks met at: a client of its own, because a waiting client is locked."""

from __future__ import annotations

import os
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import distributed_c10d

from dist_toolkit.guard.report import Report
from dist_toolkit.guard.verdict import Verdict

_LIMIT = timedelta(seconds=10)


class Board:
    """Where the ranks of one group ask, answer and read the verdict. Any method raises RuntimeError when it is gone."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = PrefixStore(f"dtk-guard-{name}", store.clone())
        self._store.set_timeout(_LIMIT)
        self._asked = False

    def ask(self) -> int:
        """Ask all ranks to report; the number of the question."""
        return int(self._store.add("question", 1))

    def question(self) -> int:
        """The number of the last question; 0 if nobody asked yet."""
        self._asked = self._asked or bool(self._store.check(["question"]))
        return int(self._store.get("question")) if self._asked else 0

    def publish(self, report: Report) -> None:
        """Answer: what this rank reports replaces what it said before."""
        self._store.set(f"report/{report.rank}", report.to_json())

    def read(self, rank: int) -> Report | None:
        """What `rank` said last."""
        key = f"report/{rank}"
        return Report.from_json(self._store.get(key)) if self._store.check([key]) else None

    def read_all(self, world_size: int) -> dict[int, Report]:
        """What the ranks said last, by rank."""
        found = {rank: self.read(rank) for rank in range(world_size)}
        return {rank: report for rank, report in found.items() if report is not None}

    def convict(self, verdict: Verdict) -> Verdict:
        """Publish a verdict; the one that holds, which is the first."""
        return Verdict.from_json(self._store.compare_set("verdict", "", verdict.to_json()))

    def verdict(self) -> Verdict | None:
        """The verdict, if there is one."""
        return Verdict.from_json(self._store.get("verdict")) if self._store.check(["verdict"]) else None

    def leave(self) -> int:
        """Note that one more rank has closed its group; how many have."""
        return int(self._store.add("left", 1))

    def left(self) -> int:
        """How many ranks have closed their group."""
        return int(self._store.get("left")) if self._store.check(["left"]) else 0

    def end(self) -> None:
        """Tell all ranks that the store is about to go."""
        self._store.set("over", "1")
        self.ask()

    def is_over(self) -> bool:
        """Whether the store is about to go."""
        return bool(self._store.check(["over"]))


def default_store() -> Store:
    """The store of the default process group."""
    return distributed_c10d._get_default_store()


def port_of(store: Store) -> int | None:
    """The TCP port of the store's server; None for another kind of store."""
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store.port if isinstance(store, TCPStore) else None


def hosted_here(store: Store, rank: int) -> bool:
    """Whether the store's server ends with this process (torchrun has one of its own, unless told otherwise)."""
    return rank == 0 and port_of(store) is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
