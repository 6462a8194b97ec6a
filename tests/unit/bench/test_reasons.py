import pytest
from advise import _reason
from advise_parts.summary import tells_of_memory
from bench_parts.processes import ProcessFailed


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ('    raise RuntimeError("boom")\n[0] RuntimeError: boom\nlogs: out/failed', "[0] RuntimeError: boom"),
        ("[1] dtk_errors.StateMismatch: no\nTypeError: x", "TypeError: x"),
        ("the script made no step of a torch optimizer\nlogs: here", "the script made no step of a torch optimizer"),
        ("(no output)", "(no output)"),
        ("dtk: rank 0 failed first: SIGKILL\nits output: out/0.err", "dtk: rank 0 failed first: SIGKILL"),
    ],
)  # fmt: skip
def test_the_reason_is_the_error_and_not_its_line_of_source(output, reason):
    assert _reason(ProcessFailed(f"the ranks failed. The end of the output:\n{output}")) == reason


def test_that_nothing_was_heard_is_said_whatever_the_output_ends_with():
    tail = ". The end of the output:\n  ValueError: x"
    why = "the ranks reported nothing for 900 s, and no optimizer step was seen in it: "
    assert _reason(ProcessFailed(f"the ranks reported nothing for 900 s{tail}")).startswith(why)
    late = "the ranks were not ready after 300 s"
    assert _reason(ProcessFailed(late + tail)) == late


@pytest.mark.parametrize(
    ("output", "memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("dtk: rank 1 failed first: killed by SIGKILL, by the kernel's out-of-memory killer", True),
        ("dtk: rank 1 failed first: killed by SIGKILL", False),
        ("MemoryBankError: x", False),
    ],
)
def test_which_failures_are_for_want_of_memory(output, memory):
    assert tells_of_memory(output) == memory
