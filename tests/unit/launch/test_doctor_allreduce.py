"""The all-reduce as its ranks tell of it: what is right, wrong, slow to come, or never comes."""

import json
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from dtk_launch.doctor import rank
from dtk_launch.doctor.allreduce import Said, duration, judge, last_words, read, run, tells_nothing_of_torch
from dtk_launch.doctor.interfaces import Interface
from dtk_launch.doctor.network import Network

LO = Interface("lo", True, True, ("127.0.0.1",))
NETWORKS = {
    host: Network(host, (address,), 0.0, (LO, Interface("eth0", True, False, (address,))))
    for host, address in (("n1", "10.0.0.1"), ("n2", "10.0.0.2"))
}


def line(stage, number, **about):
    return {"stage": stage, "rank": number, "host": f"n{number // 2 + 1}", **about}


def lines(stage, *ranks, **about):
    return tuple(line(stage, number, **about) for number in ranks)


RESULT = line("result", 0, backend="gloo", right=True, ranks=4, latency=56e-6, size=16 << 20, seconds=0.0125)
ALL = tuple(entry for stage in ("started", "ready", "joined", "reduced", "done") for entry in lines(stage, 0, 1, 2, 3))


def judged(said):
    return list(judge(said, ("n1", "n2"), 2, NETWORKS))


def test_a_good_one_names_the_interface_that_was_taken():
    ways = (*lines("way", 0, backend="gloo", words=["10.0.0.1"]), *lines("way", 2, backend="gloo", words=["10.0.0.2"]))
    (finding,) = judged(Said((*ALL, RESULT, *ways)))
    assert finding.level == "ok"
    assert finding.what == "gloo by eth0, 4 ranks: right, 16 MiB in 12.5 ms (1.34 GB/s), 8 bytes in 56 us"


def test_both_backends_and_a_wrong_sum():
    nccl = RESULT | {"backend": "nccl", "right": False, "ranks": 2}
    way = line("way", 0, backend="nccl", words=["NET/Socket: eth0", "P2P/CUMEM"])
    gloo, other = judged(Said((*ALL, RESULT, nccl, way)))
    assert (gloo.level, other.level) == ("ok", "problem")
    assert other.what == "nccl over 2 ranks gives a wrong sum (NET/Socket: eth0; P2P/CUMEM)"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(lines("started", 0, 1), None, "", 9), "was not over after 9 s: no rank of n2 has started"),
        (Said((), None, "", 9), "was not over after 9 s: no rank has started"),
        (
            Said((), 2, "dtk: error: PET_NNODES=5"),
            "failed (exit code 2): no rank has started: dtk: error: PET_NNODES=5",
        ),
        (Said((*ALL[:8], *lines("joined", 0, 1, 3)), None, "", 9), "rank 2 on n2 has not joined the others"),
        (Said((*ALL[:12], *lines("reduced", 3)), None, "", 9), "ranks 0 on n1, 1 on n1, 2 on n2 have not come out of"),
        (
            Said((*ALL[:4], line("failed", 2, doing="join", error="RuntimeError: x")), 1),
            "rank 2 on n2 failed in join: Ru",
        ),
        (
            Said((*ALL[:4], *lines("ready", 0, 1, 3), line("failed", 0, doing="join", error="DistStoreError: x")), 1),
            "rank 0 on n1 failed in join: DistStoreError: x; rank 2 on n2 has not loaded torch",
        ),
        (Said(ALL[:3], None, "", 9), "rank 3 has not started"),
    ],
)
def test_who_did_not_come(said, words):
    (finding,) = judged(said)
    assert finding.level == "problem"
    assert words in finding.what


def test_what_torchrun_said_where_no_rank_started():
    """Its log is gone when somebody reads the finding."""
    (hung,) = judged(Said((), None, "", 9, ("cannot be retrieved", "gai error: -2")))
    assert hung.what.endswith("no rank has started; torchrun's last words: cannot be retrieved | gai error: -2")
    (once,) = judged(Said((), 1, "ImportError: x", 9, ("raise ImportError", "ImportError: x")))
    assert once.what.endswith("no rank has started: ImportError: x")
    assert "TORCH_DISTRIBUTED_DEBUG" in once.fix
    (refused,) = judged(Said((), 2, "dtk: error: PET_NNODES=5 contradicts; unset it", 9))
    assert refused.fix == "what dtk says there, and then dtk doctor once more"


def test_torch_is_asked_where_no_rank_told_of_it():
    assert not tells_nothing_of_torch(Said())
    assert not tells_nothing_of_torch(Said((*ALL[:1], line("torch", 0, torch={})), 1))
    assert tells_nothing_of_torch(Said(ALL[:1], None))
    assert tells_nothing_of_torch(Said((), 139, "dtk: torchrun was killed by SIGSEGV"))
    assert not tells_nothing_of_torch(Said((), 2, "dtk: error: PET_NNODES=5"))


