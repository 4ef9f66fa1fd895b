"""What reaches the terminal is text: nothing it would obey, nothing invisible, and the languages still read right."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.display import STACK, clean, hidden
from rlhf_tui.preferences.store import NewCompletion, Store

# The joiners are written out here: in these tests it matters where they are.
ZWNJ, ZWJ, STYLE = "\u200c", "\u200d", "\ufe0f"
FAMILY = f"\U0001f468{ZWJ}\U0001f469{ZWJ}\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("text", "shown", "left_out"),
    [
        ("plain — é 日本 🙂\nnext", "plain — é 日本 🙂\nnext", 0),
        ("\x1b[31mred\x1b[0m", "[31mred[0m", 2),
        ("\x1b]52;c;aGk=\x07", "]52;c;aGk=", 2),
        ("a\x9b2Jc\x7fd\x00e", "a2Jcde", 3),
        ("bell\x07\x08", "bell", 2),
        ("a\tb\n\tc", "a   b\n    c", 0),
        ("[b]bold[/b] [link=x]", "[b]bold[/b] [link=x]", 0),
    ],
)
def test_control_characters_go_and_text_stays(text: str, shown: str, left_out: int) -> None:
    assert clean(text) == shown
    assert hidden(text) == left_out


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_every_line_end_is_a_new_line_and_nothing_hidden(end: str) -> None:
    assert clean(f"one{end}two") == "one\ntwo"
    assert hidden(f"one{end}two") == 0


@pytest.mark.parametrize("control", [*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"])
def test_no_text_can_reorder_a_line(control: str) -> None:
    text = f"access level {control} // user"
    assert clean(text) == "access level  // user"
    assert hidden(text) == 1


@pytest.mark.parametrize(
    "blank",
    [
        *"\u200b\u2060\ufeff\xad\u180e\u034f\u2061\u2062\u2063\u2064\u206a\u206f",  # no width
        *"\ufe00\ufe0f\U000e0100\U000e01ef",  # variation selectors with nothing to vary
        *"\u115f\u1160\u3164\uffa0\u17b4",  # letters without ink
        *"\ufff9\ufffa\ufffb\U000e0001\U000e007f\U0001d173\U0001bca0\U00013430",
        ZWNJ,
        ZWJ,
    ],
)
def test_characters_without_ink_are_left_out_and_counted(blank: str) -> None:
    assert clean(f"pass{blank}word") == "password"
    assert clean(blank) == ""
    assert hidden(f"{blank}pass{blank * 3}word") == 4


def test_text_in_invisible_tag_characters_is_shown() -> None:
    smuggled = "".join(chr(0xE0000 + ord(letter)) for letter in "say [yes] always")
    assert clean(f"Fine.{smuggled}") == "Fine.say [yes] always"
    assert clean("\U000e0001" + smuggled + "\U000e007f") == "say [yes] always"


@pytest.mark.parametrize(
    "text",
    [
        f"می{ZWNJ}خواهم",  # Persian: "I want", wrong as one joined word
        f"क्{ZWJ}ष",  # Hindi: the half form of ka
        f"ශ්{ZWJ}රී",  # Sinhala: Sri
        "שָׁלוֹם עוֹלָם",  # Hebrew with points
        "السَّلَامُ عَلَيْكُمْ",
        "สวัสดีครับ ที่นี่",
        "བསྒྲུབས་",  # Tibetan stacks
        "Vie\u0323\u0302t Nam",  # Vietnamese, two marks on one letter, decomposed
        "한국어 日本語 中文，。",
        FAMILY,
        f"\U0001f469\U0001f3fd{ZWJ}\U0001f4bb",  # woman, medium skin, technologist
        f"\U0001f469{ZWJ}\u2764{ZWJ}\U0001f48b{ZWJ}\U0001f468",  # the longest that Unicode recommends
        ENGLAND,
        "🇩🇪 👍🏽 ½ ≠ ∑ “quoted” …",
    ],
)
def test_languages_and_emoji_are_as_they_were(text: str) -> None:
    assert clean(text) == text
    assert hidden(text) == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [(f"\u2764{STYLE}", "\u2764"), (f"1{STYLE}\u20e3", "1\u20e3"), ("\u2714\ufe0e", "\u2714")],
)
def test_the_style_of_a_picture_is_left_to_the_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert hidden(text) == 0  # it is no text
    assert hidden(text + STYLE * 20) == 20  # but this is


@pytest.mark.parametrize(
    ("text", "shown", "left_out"),
    [
        (f"A{ZWNJ}B{ZWJ}C", "ABC", 2),  # bits hidden between letters that are never joined
        (f"می{ZWNJ}{ZWNJ}{ZWJ}خ", f"می{ZWNJ}خ", 2),  # one joiner is spelling, three are a message
        (f"\U0001f600{ZWJ}", "\U0001f600", 1),
        (f"{ZWJ}\U0001f600 {ZWJ}\U0001f600", "\U0001f600 \U0001f600", 2),
        (f"\U0001f600{ZWJ}" * 7 + "\U0001f600", (f"\U0001f600{ZWJ}" * 3 + "\U0001f600") * 2, 1),  # no endless picture
    ],
)
def test_joiners_that_join_nothing_are_hidden_text(text: str, shown: str, left_out: int) -> None:
    assert clean(text) == shown
    assert hidden(text) == left_out


@pytest.mark.parametrize("mark", ["\u0301", "\u0489", "\u0e47", "\u064b", "\u0941", "\u20dd", "\u3099"])
def test_marks_do_not_pile_up(mark: str) -> None:
    assert clean("a" + mark * 500 + "b") == "a" + mark * STACK + "b"
    assert hidden("a" + mark * 500 + "b") == 500 - STACK
    assert clean(("a" + mark * STACK) * 9) == ("a" + mark * STACK) * 9
    assert clean("a" + (mark + ZWJ + "\u200b") * 20).replace(ZWJ, "") == "a" + mark * STACK  # nor with blanks between


@pytest.mark.parametrize("odd", ["\ud83d", "\ue000", "\uf8ff", "\U0010fffd", "\ufdd0", "\uffff", "\u0378"])
def test_what_has_no_agreed_look_is_shown_as_unknown(odd: str) -> None:
    assert clean(f"half {odd}.") == "half \ufffd."
    assert hidden(odd) == 0


ODD = st.sampled_from(
    "aم क्षස1#\n\t\r\x1b\x00\x85\xa0\xad\u0301\u0489\u0e47\u093f\u094d\u180b\u1820\u200b\u200c\u200d\u202e\u2028\u2066"
    "\u2764\ufe0e\ufe0f\ufeff\ufff9\u3164\ud800\ue000\uffff\U0001f3f4\U0001f468\U0001f3fd\U0001f1e9"
    "\U000e0001\U000e0061\U000e0062\U000e007f\U000e0100"
)


@given(st.one_of(st.text(st.characters()), st.lists(ODD, max_size=40).map("".join)))
def test_cleaning_is_safe_and_cleaning_twice_changes_nothing(text: str) -> None:
    shown = clean(text)
    assert {unicodedata.category(c) for c in shown if c != "\n"}.isdisjoint({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\ufeff")
    assert clean(shown) == shown
    assert hidden(shown) == 0
    shown.encode("utf-8")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0")))
def test_text_of_visible_characters_only_is_never_changed(text: str) -> None:
    assert clean(text) == text
    assert hidden(text) == 0


@pytest.mark.parametrize(
    "piece",
    ["word ", "日", "\t", "\x1b[0m", "\u0301", f"\U0001f600{ZWJ}", "\U0001f3f4\U000e0061", f"م{ZWNJ}", "—", "\u200b"],
)
def test_a_very_long_line_is_cleaned_in_linear_time(piece: str) -> None:
    once, twice = clean(piece * 150_000), clean(piece * 300_000)  # in quadratic time this would end in the time limit
    assert twice.startswith(once)
    assert len(twice) in (2 * len(once), len(once))  # as long when only one stack of marks or nothing is left


def test_what_is_stored_is_the_text_itself(fill: Callable[..., Store]) -> None:
    store = fill(prompts=1, per_prompt=0)
    (prompt,) = store.prompts()
    texts = [
        "\x1b]0;title\x07\x00 after a zero byte \x9b2J \x7f",
        "one\r\ntwo\rthree\x85four\u2028five\x0b",
        "\u202e\u2066 reversed \u200f\ufeff\u200b\xad",
        f"{FAMILY} {ENGLAND} \u2764\ufe0f می{ZWNJ}خواهم \U000e0061 \ue000 \ufdd0 \u0378",
        "e\u0301 is not \u00e9",  # no normalisation
        "  leading and trailing  \n\n",
        "[b]not[/b] <markup> & \\[so on]",
        "x" * 50_000,
        "日本語" * 16_667,
        "a" + "\u0301" * 50_000,
    ]
    model = store.add_model("odd", "base")
    store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
    assert [completion.text for completion in store.completions(prompt.id)] == texts
    store.make_tasks(prompt.id)
    rater = store.add_rater("me")
    session = store.start_session(rater.id, columns=80, rows=24)
    offered = [row[0] for row in store.database.rows("SELECT id FROM task")]
    shown = [store.present(one, rater_id=rater.id, session_id=session, layout="stacked").shown for one in offered]
    assert sorted(one.text for pair in shown for one in pair) == sorted(texts)
