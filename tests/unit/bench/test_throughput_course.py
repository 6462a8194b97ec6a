import pytest
from bench_parts.processes import ProcessFailed
from throughput_parts import course, fitting
from throughput_parts.arguments import parse
from throughput_parts.course import Course, reason

FAILED = """ddp x2 on mlp fp32 512 failed (exit code 1). The end of the output:
  [rank 1] Traceback (most recent call last):
  [rank 1]   File "x.py", line 1
  dtk: rank 1 failed first: ValueError
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FAILED, "dtk: rank 1 failed first: ValueError"),
        (FAILED + "  torch.OutOfMemoryError: CUDA out of memory.\n", "torch.OutOfMemoryError: CUDA out of memory."),
        ("it was not ready after 300 s", "it was not ready after 300 s"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(text, why):
    assert reason(text) == why


class Nobody:
    """Starts nothing: every mode fails at its start."""

    def __init__(self, options, modes, tell):
        self.modes, self.tell = modes, tell

    def __enter__(self):
        for mode in self.modes:
            self.tell(mode, ProcessFailed("it failed"))
        return []

    def __exit__(self, *error):
        return None


def test_a_run_goes_on_with_what_works(monkeypatch):
    """Every mode fails, and each workload is tried all the same; the largest batches too."""

    def find(options, mode):
        if mode.strategy == "dp":
            raise ProcessFailed("no room")
        return {"kind": "fit", **mode.key}

    monkeypatch.setattr(course, "running", Nobody)
    monkeypatch.setattr(course, "count", lambda model, size: {"parameters": 1, "flops_per_sample": 1.0})
    monkeypatch.setattr(fitting, "find", find)
    options = parse(["--models", "mlp", "--global-batch-size", "8,16", "--find-batch"], cores=2, gpus=0)
    records = []
    with pytest.raises(ProcessFailed, match="4 of 4 failed") as caught:
        Course(options, records.append, lambda text: None, []).run()
    kinds = [r["kind"] for r in records]
    assert [kinds.count(kind) for kind in ("model", "failed", "fit", "steps")] == [1, 6, 2, 0]
    assert "dp x2 on mlp fp32 16" in caught.value.where["failed"]

    again = []
    with pytest.raises(ProcessFailed):
        Course(options, again.append, lambda text: None, records).run()
    assert "model" not in [r["kind"] for r in again]
    assert "fit" not in [r["kind"] for r in again], "what was found is not looked for again"
