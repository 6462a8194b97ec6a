"""Samples for masked language models, made anew at each look: which tokens are hidden is drawn each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

IGNORED = -100  # cross_entropy's own
Sample = dict[str, torch.Tensor]


def mask(ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator | None = None) -> Sample:
    """Hide tokens as Devlin et al. (2019): 15 % are to be told, of which 80 % are masked, 10 % replaced, 10 % left.

    Special tokens are never hidden, and no token is replaced by one.

    Args:
        ids: shape (tokens,).
        generator: None: torch's own, which a loader of dist_toolkit seeds for each sample.

    Returns:
        `input_ids` and `labels`, both of that shape; labels are IGNORED where nothing is to be told.
    """
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    drawn = torch.rand(len(ids), generator=generator).masked_fill(torch.isin(ids, special), 2.0)
    count = max(1, round(0.15 * int((drawn < 1).sum())))  # as many in each sample of the same length
    chosen = torch.zeros(len(ids), dtype=torch.bool).index_fill(0, drawn.argsort()[:count], True) & (drawn < 1)
    kind = torch.rand(len(ids), generator=generator)
    others = torch.randint(len(tokenizer), (len(ids),), generator=generator)
    others = torch.where(torch.isin(others, special), ids, others)
    hidden = torch.where(chosen & (kind < 0.8), tokenizer.mask_token_id, ids)
    hidden = torch.where(chosen & (kind >= 0.9), others, hidden)
    return {"input_ids": hidden, "labels": torch.where(chosen, ids, IGNORED)}


class Samples(Dataset[Sample]):
    """Rows of token ids with the special tokens around them, masked anew at each look."""

    def __init__(
        self, documents: list[list[int]], tokens: int, tokenizer: PreTrainedTokenizerFast, seed: int | None = None
    ) -> None:
        """Args: tokens: of a sample, special ones included. seed: the same random numbers at each look, to evaluate."""
        self._tokenizer, self._seed = tokenizer, seed
        self._start, self._end = (torch.tensor([id]) for id in (tokenizer.cls_token_id, tokenizer.sep_token_id))
        self._rows = [torch.tensor(row) for document in documents for row in self._cut(document, tokens)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        generator = None if self._seed is None else torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        return self._sample(index, generator)

    def _cut(self, document: list[int], tokens: int) -> Iterator[list[int]]:
        raise NotImplementedError

    def _sample(self, index: int, generator: torch.Generator | None) -> Sample:
        raise NotImplementedError


class Rows(Samples):
    """RoBERTa's: whole rows of text, one segment each."""

    def _cut(self, document: list[int], tokens: int) -> Iterator[list[int]]:
        yield from whole_rows(document, tokens - 2)

    def _sample(self, index: int, generator: torch.Generator | None) -> Sample:
        return mask(torch.cat([self._start, self._rows[index], self._end]), self._tokenizer, generator)


class Pairs(Samples):
    """BERT's: two segments, of which the second follows the first in half of the samples, and else is from anywhere."""

    def _cut(self, document: list[int], tokens: int) -> Iterator[list[int]]:
        yield from whole_rows(document, 2 * ((tokens - 3) // 2))

    def _sample(self, index: int, generator: torch.Generator | None) -> Sample:
        first, second = self._rows[index].chunk(2)
        is_next = torch.randint(2, (), generator=generator)
        if not is_next:
            second = self._rows[int(torch.randint(len(self), (), generator=generator))].chunk(2)[1]
        sample = mask(torch.cat([self._start, first, self._end, second, self._end]), self._tokenizer, generator)
        types = (torch.arange(len(sample["input_ids"])) >= len(first) + 2).long()
        return sample | {"token_type_ids": types, "is_next": is_next}


def whole_rows(document: list[int], length: int) -> Iterator[list[int]]:
    """The document cut to rows of `length`, one behind the other; what is left at its end is not used."""
    for start in range(0, len(document) - length + 1, length):
        yield document[start : start + length]
