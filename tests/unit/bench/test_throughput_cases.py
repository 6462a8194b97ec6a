from contextlib import contextmanager
from pathlib import Path

import pytest
from bench_parts.processes import ProcessFailed, Started
from hypothesis import given
from hypothesis import strategies as st
from throughput_parts import fitting
from throughput_parts.arguments import parse
from throughput_parts.cases import Workload, default_batch, groups, modes_on
from throughput_parts.fitting import Fit, Seen, is_out_of_memory, predicted, search
from throughput_parts.kept import Kept
from throughput_parts.peaks import peak_flops
from throughput_parts.room import available_gib
from throughput_parts.tables import MODELS, PRECISIONS, STRATEGIES

WORK = Workload("mlp", "fp32", 64)


def test_every_share_of_the_machine_is_the_same():
    modes = modes_on(WORK, list(STRATEGIES), [1, 2, 4], cores=8, gpus=False, weak=False)
    assert all(mode.threads * mode.processes == 2 * mode.nproc for mode in modes)
    assert [mode.label for mode in modes if mode.strategy == "single"] == ["single x1"]
    assert {mode.global_batch_size for mode in modes} == {64}
    assert len({mode.label for mode in modes}) == len(modes) == 1 + 7 * 3


def test_on_gpus_a_rank_has_one_and_dataparallel_all():
    modes = modes_on(WORK, ["single", "dp", "ddp"], [4], cores=8, gpus=True, weak=False)
    assert [(mode.strategy, mode.gpus, mode.processes) for mode in modes] == [
        ("single", 1, 1), ("dp", 4, 1), ("ddp", 1, 4),
    ]  # fmt: skip


