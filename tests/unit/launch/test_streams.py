"""Any name can be printed in any encoding."""

import io
import json
import sys

import pytest
from dtk_launch import streams
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def printed(monkeypatch):
    """What a stream of this encoding and these errors has written of a text."""

    def written(text, encoding, errors="strict"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", None)
        streams.never_fail()
        stream.write(text)
        stream.flush()
        return stream.buffer.getvalue()

    return written


def test_what_an_encoding_lacks_is_spelt_out(printed):
    assert printed("ünï 日 🙂", "latin-1") == b"\xfcn\xef \\u65e5 \\ud83d\\ude42"
    assert printed("ü", "utf-8") == b"\xc3\xbc"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_file_name_that_is_no_text_is_printed_as_its_bytes(printed, errors):
    assert printed("a\udcff\udcc3 ü", "ascii", errors) == b"a\xff\xc3 \\u00fc"


def test_a_stream_with_its_own_way_stays_as_it_is(printed):
    assert printed("ü", "ascii", "replace") == b"?"


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_json_stays_json(text):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    streams.never_fail()
    streams.spell_out_in(stream)
    stream.write(json.dumps(text, ensure_ascii=False))
    stream.flush()
    assert json.loads(stream.buffer.getvalue().decode("ascii")) == text
