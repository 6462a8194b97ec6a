"""The line of each key, by the parser itself."""

import sys

import hypothesis
from dtk_launch.toml_lines import key_lines
from hypothesis import strategies as st

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = '''# nproc = 1
"nproc" = 2

text = """
nproc = 9
[profile.fake]
"""
list = [
  "strategy = 1",  # ]
]
profile.small.nproc = 1
env = {A = "1", "B" = "x"}
[profile."big one"]  # nproc = 7
nproc = 3
[profile."big one".env]
C = "2"
[[jobs]]
a = 1
'''


def test_the_line_is_where_the_key_is_set_and_not_where_it_is_spoken_of():
    lines = key_lines(TEXT, tomllib.loads)
    expected = {
        ("nproc",): 2, ("text",): 4, ("list",): 8, ("profile",): 11, ("profile", "small"): 11,
        ("profile", "small", "nproc"): 11, ("env",): 12, ("env", "A"): 12, ("env", "B"): 12,
        ("profile", "big one"): 13, ("profile", "big one", "nproc"): 14, ("profile", "big one", "env"): 15,
        ("profile", "big one", "env", "C"): 16, ("jobs",): 17, ("jobs", "a"): 18,
    }  # fmt: skip
    assert lines == expected
    assert key_lines(TEXT.replace("\n", "\r\n"), tomllib.loads) == expected


@hypothesis.given(
    st.lists(st.sampled_from(["", "# x = 1", "@ = 1", "@ = [\n 1,\n]", "@ = '''\na = 1\n'''"]), max_size=9)
)
def test_every_key_is_found_in_a_line_that_holds_it(parts):
    text = "\n".join(part.replace("@", f"k{number}") for number, part in enumerate(parts))
    lines = key_lines(text, tomllib.loads)
    assert {key[0] for key in lines} == set(tomllib.loads(text))
    assert all(text.split("\n")[line - 1].startswith(key[0]) for key, line in lines.items())
