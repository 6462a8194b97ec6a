"""What runs in the ranks, as far as it can be seen without them."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from throughput_parts import flops, memory
from throughput_parts.spans import HostClock, Spans, StreamClock, clock_for
from throughput_parts.tables import MODELS
from throughput_parts.tasks import factories, samples
from throughput_parts.training import middle, split
from throughput_parts.waits import Waits


class Ticks:
    """A clock that moves on by 1 ms at each look."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def mark(self) -> int:
        return next(self._ticks)

    def milliseconds(self, first: int, last: int) -> float:
        return float(last - first)

    def settle(self) -> None:
        pass


def test_a_part_is_without_the_parts_within_it():
    spans = Spans(Ticks())
    with spans.part("forward"):  # 0 to 5
        with spans.part("scatter"):  # 1 to 2
            pass
        with spans.part("gather"):  # 3 to 4
            pass
    assert spans.take() == {"forward": 3.0, "scatter": 1.0, "gather": 1.0}
    assert spans.take() == {}


def test_a_part_that_fails_is_closed():
    spans = Spans(Ticks())
    with pytest.raises(ValueError, match="no"), spans.part("forward"):
        raise ValueError("no")
    assert spans.current == ""


def test_waits_are_counted_in_parts_of_a_step_once():
    waits, spans = Waits(), Spans(Ticks())
    inner = waits.watched(lambda: "done")
    outer = waits.watched(lambda: inner())
    assert outer() == "done"
    waits.spans = spans
    assert outer() == "done"
    with spans.part("data"):
        outer()
    with spans.part("backward"):
        assert outer() == "done"
    assert spans.take() == {"data": 1.0, "backward": 2.0, "communication": 1.0}


def test_a_wait_in_a_side_stream_is_not_waited_for(monkeypatch):
    """With streams that are made up: nothing of CUDA is there."""
    current = ["computing"]

    class Stream:
        device = 0

        def __init__(self, name: str) -> None:
            self.name = name
            self.waited: list[Any] = []

        def wait_event(self, event: Any) -> None:
            self.waited.append(event)

    streams = {name: Stream(name) for name in ("computing", "side")}
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[current[0]])
    waits, spans = Waits(), Spans(Ticks())
    waits.watch_stream(0)
    waits.spans = spans
    reduce = waits.watched(lambda: None)
    with spans.part("backward"):
        streams["side"].wait_event("copied")
        current[0] = "side"
        reduce()
        current[0] = "computing"
    assert spans.take() == {"backward": 1.0}
    with spans.part("backward"):
        reduce()
        streams["computing"].wait_event("reduced")
    assert spans.take() == {"backward": 3.0, "communication": 2.0}
    assert [streams[name].waited for name in streams] == [["reduced"], ["copied"]]


def test_the_clock_fits_the_device(monkeypatch):
    assert isinstance(clock_for([0]), StreamClock)
    assert isinstance(clock_for([]), HostClock)
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = clock_for([0, 1])
    first, last = clock.mark(), clock.mark()
    assert clock.milliseconds(first, last) >= 0
    assert waited == [0, 1, 0, 1]


def test_the_clock_of_a_stream_waits_once(monkeypatch):
    calls: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:
            calls.append(stream)

        def elapsed_time(self, other: Any) -> float:
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda gpu: f"stream of {gpu}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda gpu: calls.append(gpu))
    spans = Spans(StreamClock(3))
    with spans.part("forward"):
        pass
    assert calls == ["stream of 3", "stream of 3"]
    assert spans.take() == {"forward": 2.5}
    assert calls[2:] == [3]


def test_parts_are_medians_over_steps():
    assert middle([{"forward": 1.0}, {"forward": 3.0, "gather": 9.0}, {"forward": 2.0}]) == {"forward": 2, "gather": 0}


def test_what_passes_last_longer_for_is_communication():
    whole = {"data": 1.0, "forward": 5.0, "backward": 20.0, "optimizer": 2.0}
    parts = split(whole, {"forward": 6.0, "backward": 12.0})
    assert parts == {"data": 1.0, "forward": 5.0, "backward": 12.0, "optimizer": 2.0, "communication": 8.0}
    assert sum(parts.values()) == sum(whole.values())


@pytest.mark.parametrize("name", ["mlp", "dcgan"])
def test_models_are_counted_without_memory(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else torch sets it
    spec = MODELS[name]
    found = flops.count(spec, spec.full)
    assert found["parameters"] > 1e6
    assert found["flops_per_sample"] > 5 * found["parameters"], "each weight is multiplied and added, three times"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_samples_are_the_same_for_every_rank(name):
    spec = MODELS[name]
    made = [samples(spec, spec.small, 3, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))
    assert all(len(tensor) == 3 for tensor in made[0])
    assert len(factories(spec, spec.small)) == (2 if spec.task == "gan" else 1)


def test_every_sample_of_a_masked_model_has_as_many_targets():
    spec = MODELS["bert-like"]
    ids, targets = samples(spec, spec.small, 5, torch.Generator().manual_seed(0))
    assert (targets != -100).sum(dim=1).tolist() == [10] * 5
    assert bool((ids[targets != -100] == 0).all())


def test_peak_memory_is_that_of_this_process():
    assert memory.peak_gpu_mib([]) == {}
    before = memory.peak_rss_mib()
    big = torch.ones(32 * 2**18)  # 32 MiB
    assert memory.peak_rss_mib() >= before
    assert 10 < before < 100_000
    del big


def test_dataparallel_parts_are_its_own_methods():
    from throughput_parts.training import Trainer

    class Parallel(torch.nn.DataParallel):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def scatter(self) -> str:
            return "scattered"

        def replicate(self) -> str:
            return "replicated"

        def parallel_apply(self) -> str:
            return "applied"

        def gather(self) -> str:
            return "gathered"

    module, spans = Parallel(), Spans(Ticks())
    trainer: Any = SimpleNamespace(_engines=[SimpleNamespace(_wrapped=module)])
    with Trainer._inside(trainer, spans), spans.part("forward"):
        assert [module.scatter(), module.replicate(), module.parallel_apply()] == ["scattered", "replicated", "applied"]
        module.gather()
    assert module.scatter() == "scattered"
    assert spans.take() == {"scatter": 1.0, "replicate": 1.0, "forward": 6.0, "gather": 1.0}
