"""Cores and NUMA nodes on made-up machines: what is read from /sys, and how it is shared out."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from dtk_launch.cpus import Cpu, format_cpus, format_shares, parse_cpus, read_cpus, read_gpu_nodes, share_out
from hypothesis import given


def machine(nodes, threads=1):
    """`nodes` are the cores of each NUMA node; siblings are numbered as Linux does, all first threads first."""
    homes = [node for node, cores in enumerate(nodes) for _ in range(cores)]
    return tuple(
        Cpu(core + thread * len(homes), core, node) for thread in range(threads) for core, node in enumerate(homes)
    )


CORES = st.lists(st.integers(0, 9), min_size=1, max_size=4)


@given(CORES, st.integers(1, 2), st.integers(1, 12), st.data())
def test_shares_are_disjoint_equal_and_of_whole_cores(nodes, threads, nproc, data):
    cpus = machine(nodes, threads)
    allowed = data.draw(st.sets(st.sampled_from(cpus))) if cpus else set()
    gpu_nodes = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=12))
    shares = share_out(sorted(allowed, key=lambda cpu: cpu.number), nproc, gpu_nodes)
    cores = {cpu.core for cpu in allowed}
    if len(cores) < nproc:
        assert shares == ()
        return
    assert len(shares) == nproc
    given_out = [number for share in shares for number in share]
    assert len(set(given_out)) == len(given_out)
    core_of = {cpu.number: cpu.core for cpu in allowed}
    assert set(given_out) <= set(core_of)
    sizes = [len({core_of[number] for number in share}) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) == len(cores) // nproc
    for share in shares:  # a core that is given out is given out whole
        for core in {core_of[number] for number in share}:
            assert {number for number, its in core_of.items() if its == core} <= set(share)


@given(CORES, st.integers(1, 2), st.integers(1, 12))
def test_a_rank_stays_on_one_numa_node_where_all_can(nodes, threads, nproc):
    cpus = machine(nodes, threads)
    shares = share_out(cpus, nproc)
    size = sum(nodes) // nproc
    if shares and sum(cores // size for cores in nodes) >= nproc:
        node_of = {cpu.number: cpu.node for cpu in cpus}
        assert all(len({node_of[number] for number in share}) == 1 for share in shares)


@pytest.mark.parametrize(
    ("nodes", "threads", "nproc", "gpu_nodes", "shares"),
    [
        ([8], 1, 2, (), "0-3;4-7"),
        ([4, 4], 2, 2, (), "0-3,8-11;4-7,12-15"),
        ([4, 4], 1, 4, (1, 1, 0, 0), "4-5;6-7;0-1;2-3"),
        ([4, 4], 1, 4, (1, 1, 1, None), "4-5;6-7;0-1;2-3"),
        ([5, 5], 1, 4, (), "0-2;3-4;5-7;8-9"),
        ([4, 6], 1, 2, (), "0-4;5-9"),
        ([2], 1, 3, (), ""),
    ],
)
def test_shares(nodes, threads, nproc, gpu_nodes, shares):
    assert format_shares(share_out(machine(nodes, threads), nproc, gpu_nodes)) == shares


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cpus_are_written_as_they_are_read(numbers):
    assert parse_cpus(format_cpus(sorted(numbers))) == sorted(numbers)


@pytest.fixture
def tree(tmp_path):
    """Write files below a made-up root."""

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


SYSTEM = "sys/devices/system"
SIBLINGS = {f"{SYSTEM}/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)}
NODES = {f"{SYSTEM}/node/node0/cpulist": "0-1,4-5\n", f"{SYSTEM}/node/node1/cpulist": "2-3,6-7\n"}


def test_cpus_are_read_from_sys(tree):
    root = tree(SIBLINGS | NODES)
    assert read_cpus(root, {1, 2, 5}) == (Cpu(1, 1, 0), Cpu(2, 2, 1), Cpu(5, 1, 0))
    assert read_cpus(root, {1, 99}) == ()


def test_a_system_without_numa_is_one_node_and_one_without_topology_is_unknown(tree):
    assert {cpu.node for cpu in read_cpus(tree(SIBLINGS), range(8))} == {0}
    assert read_cpus(tree({f"{SYSTEM}/cpu/cpu0/topology/thread_siblings_list": "0-x\n"}), {0}) == ()


def gpu(pci, node, number, model="H100"):
    information = f"Model: \t\t {model}\nGPU UUID: \t GPU-{number}{number}aa-bb\nBus Location: \t {pci}\n"
    return {
        f"proc/driver/nvidia/gpus/{pci}/information": information,
        f"sys/bus/pci/devices/{pci.lower()}/numa_node": f"{node}\n",
    }


@pytest.mark.parametrize(
    ("environ", "nodes"),
    [
        ({}, (0, 1, None)),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, (1, 0)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-22, GPU-11aa"}, (1, 0)),
        ({"CUDA_VISIBLE_DEVICES": "MIG-11"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "7"}, ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
    ],
)
def test_the_numa_node_of_each_gpu(tree, environ, nodes):
    root = tree(gpu("0000:1A:00.0", 0, 1) | gpu("0000:3b:00.0", 1, 2) | gpu("0000:5e:00.0", -1, 3))
    assert read_gpu_nodes(root, environ) == nodes


def test_gpus_of_two_models_are_in_an_order_that_only_cuda_knows(tree):
    root = tree(gpu("0000:1a:00.0", 0, 1) | gpu("0000:3b:00.0", 1, 2, model="A2"))
    assert read_gpu_nodes(root, {}) == ()
    assert read_gpu_nodes(root, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == (0, 1)


def row(plan, key):
    (found,) = [decision for decision in plan.decisions if decision.key == key]
    return found


def test_ranks_are_bound_and_start_a_thread_for_each_physical_core(plan, facts):
    made = plan(facts(cores=16, cpus=machine([4, 4], threads=2), gpu_nodes=(1, 0)), nproc="2", cpu_bind="auto")
    assert dict(made.env)["DTK_CPUS"] == "4-7,12-15;0-3,8-11"
    assert dict(made.env)["OMP_NUM_THREADS"] == "4"
    assert (row(made, "DTK_CPUS").source, row(made, "cpu_bind").source) == ("observed", "flag --cpu-bind")


def test_threads_are_physical_cores_where_nothing_is_bound_too(plan, facts):
    made = plan(facts(cores=16, cpus=machine([8], threads=2)), nproc="2")
    assert ("DTK_CPUS" in dict(made.env), dict(made.env)["OMP_NUM_THREADS"]) == (False, "4")


@pytest.mark.parametrize(
    ("nproc", "changes", "given", "why"),
    [
        ("1", {}, {}, "one rank has all cores"),
        ("5", {}, {}, "4 physical cores are fewer than 5 ranks"),
        ("2", {"cpus": ()}, {}, "does not say"),
        ("2", {"cores": 2}, {}, "only 2 made up"),
        ("2", {"environ": (("OMP_PROC_BIND", "close"),)}, {}, "OMP_PROC_BIND is set"),
        ("2", {"environ": (("SLURM_CPU_BIND", "quiet,none"),)}, {}, "--cpu-bind=none"),
        ("2", {}, {"env": ("KMP_AFFINITY=compact",)}, "KMP_AFFINITY is set"),
        ("2", {}, {"cpu_bind": "none"}, "not asked for"),
    ],
)
def test_nothing_is_bound_where_it_would_be_wrong(plan, facts, nproc, changes, given, why):
    on = facts(cores=changes.pop("cores", 8), cpus=machine([4], threads=2))
    made = plan(replace(on, **changes), **{"nproc": nproc, "cpu_bind": "auto", **given})
    assert "DTK_CPUS" not in dict(made.env)
    assert "not bound" in row(made, "cpu_bind").why
    assert why in row(made, "cpu_bind").why
