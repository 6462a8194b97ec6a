"""BLEU of a whole corpus (Papineni et al., 2002), from counts that ranks can sum."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = 4


def words(text: str) -> list[str]:
    """Words and punctuation marks, each one by itself: twenty-one has three."""
    return re.findall(r"\w+|[^\w\s]", text)


def counts(told: Sequence[str], true: Sequence[str]) -> list[int]:
    """Of one translation and its one reference, in words: 10 numbers, to be summed over all of them.

    Words told and words true; then, for n-grams of 1 to 4 words, how many match and how many are told.
    """
    found = [len(told), len(true)]
    for order in range(1, ORDERS + 1):
        of_told, of_true = _ngrams(told, order), _ngrams(true, order)
        found += [(of_told & of_true).total(), of_told.total()]
    return found


def bleu(sums: Sequence[float]) -> float:
    """From 0 to 100, of the sums of `counts`; 0 where no n-gram of some length matches."""
    told, true, *ngrams = sums
    precisions = [match / total if total else 0.0 for match, total in zip(ngrams[::2], ngrams[1::2], strict=True)]
    if min(precisions) == 0:
        return 0.0
    brevity = min(0.0, 1 - true / told)
    return 100 * math.exp(brevity + sum(map(math.log, precisions)) / ORDERS)


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
