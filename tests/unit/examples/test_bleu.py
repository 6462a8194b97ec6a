"""BLEU of a corpus, by hand and by its properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared.bleu import bleu, counts, words

TEXTS = st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=10), min_size=1, max_size=5)


def of(*pairs: tuple[str, str]) -> float:
    return bleu(
        [sum(column) for column in zip(*(counts(told.split(), true.split()) for told, true in pairs), strict=True)]
    )


def test_a_word_counts_as_often_as_it_is_in_the_reference() -> None:
    """The example of Papineni et al. (2002), section 2.1: a modified unigram precision of 2/7."""
    found = counts(["the", "the", "the", "the", "the", "the", "the"], ["the", "cat", "is", "on", "the", "mat"])
    assert found[:4] == [7, 6, 2, 7]


def test_punctuation_marks_are_words() -> None:
    assert words("Nine hundred twenty-one.") == ["Nine", "hundred", "twenty", "-", "one", "."]


def test_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; as long as the reference
    expected = 100 * math.prod([5 / 6, 3 / 5, 2 / 4, 1 / 3]) ** 0.25
    assert of(("the cat sat on the mat", "the cat is on the mat")) == pytest.approx(0)
    assert of(("a b c d x f", "a b c d e f")) == pytest.approx(expected)


def test_what_is_short_pays_for_it() -> None:
    assert of(("a b c d", "a b c d e f")) == pytest.approx(100 * math.exp(1 - 6 / 4))


@given(TEXTS)
def test_the_reference_itself_has_100(texts: list[list[str]]) -> None:
    sums = [sum(column) for column in zip(*(counts(text, text) for text in texts), strict=True)]
    assert bleu(sums) == pytest.approx(100)


def test_of_nothing_it_is_0() -> None:
    assert bleu([0] * 10) == 0
