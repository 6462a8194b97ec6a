import pytest
from advise import _reason
from bench_parts.processes import ProcessFailed


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ('    raise RuntimeError("boom")\n[0] RuntimeError: boom\nlogs: out/failed', "[0] RuntimeError: boom"),
        ("[1] dtk_errors.StateMismatch: no\nTypeError: x", "TypeError: x"),
        ("the script made no step of a torch optimizer\nlogs: here", "the script made no step of a torch optimizer"),
        ("(no output)", "(no output)"),
    ],
)  # fmt: skip
def test_the_reason_is_the_error_and_not_its_line_of_source(output, reason):
    assert _reason(ProcessFailed(f"the ranks failed. The end of the output:\n{output}")) == reason
