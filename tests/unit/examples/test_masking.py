"""Hidden tokens: how many, which, and by what."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from shared.masking import IGNORED, Pairs, Rows, mask, whole_rows
from shared.text import SPECIAL
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

WORDS = 200


def tokenizer_of(words: int) -> PreTrainedTokenizerFast:
    """Special tokens at 0 to 4, words from 5 on."""
    names = [*SPECIAL.values(), *(f"w{number}" for number in range(words))]
    model = models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=SPECIAL["unk_token"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **SPECIAL)


TOKENIZER = tokenizer_of(WORDS)
FEW = tokenizer_of(3)
IDS = st.lists(st.integers(0, 7), min_size=1, max_size=60)


@given(IDS, st.integers(0, 2**32 - 1))
def test_what_is_told_is_what_was_there_and_never_a_special_token(ids: list[int], seed: int) -> None:
    given_ids = torch.tensor(ids)
    sample = mask(given_ids, FEW, torch.Generator().manual_seed(seed))
    hidden, labels = sample["input_ids"], sample["labels"]
    chosen = labels != IGNORED
    special = given_ids < len(SPECIAL)
    assert not (chosen & special).any()
    assert torch.equal(labels[chosen], given_ids[chosen])
    assert torch.equal(hidden[~chosen], given_ids[~chosen])
    ordinary = int((~special).sum())
    assert int(chosen.sum()) == (max(1, round(0.15 * ordinary)) if ordinary else 0)
    put_in = hidden[chosen]
    assert ((put_in == FEW.mask_token_id) | (put_in >= len(SPECIAL))).all(), "a mask, or a word"


def test_of_a_hundred_thousand_tokens_the_shares_are_the_papers() -> None:
    ids = torch.randint(len(SPECIAL), len(TOKENIZER), (100_000,), generator=torch.Generator().manual_seed(0))
    sample = mask(ids, TOKENIZER, torch.Generator().manual_seed(1))
    chosen = sample["labels"] != IGNORED
    assert int(chosen.sum()) == 15_000
    masked = (sample["input_ids"] == TOKENIZER.mask_token_id)[chosen].float().mean()
    left = (sample["input_ids"] == ids)[chosen].float().mean()
    assert abs(masked - 0.80) < 0.01
    assert abs(left - 0.10) < 0.01
    replaced = sample["input_ids"][chosen & (sample["input_ids"] != ids) & (sample["input_ids"] != 4)]
    assert len(replaced.unique()) == WORDS, "by any word"


def test_the_same_generator_hides_the_same_tokens_and_another_others() -> None:
    ids = torch.arange(5, 105)
    once, again, other = (mask(ids, TOKENIZER, torch.Generator().manual_seed(seed))["labels"] for seed in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 12))
def test_rows_lose_no_token_but_the_tail(document: list[int], length: int) -> None:
    rows = list(whole_rows(document, length))
    assert all(len(row) == length for row in rows)
    assert [token for row in rows for token in row] == document[: len(document) // length * length]


def unmasked(sample: dict[str, torch.Tensor]) -> list[int]:
    return torch.where(sample["labels"] == IGNORED, sample["input_ids"], sample["labels"]).tolist()


def test_a_roberta_sample_is_a_row_between_its_special_tokens() -> None:
    rows = Rows([list(range(5, 30)), [5] * 3], 10, TOKENIZER, seed=0)
    assert len(rows) == 3
    assert unmasked(rows[1]) == [2, *range(13, 21), 3]


def test_a_bert_sample_tells_whether_its_second_segment_is_the_next_one() -> None:
    documents = [list(range(start, start + 8)) for start in range(5, 165, 8)]
    pairs = Pairs(documents, 11, TOKENIZER, seed=0)
    assert len(pairs) == len(documents)
    seen = set()
    for number, document in enumerate(documents):
        sample = pairs[number]
        row = unmasked(sample)
        assert row[:6] == [2, *document[:4], 3]
        assert row[-1] == 3
        seen.add(int(sample["is_next"]))
        if sample["is_next"]:
            assert row[6:-1] == document[4:]
        else:
            assert row[6:-1] in [other[4:] for other in documents]
        assert sample["token_type_ids"].tolist() == [0] * 6 + [1] * 5
    assert seen == {0, 1}


def test_without_a_seed_each_look_hides_others_and_with_one_the_same() -> None:
    documents = [list(range(5, 105))]
    torch.manual_seed(0)
    anew, fixed = Rows(documents, 102, TOKENIZER), Rows(documents, 102, TOKENIZER, seed=1)
    assert not torch.equal(anew[0]["labels"], anew[0]["labels"])
    assert torch.equal(fixed[0]["labels"], fixed[0]["labels"])
