"""Lists of ranks, and --quiet-ranks in a plan and in a job."""

from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.jobs import build_job
from dtk_launch.options import SubmitOptions
from dtk_launch.ranklist import parse_ranks


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("", []), ("3", [3]), ("0,2-5", [0, 2, 3, 4, 5]), (" 1 , 7 ", [1, 7]), ("others", range(1, 9)), ("all", range(9))],
)
def test_lists(text, ranks):
    named = parse_ranks(text, "--rank")
    assert [rank for rank in range(9) if rank in named] == list(ranks)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "'x' is no rank"), ("1,,2x", "'2x' is no rank"), ("-1", "'-1' is no rank"), (",", "',' is no rank"),
        ("1-", "'1-' is no rank"), ("5-2", "5-2 goes backwards; pass 2-5"),
        ("1-8", "no rank 8, this launch has ranks 0 to 7"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text, said):
    with pytest.raises(PlanError, match=f"--quiet-ranks={text}: .*{said}"):
        parse_ranks(text, "--quiet-ranks", 8)


def test_a_plan_keeps_them_and_says_where_they_come_from(plan):
    made = plan(nproc="4", quiet_ranks="others")
    assert made.quiet_ranks == "others"
    (decision,) = [d for d in made.decisions if d.key == "quiet_ranks"]
    assert (decision.value, decision.source) == ("others", "flag --quiet-ranks")
    with pytest.raises(PlanError, match="no rank 4, this launch has ranks 0 to 3"):
        plan(nproc="4", quiet_ranks="1-4")
    with pytest.raises(PlanError, match="this launch has rank 0 alone"):
        plan(quiet_ranks="1")


def test_a_job_passes_them_on(facts):
    options = SubmitOptions(script="t.py", nproc="4", nodes="2", quiet_ranks="1-7")
    words = build_job(options, facts()).launch
    assert words[words.index("--quiet-ranks") + 1] == "1-7"
    assert "--quiet-ranks" not in build_job(replace(options, quiet_ranks=""), facts(cwd=Path("/w"))).launch
    with pytest.raises(PlanError, match="no rank 8"):
        build_job(replace(options, quiet_ranks="8"), facts())
    build_job(replace(options, quiet_ranks="8", nproc="auto"), facts())
