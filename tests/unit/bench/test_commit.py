"""What a result says of the code it measured: which commit, and which changes to it."""

import os
import subprocess

import pytest
from bench_parts import resume
from bench_parts.arguments import UsageError
from bench_parts.machine import code_of
from bench_parts.records import RecordFile

from tests.unit.bench.machine_record import MACHINE

HEAD = {**MACHINE, "options": {}}


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    (root / "dist_toolkit").mkdir(parents=True)
    (root / "dist_toolkit" / "secret.py").write_text("a = 1\n")
    (root / "README.md").write_text("words\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_changes_have_a_digest_that_tells_them_apart(checkout):
    clean = code_of(checkout)
    assert clean["uncommitted_changes"] is False
    assert "uncommitted_diff" not in clean
    seen = set()
    for content in (b"a = 2\n", b"a = 3\n", b"a = '\xff'\n", b"\0\1", b"\0\2"):
        (checkout / "dist_toolkit" / "secret.py").write_bytes(content)
        found = code_of(checkout)
        assert (found["commit"], found["uncommitted_changes"]) == (clean["commit"], True)
        assert int(found["uncommitted_diff"], 16) >= 0, "no content, no path"
        assert found == code_of(checkout)
        seen.add(found["uncommitted_diff"])
    assert len(seen) == 5
    (checkout / "dist_toolkit" / "secret.py").write_text("a = 1\n")
    assert code_of(checkout) == clean


def test_staged_or_not_a_change_is_the_same_and_documents_do_not_count(checkout):
    (checkout / "README.md").write_text("other words\n")
    assert code_of(checkout)["uncommitted_changes"] is False
    (checkout / "dist_toolkit" / "secret.py").write_text("a = 2\n")
    before = code_of(checkout)
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    assert code_of(checkout) == before


@pytest.mark.parametrize(
    ("name", "value"), [("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "ls")]
)
def test_how_git_shows_a_diff_does_not_matter(checkout, name, value):
    (checkout / "dist_toolkit" / "secret.py").write_text("a = 2\n")
    before = code_of(checkout)
    subprocess.run(["git", "config", name, value], cwd=checkout, check=True)
    assert code_of(checkout) == before


def test_an_installed_copy_has_no_commit(tmp_path):
    assert code_of(tmp_path) == {"commit": None, "uncommitted_changes": None}


DIRTY = {"uncommitted_changes": True, "uncommitted_diff": "0123456789ab"}
COPY = {"commit": None, "uncommitted_changes": None}


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (DIRTY, DIRTY, None),
        (DIRTY, DIRTY | {"uncommitted_diff": "ba9876543210"}, "uncommitted diff 0123456789ab, now ba9876543210"),
        ({"uncommitted_changes": True}, DIRTY, "uncommitted diff None, now 0123456789ab"),
        ({}, DIRTY, "uncommitted changes False, now True; uncommitted diff None, now 0123456789ab"),
        ({}, {}, None),
        (COPY, COPY, None),
        (COPY, COPY | {"dist_toolkit": "0.2.0"}, "dist toolkit 0.1.0, now 0.2.0"),
        (COPY, {}, "commit None, now 0123456789ab"),
    ],
)
def test_a_run_is_gone_on_with_by_the_same_code(tmp_path, then, now, message):
    with RecordFile(tmp_path, [HEAD | then]):
        pass
    if message is None:
        assert resume.kept(tmp_path, HEAD | now) == [HEAD | then]
    else:
        with pytest.raises(UsageError) as caught:
            resume.kept(tmp_path, HEAD | now)
        assert message in str(caught.value)


def test_git_takes_no_lock(checkout):
    """One that is killed with the benchmark would leave it."""
    os.utime(checkout / "dist_toolkit" / "secret.py", (1, 1))
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    assert code_of(checkout)["uncommitted_changes"] is False
    assert index.read_bytes() == before


def test_a_file_that_was_only_touched_is_in_no_digest(checkout):
    (checkout / "dist_toolkit" / "other.py").write_text("b = 1\n")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    before = code_of(checkout)
    os.utime(checkout / "dist_toolkit" / "secret.py", (1, 1))
    assert code_of(checkout) == before
