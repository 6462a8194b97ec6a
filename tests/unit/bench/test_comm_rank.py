"""A whole run of `dtk bench comm` in one rank, as if it were that of several nodes."""

from argparse import Namespace

import pytest
import torch
import torch.distributed as dist
from bench_parts.group import Ranks
from comm_parts import rank
from comm_parts.rank import Measurement

ONE, ANOTHER = 7, 8  # numbers of kernels


class FarFrom(Ranks):
    """This rank, and one whose kernel has the number ANOTHER."""

    def largest(self, value: float) -> float:
        return max(value, -ANOTHER if value < 0 else ANOTHER)


def seen(kind: type[Ranks], nodes: int, monkeypatch, tmp_path) -> list[dict]:
    monkeypatch.setattr(rank, "boot_number", lambda: ONE)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    given = Namespace(
        backends=("gloo",), operations=("broadcast",), sizes=(1024,), nproc=1, nodes=nodes, rounds=2, iterations=1,
        seed=0, skip=0, dtype="float32", known="",
    )  # fmt: skip
    records: list[dict] = []
    try:
        Measurement(given, kind(torch.device("cpu")), records.append).run()
    finally:
        dist.destroy_process_group()
    return records


@pytest.mark.parametrize(("kind", "nodes", "looks"), [(Ranks, 1, 2), (Ranks, 2, 2), (FarFrom, 2, 0)])
def test_what_others_do_is_seen_where_all_nodes_are_one_machine(kind, nodes, looks, monkeypatch, tmp_path):
    records = seen(kind, nodes, monkeypatch, tmp_path)
    assert records[0]["one_machine"] is (kind is Ranks)
    assert [r["round"] for r in records if r["kind"] == "idle"] == [1, 2][:looks]
    assert all(r["others_cores"] >= 0 for r in records if r["kind"] == "idle")
    assert sum(r["kind"] == "block" for r in records) == 2