def test_weak_scaling_keeps_the_batch_of_a_rank():
    modes = modes_on(WORK, ["single", "ddp"], [1, 4], cores=4, gpus=False, weak=True)
    assert [mode.global_batch_size for mode in modes] == [64, 64, 256]


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(["small", "full"]), st.sets(st.integers(1, 64), min_size=1))
def test_default_batches_can_be_shared_evenly(model, size, nprocs):
    batch = default_batch(model, size, sorted(nprocs), weak=False)
    assert all(batch % nproc == 0 and batch // nproc >= MODELS[model].least for nproc in nprocs)
    assert default_batch(model, size, sorted(nprocs), weak=True) >= MODELS[model].least


@given(st.floats(0.1, 100), st.one_of(st.none(), st.integers(1, 9)))
def test_groups_hold_every_mode_once_and_no_more_than_fits(gib, at_once):
    modes = modes_on(WORK, list(STRATEGIES), [1, 2], cores=2, gpus=False, weak=False)
    made = list(groups(modes, "small", gib, at_once))
    assert [mode for group in made for mode in group] == modes
    for group in made:
        assert len(group) <= (at_once or len(modes))
        if at_once is None and len(group) > 1:
            assert sum(mode.processes for mode in group) * 0.5 <= gib


def test_what_is_kept_of_an_interrupted_run(run_of):
    kept = Kept(run_of(dp=[1.0, 2.0, 3.0], ddp=[1.0, 2.0], status=None))
    dp, ddp = modes_on(Workload("mlp", "fp32", 100), ["dp", "ddp"], [2], cores=2, gpus=False, weak=False)
    assert kept.steps(dp.workload) == 10
    assert kept.has_all(dp, rounds=2)
    assert not kept.has_all(ddp, rounds=2)
    assert kept.has_block(ddp, 1)
    assert kept.has_model("mlp")
    assert not kept.has_fit(dp)
    assert Kept([]).steps(WORK) is None


@given(st.integers(1, 5000), st.integers(1, 3))
def test_the_largest_batch_is_found_to_one_in_sixteen(largest, first):
    tried: list[int] = []

    def attempt(batch: int) -> Seen | None:
        tried.append(batch)
        return Seen(batch, 100.0, 0.01) if batch <= largest else None

    fit = search(attempt, first, None)
    if largest < first:
        assert fit == Fit(None, "memory", 1)
        return
    assert fit.largest is not None
    assert largest - max(1, largest // 8) <= fit.largest.batch <= largest
    assert fit.tries == len(tried) < 40


@given(st.floats(10, 1000), st.floats(0.5, 50), st.floats(100, 10_000))
def test_no_batch_is_tried_that_passes_the_limit(base, slope, limit):
    passed = [
        batch for batch in tried_on(base, slope, limit) if batch > 2 and base + slope * batch > limit
    ]  # the first two are how the memory of a batch is learnt
    assert passed == []


def tried_on(base: float, slope: float, limit: float) -> list[int]:
    tried: list[int] = []

    def attempt(batch: int) -> Seen:
        tried.append(batch)
        return Seen(batch, base + slope * batch, 0.001)

    fit = search(attempt, 1, limit)
    assert fit.largest is None or fit.largest.mib <= limit
    return tried


def test_a_batch_whose_steps_take_too_long_ends_the_search():
    fit = search(lambda batch: Seen(batch, 1.0, batch * 1.0), 1, None)
    assert fit == Fit(Seen(8, 1.0, 8.0), "time", 4)


def _fit(monkeypatch, tmp_path, strategy, end):
    """`find` on processes that end in this way, as shell code, once a batch is larger than the first."""

    class Team:
        def __init__(self, mode):
            self.mode = mode

        def ask(self, what, batch):
            if batch == MODELS["mlp"].least * (2 if strategy == "dp" else 1):
                return {"rss_mib": 1.0, "step_seconds": 0.1}
            home = tmp_path / f"home-{batch}"
            home.mkdir(parents=True)
            started = Started(["sh", "-c", end], home, {}, tmp_path / "failed" / "it")
            raise started.failure(f"{self.mode.name} failed")

    @contextmanager
    def running(options, modes, tell):
        yield [Team(modes[0])]

    monkeypatch.setattr(fitting, "running", running)
    options = parse(["--out", str(tmp_path), "--nproc", "2", "--strategies", strategy], cores=2, gpus=0)
    mode = options.modes(next(options.workloads()))[-1]
    return fitting.find(options, mode)


@pytest.mark.parametrize("strategy", ["single", "dp"])
def test_a_process_that_is_killed_without_words_ran_out_of_memory(monkeypatch, tmp_path, strategy):
    """Under `dtk launch` the verdict says so; these are alone, and the kernel's killer leaves a signal and no more."""
    found = _fit(monkeypatch, tmp_path, strategy, "kill -KILL $$")
    assert (found["ended_by"], found["per_process"]) == ("memory", MODELS["mlp"].least * (2 if strategy == "dp" else 1))
    with pytest.raises(ProcessFailed):
        _fit(monkeypatch, tmp_path / "other", strategy, "kill -SEGV $$")


def test_ranks_of_which_the_launcher_was_killed_are_a_failure(monkeypatch, tmp_path):
    with pytest.raises(ProcessFailed):
        _fit(monkeypatch, tmp_path, "ddp", "kill -KILL $$")


def test_memory_is_predicted_on_a_line():
    assert predicted([Seen(1, 100.0, 0.1)], 2) == 0.0
    assert predicted([Seen(1, 100.0, 0.1), Seen(2, 110.0, 0.1)], 4) == 130.0


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB", True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory", True),
        ("dtk: rank 1 failed first: killed by the kernel's out-of-memory killer", True),
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_out_of_memory_is_told_from_other_failures(text, is_memory):
    assert is_out_of_memory(text) is is_memory


@pytest.mark.parametrize(
    ("device", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16", 989.4), ("NVIDIA H100 80GB HBM3", "fp32", 67.0), ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156.0), ("Tesla V100-SXM2-16GB", "fp16", 125.0), ("NVIDIA L4", "bf16", 121.0),
        ("NVIDIA L40S", "bf16", 362.1), ("NVIDIA GeForce RTX 4090", "fp32", 82.6), ("NVIDIA A10G", "fp32", None),
        ("Tesla V100-SXM2-16GB", "bf16", None), ("cpu", "fp32", None), ("NVIDIA GB200", "bf16", None),
    ],
)  # fmt: skip
def test_the_peak_of_a_gpu(device, precision, tera):
    assert peak_flops(device, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def test_precisions_are_those_of_the_launcher():
    from dtk_launch.options import PRECISIONS as KNOWN

    assert {spec.engine for spec in PRECISIONS.values()} <= set(KNOWN)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_that_of_the_control_group_where_it_is_less(tmp_path: Path, version: int):
    """Of the process's own group, as that of a SLURM job with --mem, or of one above it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4194304 kB\n")
    assert available_gib(tmp_path) == 4.0
    base = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    none = f"{2**63 - 4096}\n" if version == 1 else "max\n"
    line = "4:memory:/slurm/job_7/step_0" if version == 1 else "0::/slurm/job_7/step_0"
    (tmp_path / "proc/self/cgroup").write_text(f"{line}\n")
    job, step = base / "slurm/job_7", base / "slurm/job_7/step_0"
    step.mkdir(parents=True)
    for group, allowed in ((base, none), (job, none), (step, none)):
        (group / limit).write_text(allowed)
        (group / used).write_text("0\n")
    assert available_gib(tmp_path) == 4.0
    (job / limit).write_text(f"{3 * 2**30}\n")
    (job / used).write_text(f"{2**30}\n")
    assert available_gib(tmp_path) == 2.0
    (step / limit).write_text(f"{2**29}\n")
    assert available_gib(tmp_path) == 0.5
    (base / limit).write_text(f"{2**28}\n")
    assert available_gib(tmp_path) == 0.25
