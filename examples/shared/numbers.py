"""Whole numbers in words, English and German: text to translate from one language to the other, without a download."""

from __future__ import annotations

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_EINER = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]  # fmt: skip
_ZEHNER = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def english(number: int) -> str:
    """Of 0 to 999,999: three hundred twenty-one."""
    if number >= 1000:
        rest = number % 1000
        return f"{english(number // 1000)} thousand" + (f" {english(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{_ONES[number // 100]} hundred" + (f" {english(rest)}" if rest else "")
    if number >= 20:
        return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


def german(number: int) -> str:
    """Of 0 to 999,999: dreihunderteinundzwanzig, the ones before the tens, in one word."""
    if number >= 1000:
        return f"{_before(number // 1000)}tausend{german(number % 1000) if number % 1000 else ''}"
    if number >= 100:
        return f"{_before(number // 100)}hundert{german(number % 100) if number % 100 else ''}"
    if number >= 20:
        ones = f"{_before(number % 10)}und" if number % 10 else ""
        return ones + _ZEHNER[number // 10 - 2]
    return _EINER[number]


def _before(number: int) -> str:
    """Before hundert, tausend or und: ein in place of eins."""
    words = german(number)
    return words.removesuffix("s") if words.endswith("eins") else words
