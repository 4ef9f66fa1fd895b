"""What reaches the terminal is text and nothing it would obey."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.display import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain — é 日本 🙂\nnext", "plain — é 日本 🙂\nnext"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]52;c;aGk=\x07", "]52;c;aGk="),
        ("a\x9b2Jb\x85c\x7fd\x00e", "a2Jbcde"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\tb\n\tc", "a   b\n    c"),
        ("bell\x07\x08\x0b\x0c", "bell"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_control_characters_go_and_text_stays(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters()))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    shown = clean(text)
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"] == []
    assert clean(shown) == shown
    shown.encode("utf-8")
