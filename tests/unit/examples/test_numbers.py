"""Numbers in words."""

import pytest
from shared.numbers import english, german


@pytest.mark.parametrize(
    ("number", "in_english", "in_german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (12, "twelve", "zwölf"),
        (17, "seventeen", "siebzehn"),
        (20, "twenty", "zwanzig"),
        (21, "twenty-one", "einundzwanzig"),
        (76, "seventy-six", "sechsundsiebzig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred one", "einhunderteins"),
        (321, "three hundred twenty-one", "dreihunderteinundzwanzig"),
        (1000, "one thousand", "eintausend"),
        (1001, "one thousand one", "eintausendeins"),
        (2030, "two thousand thirty", "zweitausenddreißig"),
        (101_101, "one hundred one thousand one hundred one", "einhunderteintausendeinhunderteins"),
        (999_999, "nine hundred ninety-nine thousand nine hundred ninety-nine",
         "neunhundertneunundneunzigtausendneunhundertneunundneunzig"),
    ],
)  # fmt: skip
def test_both_languages(number: int, in_english: str, in_german: str) -> None:
    assert english(number) == in_english
    assert german(number) == in_german


@pytest.mark.parametrize("words", [english, german])
def test_no_two_numbers_have_the_same_words(words) -> None:
    numbers = [*range(20_000), *range(20_000, 1_000_000, 997)]
    assert len({words(number) for number in numbers}) == len(numbers)
