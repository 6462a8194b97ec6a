"""Which run is meant."""

import pytest
from dtk_launch.errors import DtkError
from dtk_launch.runref import find_run, runs_in


@pytest.fixture
def here(tmp_path):
    for name in ("runs/digits", "runs/imagenet", "elsewhere/digits"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "plan.json").touch()
    (tmp_path / "runs/plain/ranks").mkdir(parents=True)
    (tmp_path / "runs/notes").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("run", "found"),
    [
        ("digits", "runs/digits"), ("runs/digits", "runs/digits"), ("plain", "runs/plain"),
        ("elsewhere/digits", "elsewhere/digits"), ("./elsewhere/digits/", "elsewhere/digits"),
        ("runs/imagenet/plan.json", "runs/imagenet"),
    ],
)  # fmt: skip
def test_a_name_or_a_path(here, run, found):
    assert find_run(run, here) == here / found
    assert find_run(str(here / found), here / "runs") == here / found


def test_mistakes_name_what_is_there(here):
    with pytest.raises(DtkError, match=r"no run 'digist': neither .*runs/digist nor .*known: digits, .*mean digits"):
        find_run("digist", here)
    with pytest.raises(DtkError, match=r"runs/notes is no run directory: it has neither plan.json nor ranks/"):
        find_run("runs/notes", here)
    with pytest.raises(DtkError, match="there are none"):
        find_run("digits", here / "runs/notes")
    assert [path.name for path in runs_in(here / "runs")] == ["digits", "imagenet", "plain"]
    assert runs_in(here / "nothing") == []
