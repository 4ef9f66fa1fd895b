"""Numbers and times as people read them."""

from __future__ import annotations

import math

import pytest

from rlhf_tui.app import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (61, "1m01s"),
        (2400, "40m"),
        (10140, "2h49m"),
        (190_000, "2d4h"),
        (math.nan, "-"),
        (-1, "-"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.512, "0.512"),
        (1.844, "1.84"),
        (46.2, "46.2"),
        (402.0, "402"),
        (-0.021, "-0.021"),
        (8.1e-6, "8.1e-06"),
        (12345.6, "12346"),
        (math.nan, "-"),
        (0.0, "0"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert words.number(value) == text


def test_signed_percent_size_plural() -> None:
    assert words.signed(0.97) == "+0.970"
    assert words.signed(-2.5) == "-2.50"
    assert words.percent(0.714) == "71 %"
    assert words.size(3 * (1 << 30)) == "3.0G"
    assert words.size(5 * (1 << 20)) == "5M"
    assert words.plural(1, "pair") == "1 pair"
    assert words.plural(1200, "pair") == "1,200 pairs"


def test_one_line_and_wrapped() -> None:
    assert words.one_line("a\n b\t c", 10) == "a b c"
    assert words.one_line("abcdef", 4) == "abc…"
    assert words.wrapped("one two\n\nthree", 4) == ["one", "two", "", "thre", "e"]


@pytest.mark.parametrize(
    ("done", "total", "expected"), [(0, 4, "...."), (1, 4, "#..."), (9, 4, "####"), (1, 0, "....")]
)
def test_bar(done: int, total: int, expected: str) -> None:
    assert words.bar(done, total, 4, full="#", empty=".") == expected
