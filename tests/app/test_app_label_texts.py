"""Long and strange texts: broken into lines, compared word by word, formatted; all without a screen."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len, get_character_cell_size

from rlhf_tui.app import worddiff, wrapping
from rlhf_tui.app.formatted import markdown_lines
from rlhf_tui.app.worddiff import only_here
from rlhf_tui.app.wrapping import wrap
from rlhf_tui.preferences.display import clean

CJK, FAMILY = "漢字", "👩‍👩‍👧"
TEXTS = st.text(st.sampled_from("ab  \n-é漢\u0301😀\u200d…→|"), max_size=80).map(clean)


def lines(text: str, width: int) -> list[str]:
    return [text[start:end] for start, end in wrap(text, width)]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("", 5, [""]),
        ("\n", 5, ["", ""]),
        ("one two three", 7, ["one two", "three"]),
        ("one two", 20, ["one two"]),
        ("    indented line", 8, ["    inde", "nted", "line"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a bcdefgh", 3, ["a", "bcd", "efg", "h"]),
        ("ab   ", 3, ["ab "]),
        ("ab   cd", 3, ["ab ", "cd"]),
        ("漢字漢字", 4, ["漢字", "漢字"]),
        ("漢字漢字", 5, ["漢字", "漢字"]),
        ("é漢 éa", 4, ["é漢", "éa"]),
        ("x" + FAMILY + FAMILY, 3, ["x" + FAMILY, FAMILY]),
        ("e\u0301e\u0301e\u0301", 2, ["e\u0301e\u0301", "e\u0301"]),
    ],
)
def test_lines_break_between_words_where_they_can(text: str, width: int, expected: list[str]) -> None:
    assert lines(text, width) == expected


def test_a_width_of_one_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        wrap("漢", 1)


@given(TEXTS, st.integers(2, 12))
def test_no_line_is_too_wide_and_nothing_but_blanks_is_lost(text: str, width: int) -> None:
    found = wrap(text, width)
    assert all(cell_len(text[start:end]) <= width for start, end in found)
    assert all(before[1] <= after[0] for before, after in pairwise(found))
    assert "".join(lines(text, width)).replace(" ", "") == text.replace(" ", "").replace("\n", "")


@given(TEXTS, st.integers(2, 12))
def test_the_lines_in_view_do_not_depend_on_what_follows(text: str, width: int) -> None:
    whole = wrap(text, width)
    for cut in range(0, len(text), 7):
        early = wrap(text[:cut], width)
        assert early[: max(len(early) - 2, 0)] == whole[: max(len(early) - 2, 0)]


def test_the_quick_way_is_only_taken_for_characters_of_one_cell() -> None:
    taken = [chr(code) for code in range(32, 0x3000) if wrapping._NARROW.fullmatch(chr(code))]
    assert len(taken) > 600
    assert {get_character_cell_size(char) for char in taken} == {1}


# Words that only one text has


def own(text: str, other: str) -> list[str]:
    return [text[start:end] for start, end in only_here(text, other)]


def test_words_that_the_other_text_does_not_have_are_marked() -> None:
    assert own("The quick brown fox.", "The slow brown dog.") == ["quick", "fox"]
    assert own("The slow brown dog.", "The quick brown fox.") == ["slow", "dog"]
    assert own("the same", "the same") == []
    assert own("all of it", "") == ["all of it"]
    assert own("", "something") == []
    assert own("a line\nand one more", "a line") == ["and one more"]


def test_words_in_another_order_are_marked_once() -> None:
    assert own("b a", "a b") in (["a"], ["b"])


def test_white_space_is_no_difference_but_case_and_signs_are() -> None:
    assert own("a  b\tc\n", "a b c") == []
    assert own("Yes!", "yes!") == ["Yes"]
    assert own("so.", "so") == ["."]


def test_long_texts_are_compared_by_how_often_a_word_occurs() -> None:
    words = " ".join(f"w{n % 50}" for n in range(5000))
    assert worddiff.EXACT < 5000 * 100
    assert own(f"{words} fresh", words) == ["fresh"]
    assert own(words, words) == []
    assert own("a a a " + words, "a a " + words) == ["a"]


@given(TEXTS, TEXTS)
def test_marks_are_in_order_and_only_words(text: str, other: str) -> None:
    found = only_here(text, other)
    assert all(start < end for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    assert only_here(text, text) == []


# Markdown


def drawn(text: str, width: int = 40) -> str:
    return "\n".join("".join(part.text for part in line).rstrip() for line in markdown_lines(text, width))


def test_markdown_is_formatted() -> None:
    shown = drawn("Some *text* and `code`.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert "Some text and code." in shown
    assert "• one" in shown
    assert "|---" not in shown


def test_nothing_of_the_text_is_hidden() -> None:
    shown = drawn("<think>secret</think> ![alt](http://e.org/p.png) [here](http://e.org)\n\n<div>\nblock\n</div>", 60)
    for part in ("<think>secret</think>", "alt", "http://e.org/p.png", "here", "(http://e.org)", "<div>", "block"):
        assert part in shown


def test_formatting_makes_no_control_characters_and_no_links() -> None:
    lines = markdown_lines("&#27;[31m &#x202e; [x](http://e.org)", 60)
    text = "".join(part.text for line in lines for part in line)
    assert text == clean(text)
    assert not [part for line in lines for part in line if part.style and part.style.link]


@pytest.mark.parametrize("text", ["", "[" * 3000, "> " * 3000, "`" * 3000, "*" * 3000, CJK * 2000, "#" * 3000])
def test_degenerate_markdown_is_drawn(text: str) -> None:
    for line in markdown_lines(text, 20):
        assert sum(cell_len(part.text) for part in line) <= 20
