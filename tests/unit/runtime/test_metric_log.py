import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.metric_log import json_line, read_metrics

NAMES = st.sampled_from(["loss", "accuracy", "lr"])
LINES = st.lists(st.tuples(st.integers(1, 5), st.dictionaries(NAMES, st.floats(), min_size=1)))


def not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@given(LINES)
def test_the_last_value_of_each_name_counts_and_every_line_is_json(tmp_path_factory, lines):
    path: Path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.write_text("".join(json_line(step, 1.5, means) for step, means in lines))
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=not_json)

    expected: dict[int, dict[str, float]] = {}
    for step, means in lines:
        for name, value in means.items():
            expected.setdefault(step, {})[name] = value if math.isfinite(value) else math.nan
    found = {entry["step"]: entry for entry in read_metrics(path)}
    assert list(found) == sorted(expected)
    for step, values in expected.items():
        assert {name: repr(value) for name, value in found[step].items()} == {
            "step": str(step),
            "time": "1.5",
            **{name: repr(value) for name, value in values.items()},
        }
