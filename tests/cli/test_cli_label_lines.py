"""What a typed line means: every answer of every kind of task, every command, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.label_lines import (
    Command,
    Unclear,
    help_text,
    names,
    number_of,
    place_of,
    reasons,
    understand,
)
from rlhf_tui.preferences.records import FLAGS, KINDS, Verdict, prefer, tied

PAIR = {
    **dict.fromkeys(("d", "1", "a much", "A MUCH better"), prefer(0, 2)),
    **dict.fromkeys(("f", "F", "2", "a", "a  better"), prefer(0)),
    **dict.fromkeys(("=", " = ", "3", "tie", "equal"), tied()),
    **dict.fromkeys(("j", "4", "b", "B better"), prefer(1)),
    **dict.fromkeys(("k", "5", "b much"), prefer(1, 2)),
    **dict.fromkeys(("x", "both bad", "all bad"), Verdict("both_bad")),
}
LATER = {"s": Verdict("skip"), "S": Verdict("discard"), "SKIP": Verdict("skip"), "discard": Verdict("discard")}


@pytest.mark.parametrize("line", PAIR)
def test_a_pair_is_answered_with_keys_digits_and_words(line: str) -> None:
    assert understand(line, "pair", 2) == PAIR[line]


@pytest.mark.parametrize(
    ("line", "k", "verdict"),
    [
        ("2143", 4, Verdict("ordered", ranks=(2, 1, 4, 3))),
        ("2=14 3", 4, Verdict("ordered", ranks=(1, 1, 3, 2))),
        ("2 > 1", 2, Verdict("ordered", ranks=(2, 1))),
        ("=", 3, tied(3)),
        ("tie", 3, tied(3)),
        ("1=2=3", 3, tied(3)),
        ("x", 3, Verdict("both_bad")),
        ("all bad", 3, Verdict("both_bad")),
    ],
)
def test_a_ranking_is_answered_with_an_order(line: str, k: int, verdict: Verdict) -> None:
    assert understand(line, "rank", k) == verdict


@pytest.mark.parametrize("line", ["3 5 1", "351", "3,5,1", " 3,  5 1 "])
def test_marks_are_given_one_for_each(line: str) -> None:
    assert understand(line, "rate", 3) == Verdict("rated", ratings=(3, 5, 1))


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("a r", (True, False)),
        ("ar", (True, False)),
        ("A, A", (True, True)),
        ("accept reject", (True, False)),
        ("reject r", (False, False)),
        ("accept", (True,)),
        ("r", (False,)),
    ],
)
def test_accept_or_reject_one_for_each(line: str, accepted: tuple[bool, ...]) -> None:
    assert understand(line, "accept", len(accepted)) == Verdict("accepted", accepted=accepted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", LATER)
def test_anything_can_be_put_off_or_thrown_away(kind: str, line: str) -> None:
    assert understand(line, kind, 2) == LATER[line]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("u", Command("undo")),
        ("U", Command("redo")),
        ("Undo", Command("undo")),
        ("redo", Command("redo")),
        ("n Too long,  by far", Command("note", "Too long,  by far")),
        ("note", Command("note")),
        ("! wrong unsafe", Command("flag", "wrong unsafe")),
        ("!wrong", Command("flag", "wrong")),
        ("flag none", Command("flag", "none")),
        ("e a", Command("edit", "a")),
        ("edit 2", Command("edit", "2")),
        ("history", Command("history")),
        ("history 20", Command("history", "20")),
        ("reopen 3", Command("reopen", "3")),
        ("gold 1", Command("gold", "1")),
        ("i", Command("stats")),
        ("g", Command("guideline")),
        ("again", Command("again")),
        ("?", Command("help")),
        ("help", Command("help")),
        ("h", Command("history")),
        ("h 12", Command("history", "12")),
        ("q", Command("quit")),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_commands_mean_the_same_whatever_is_asked(kind: str, line: str, command: Command) -> None:
    assert understand(line, kind, 2) == command
    assert understand(line, kind, 0) == command, "and when nothing is open"


@pytest.mark.parametrize(
    ("kind", "k", "line", "said"),
    [
        ("pair", 2, "skp", "'skp' is not an answer. Did you mean 'skip'?"),
        ("pair", 2, "6", "'6' is not an answer."),
        ("pair", 2, "u u", "'u u' is not an answer."),
        ("pair", 2, "213", "'213' is not an answer."),
        ("rank", 3, "21", "Not in the order yet: 3."),
        ("rank", 3, "a", "'a' is not an answer."),
        ("rate", 2, "3", "2 candidates need 2 marks, one each in their order; here are 1."),
        ("rate", 2, "3 5 1", "2 candidates need 2 marks, one each in their order; here are 3."),
        ("rate", 2, "3 6", "A mark is one of 1 (worst), 2, 3, 4 and 5 (best)."),
        ("rate", 2, "10", "A mark is one of 1 (worst), 2, 3, 4 and 5 (best)."),
        ("rate", 2, "very well", "'very well' is not an answer."),
        ("accept", 2, "a", "2 candidates need 2 answers, one each in their order; here are 1."),
        ("accept", 2, "a b", "'a b' is not an answer."),
        ("accept", 1, "acept", "'acept' is not an answer. Did you mean 'accept'?"),
        ("pair", 0, "f", "There is nothing to answer now: u takes the last answer back, q leaves."),
    ],
)
def test_what_means_nothing_is_said_so(kind: str, k: int, line: str, said: str) -> None:
    with pytest.raises(Unclear, match=r".") as caught:
        understand(line, kind, k)
    assert str(caught.value) == said


@given(st.text(max_size=20), st.sampled_from(KINDS), st.integers(2, 6))
def test_any_line_is_an_answer_a_command_or_refused(line: str, kind: str, k: int) -> None:
    from rlhf_tui.preferences.judging import check_verdict

    size = 2 if kind == "pair" else k
    try:
        meant = understand(line, kind, size)
    except Unclear:
        return
    if isinstance(meant, Verdict):
        check_verdict(meant, kind, size)


def test_reasons() -> None:
    assert reasons("wrong unsafe") == ("wrong", "unsafe")
    assert reasons("Wrong, wrong,broken") == ("wrong", "broken")
    assert reasons("none") == ()
    for words, said in {"": "Say why.", "unsave": "Did you mean 'unsafe'?", "zzz": "Reasons are wrong, "}.items():
        with pytest.raises(Unclear, match=r".") as caught:
            reasons(words)
        assert said in str(caught.value)


def test_candidates_have_letters_in_a_pair_and_numbers_elsewhere() -> None:
    assert names("pair", 2) == ("A", "B")
    assert names("rank", 4) == ("1", "2", "3", "4")
    assert [place_of("b", "pair", 2), place_of("3", "rate", 3)] == [1, 2]
    with pytest.raises(Unclear, match=r"Which one: A or B\?"):
        place_of("c", "pair", 2)
    with pytest.raises(Unclear, match=r"Which one: 1 or 2\?"):
        place_of("", "accept", 2)


def test_numbers() -> None:
    assert [number_of("3"), number_of("", 5)] == [3, 5]
    for words in ("", "0", "-1", "two", "1.5", "9" * 30):
        with pytest.raises(Unclear, match=r"Give a number"):
            number_of(words)


@pytest.mark.parametrize("kind", KINDS)
def test_the_help_names_every_reason_and_the_way_out(kind: str) -> None:
    said = help_text(kind)
    assert all(name in said for name in FLAGS)
    assert "q leave" in said
