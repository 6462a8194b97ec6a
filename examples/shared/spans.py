"""Named entities in labels of words, and how many of those that are told are right."""

from __future__ import annotations

Span = tuple[int, int, str]
"""First word, the word behind the last, and the kind of an entity."""


def spans(labels: list[str]) -> set[Span]:
    """The entities of one text in IOB2 labels: B-KIND begins one, I-KIND continues it, O is outside.

    An I that continues nothing of its kind begins one, as in the script of the CoNLL shared tasks.
    """
    found: set[Span] = set()
    start, kind = 0, ""
    for place, label in enumerate([*labels, "O"]):
        if kind and label != f"I-{kind}":
            found.add((start, place, kind))
            kind = ""
        if not kind and label != "O":
            start, kind = place, label[2:]
    return found


def counts(told: list[str], true: list[str]) -> tuple[int, int, int]:
    """Of one text: entities that are told and true (same words, same kind), that are told, and that are true."""
    told_spans, true_spans = spans(told), spans(true)
    return len(told_spans & true_spans), len(told_spans), len(true_spans)


def f1(right: float, told: float, true: float) -> float:
    """The harmonic mean of precision (right / told) and recall (right / true), of counts over all texts; 0 of none."""
    return 2 * right / (told + true) if told + true else 0.0