def test_the_log_is_read_before_it_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/launcher-1.log").write_text("of another node\n")
    (tmp_path / "run/launcher.log").write_text(
        "far\nfirst\n[W1123 17:42:04.335 a.cpp:7] no\n\n[W1123 17:42:05.336 a.cpp:7] no\n" + "x" * 500 + "\n"
    )
    script = (
        "import sys; print('dtk: no rank\\ndtk: torchrun\\'s own words: /x/launcher.log', file=sys.stderr); sys.exit(1)"
    )
    said = run([sys.executable, "-c", script], tmp_path, {}, 30, False)
    assert (said.code, said.tail) == (1, "dtk: no rank")
    assert said.log == ("first", "a.cpp:7] no", "x" * 200)


def test_a_result_and_then_a_failure_are_both_told():
    said = Said((*ALL, RESULT, line("failed", 1, doing="nccl", error="DistBackendError: no socket interface found")), 1)
    assert [finding.level for finding in judged(said)] == ["ok", "problem"]


def test_ranks_that_say_nothing_are_no_success():
    assert [finding.level for finding in judged(Said((), 0))] == ["problem"]


def test_lines_are_found_behind_any_prefix():
    text = f"[n2:3] {rank.MARK}{json.dumps(RESULT)}\nnoise\n{rank.MARK}{{torn\n{rank.MARK}[1]\n"
    assert list(read(text)) == [RESULT]
    assert last_words("a\nsome error\n[0] end\n\n") == "some error"
    assert last_words("a\nend\n") == "end"
    assert [duration(seconds) for seconds in (2.0, 0.0034, 5.6e-5)] == ["2.0 s", "3.4 ms", "56 us"]


def test_one_that_hangs_is_ended_and_what_it_said_is_kept(tmp_path):
    """With a child that holds its output: neither may hold dtk up."""
    pid = tmp_path / "pid"
    script = (
        "import json, os, subprocess, sys, time\n"
        f"print({rank.MARK!r} + json.dumps({line('started', 0)!r}), flush=True)\n"
        f"child = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(60)\n"
    )
    said = run([sys.executable, "-c", script], tmp_path, {}, 1.5, False)
    assert said.code is None
    assert [entry["stage"] for entry in said.lines] == ["started"]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and "sleep" in _command(pid.read_text()):
        time.sleep(0.02)
    assert "sleep" not in _command(pid.read_text())


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_a_program_that_is_not_there(tmp_path):
    said = run(["/no/such/program"], tmp_path, {}, 1, False)
    assert (said.code, said.tail) == (1, "/no/such/program cannot be started: No such file or directory")


@pytest.mark.skipif(sys.byteorder != "little", reason="addresses as a little-endian kernel writes them")
def test_addresses_of_the_kernel():
    assert rank.address("0100007F:1F90") == "127.0.0.1"
    assert rank.address("0000000000000000FFFF0000014D0A0A:1F90") == "10.10.77.1"
    assert rank.address("00000000000000000000000001000000:1F90") == "::1"


def test_what_nccl_says_of_its_ways():
    text = (
        "n1:71:99 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:10.0.0.1<0>\n"
        "n1:71:99 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read\n"
        "n1:71:99 [0] NCCL INFO Channel 01/0 : 1[1] -> 2[0] [send] via NET/IB/0/GDRDMA\n"
    )
    assert rank.nccl_words(text) == ["NET/IB: mlx5_0, mlx5_1", "NET/IB", "P2P/CUMEM"]
    assert rank.nccl_words("NCCL INFO NET/Socket : Using [0]eth0:10.1.2.3<0>\n") == ["NET/Socket: eth0"]
    assert rank.nccl_words("") == []


@pytest.mark.parametrize(("number", "local", "takes_part"), [(0, 0, True), (1, 1, False), (2, 0, True), (3, 1, False)])
def test_nccl_is_for_the_ranks_that_have_a_gpu_each(monkeypatch, capsys, tmp_path, number, local, takes_part):
    """Two nodes of one GPU and two ranks each, torch played: all ranks make the group, two are in it."""
    made, reduced, devices = [], [], []

    def all_reduce(has):
        assert has == [int(takes_part and at == number) for at in range(4)]
        has[:] = [1, 0, 1, 0]

    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, set_device=devices.append)
    torch = SimpleNamespace(zeros=lambda count, dtype: [0] * count, int64=int, cuda=cuda)
    dist = SimpleNamespace(
        all_reduce=all_reduce, new_group=lambda ranks, **about: made.append((ranks, about["backend"]))
    )
    monkeypatch.setattr(rank, "reduce_over", lambda *words: reduced.append(words[4:]))
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("LOCAL_RANK", str(local))
    (tmp_path / "n1.7").write_text("NCCL INFO NET/Socket : Using [0]eth0:10.1.2.3<0>\n")
    rank.nccl(torch, dist, 4, timedelta(seconds=1), str(tmp_path))
    assert made == [([0, 2], "nccl")]
    assert reduced == ([([0, 2].index(number), 2, "cuda:0")] if takes_part else [])
    assert devices == ([0] if takes_part else [])
    assert ("NET/Socket: eth0" in capsys.readouterr().out) is takes_part
