"""Packed rows, and the tokenizer that a run keeps."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared import text
from tokenizers import Tokenizer

END = 3
DOCUMENTS = st.lists(st.lists(st.integers(5, 50), max_size=20), min_size=1, max_size=8)


@given(DOCUMENTS, st.integers(1, 16))
def test_packing_loses_no_token_but_the_tail(documents: list[list[int]], length: int) -> None:
    rows = text.packed(documents, length, END)
    stream = [token for document in documents for token in (*document, END)]
    assert rows.shape == (len(stream) // length, length)
    assert rows.flatten().tolist() == stream[: rows.numel()]
    assert len(stream) - rows.numel() < length


@pytest.mark.parametrize("said", ["def f(x):\n    return x * 2\n", "Grüße, 東京 \N{SLIGHTLY SMILING FACE}\t\r\n", ""])
def test_the_tokenizer_gives_back_any_text(said: str, tmp_path: Path) -> None:
    made = text.tokenizer_of(["def g(y):\n    return y\n"] * 3, 300, tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_str(made)
    assert tokenizer.decode(tokenizer.encode(said).ids) == said


def test_a_run_that_goes_on_keeps_its_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "run" / "tokenizer.json"
    first = text.tokenizer_of(["one two three"], 300, path)
    assert text.tokenizer_of(["quite another text"], 400, path) == first
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]


def test_a_folder_without_text_ends_the_script_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        text.documents(argparse.Namespace(hub=None, text=tmp_path, files=10))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"no .txt or .py file in {tmp_path}; pass --text FOLDER\n"
