"""Entities of labels, by the examples of the CoNLL shared tasks; and their counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared.spans import counts, f1, spans

LABELS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=12)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("B-ORG O B-MISC O O O B-MISC O O", {(0, 1, "ORG"), (2, 3, "MISC"), (6, 7, "MISC")}),  # EU rejects German call
        ("B-PER I-PER", {(0, 2, "PER")}),  # Peter Blackburn
        ("B-LOC B-LOC", {(0, 1, "LOC"), (1, 2, "LOC")}),  # two that touch
        ("B-LOC I-LOC B-LOC I-LOC I-LOC", {(0, 2, "LOC"), (2, 5, "LOC")}),
        ("B-PER I-LOC", {(0, 1, "PER"), (1, 2, "LOC")}),  # of another kind: it begins one
        ("I-PER I-PER O", {(0, 2, "PER")}),  # IOB1
        ("O O", set()),
        ("", set()),
    ],
)
def test_conll(labels: str, found: set[tuple[int, int, str]]) -> None:
    assert spans(labels.split()) == found


@given(LABELS)
def test_spans_cover_what_is_labelled_and_do_not_overlap(labels: list[str]) -> None:
    covered = [place for start, end, _ in spans(labels) for place in range(start, end)]
    assert sorted(covered) == [place for place, label in enumerate(labels) if label != "O"]


def test_an_entity_counts_only_as_a_whole() -> None:
    true = ["B-PER", "I-PER", "O", "B-LOC"]
    assert counts(true, true) == (2, 2, 2)
    assert counts(["B-PER", "O", "O", "B-LOC"], true) == (1, 2, 2)
    assert counts(["B-LOC", "I-LOC", "O", "O"], true) == (0, 1, 2)


def test_f1_is_of_precision_and_recall() -> None:
    assert f1(3, 4, 6) == pytest.approx(2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
    assert f1(0, 0, 0) == 0
    assert f1(0, 5, 5) == 0
