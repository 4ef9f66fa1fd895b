"""An answer in the making, and what the labelling screen says: pure functions, no screen."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import pytest

from rlhf_tui.app import keys
from rlhf_tui.app.screens import label_draft, label_panels
from rlhf_tui.app.screens.label_dialogs import card_from, card_text
from rlhf_tui.app.screens.label_draft import Draft, draft
from rlhf_tui.app.screens.label_panels import Progress
from rlhf_tui.app.widgets.candidate import Arrangement, arrangement
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.preferences.intervals import Estimate
from rlhf_tui.preferences.records import Completion, Fact, HistoryEntry, Message, Prompt, Verdict, prefer, tied
from rlhf_tui.preferences.statistics import label_report


def typed(signs: str, size: int = 4) -> Draft:
    now = draft("rank", size)
    for sign in signs:
        now = label_draft.with_sign(now, sign)
    return now


def fact(number: int, verdict: Verdict, *, kind: str = "pair", purpose: str = "label", task: int = 0) -> Fact:
    shown = (number * 2, number * 2 + 1) if purpose == "label" else (task * 2 + 1, task * 2)
    at = f"2026-11-23T18:{number % 60:02d}:00.000+00:00"
    return Fact(
        number,
        task or number,
        1,
        "ada",
        kind,
        purpose,
        "random",
        verdict,
        shown,
        (100, 300),
        "side-by-side",
        4000,
        None,
        at,
    )


# An order being typed


def test_an_order_is_typed_sign_by_sign() -> None:
    assert label_draft.verdict(typed("2143")) == Verdict("ordered", ranks=(2, 1, 4, 3))
    assert label_draft.verdict(typed("2=143")) == Verdict("ordered", ranks=(1, 1, 3, 2))
    assert label_draft.verdict(typed("1=2=3", 3)) == tied(3)


@pytest.mark.parametrize(("before", "sign"), [("", "="), ("2", "2"), ("2=", "="), ("", "5")])
def test_a_sign_that_cannot_come_next_is_refused_and_changes_nothing(before: str, sign: str) -> None:
    now = typed(before)
    with pytest.raises(ValueError, match=r"."):
        label_draft.with_sign(now, sign)


def test_an_untouched_draft_is_no_answer() -> None:
    for kind in ("rank", "rate", "accept"):
        assert not draft(kind, 3).touched
        with pytest.raises(ValueError, match="1, 2, 3"):
            label_draft.verdict(draft(kind, 3))


def test_an_order_that_is_not_whole_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="3"):
        label_draft.verdict(typed("214"))


def test_the_last_sign_is_taken_back() -> None:
    assert label_draft.erased(typed("21"), 0)[0] == typed("2")
    assert label_draft.erased(typed(""), 0)[0] == typed("")


def test_the_standing_of_each_candidate_shows_while_typing() -> None:
    now = typed("2=14")
    assert [label_draft.standing(now, place) for place in range(4)] == ["=best", "=best", "", "2nd"]


# Marks


def test_marks_are_given_in_turn_and_taken_back() -> None:
    now = draft("rate", 3)
    now = label_draft.with_mark(now, 0, 4)
    assert label_draft.next_open(now, 0) == 1
    now = label_draft.with_mark(now, 2, 1)
    assert label_draft.next_open(now, 2) == 1
    now = label_draft.with_mark(now, 1, 5)
    assert label_draft.next_open(now, 1) == 1
    assert label_draft.verdict(now) == Verdict("rated", ratings=(4, 5, 1))
    now, place = label_draft.erased(now, 1)
    assert (now.marks, place) == ((4, None, 1), 1)
    now, place = label_draft.erased(now, 1)
    assert (now.marks, place) == ((None, None, 1), 0)


def test_accept_and_reject() -> None:
    now = label_draft.with_mark(label_draft.with_mark(draft("accept", 2), 0, True), 1, False)
    assert label_draft.verdict(now) == Verdict("accepted", accepted=(True, False))
    assert [label_draft.standing(now, place) for place in (0, 1)] == ["✓ accepted", "✗ rejected"]


def test_a_mark_is_shown_as_dots_and_as_a_number() -> None:
    now = label_draft.with_mark(draft("rate", 2), 1, 2)
    assert [label_draft.standing(now, place) for place in (0, 1)] == ["", "●●○○○ 2"]


# How the panes stand


@pytest.mark.parametrize(
    ("count", "width", "height", "stacked", "expected"),
    [
        (2, 80, 13, False, Arrangement(2)),
        (2, 80, 13, True, Arrangement(1)),
        (2, 80, 9, True, Arrangement(1, folded=True)),
        (2, 60, 13, False, Arrangement(1)),
        (2, 50, 6, False, Arrangement(1, folded=True)),
        (2, 124, 37, False, Arrangement(2)),
        (3, 80, 14, False, Arrangement(2)),
        (3, 80, 11, False, Arrangement(2, folded=True)),
        (3, 124, 37, False, Arrangement(3)),
        (4, 124, 37, False, Arrangement(2)),
        (6, 124, 37, False, Arrangement(3)),
        (6, 80, 14, False, Arrangement(2, folded=True)),
        (1, 80, 4, False, Arrangement(1)),
    ],
)
def test_as_many_beside_each_other_as_can_be_read(
    count: int, width: int, height: int, stacked: bool, expected: Arrangement
) -> None:
    assert arrangement(count, width, height, stacked=stacked) == expected


def test_the_arrangement_has_a_name_for_the_store() -> None:
    names = [Arrangement(2).name, Arrangement(1).name, Arrangement(1, folded=True).name]
    assert names == ["side-by-side", "stacked", "one-at-a-time"]


# What is said


def test_the_conversation_ends_with_the_turn_that_is_answered() -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello\x07"),
        Message("user", "Why?"),
    )
    text, quiet, last = label_panels.asked(Prompt(1, "u", turns, "train", "test", ()))
    assert text == "system: Be brief.\nuser: Hi\nassistant: Hello\nWhy?"
    assert text[last:] == "Why?"
    assert [text[start:end] for start, end in quiet] == ["system: Be brief.\n", "user: Hi\n", "assistant: Hello\n"]


@pytest.mark.parametrize(
    ("tokens", "finish", "text", "expected"),
    [
        (40, "stop", "x", "40 tok"),
        (40, "length", "x", "40 tok · cut off"),
        (None, None, "xyz", "3 characters"),
        (40, "stop", "a\u200b\u202eb", "40 tok · 2 hidden"),
    ],
)
def test_what_may_be_known_of_a_candidate(tokens: int | None, finish: str | None, text: str, expected: str) -> None:
    one = Completion(1, "u", 1, text, tokens, finish, "secret-model", 1)
    assert label_panels.facts_and_hidden(one) == expected


def test_the_first_line_says_how_far_and_how_fast() -> None:
    assert str(label_panels.where(Progress("pair", 3, 7, 5.0), "ada")) == "Label  pair 4 of 10  ada"
    assert str(label_panels.where(Progress("rank", 0, 0, 5.0), "ada")) == "Label  nothing to judge  ada"
    assert str(label_panels.where(Progress("rate", 10, 0, 5.0), "ada")) == "Label  rating 10 of 10  ada"
    assert label_panels.pace(Progress("pair", 3, 7, 5.0)) == "30 % · 5s each · 35s left"
    assert label_panels.pace(Progress("pair", 3, 7, math.nan)) == "30 %"
    assert label_panels.pace(Progress("pair", 0, 0, math.nan)) == ""


def test_the_answer_panel_names_the_keys_that_the_user_has_chosen() -> None:
    mine = keys.keymap({"label.left": "a"})
    assert str(label_panels.answers("pair", draft("pair", 2), {}, 80)).startswith("d A much   f A better   space tie")
    assert str(label_panels.answers("pair", draft("pair", 2), {}, 46)) == (
        "d A much  f A  space tie  j B  k B much  x bad"
    )
    assert "a A better" in str(label_panels.answers("pair", draft("pair", 2), mine, 80))


def test_the_order_being_typed_is_shown_with_what_is_missing() -> None:
    assert "such as 4321" in str(label_panels.answers("rank", typed(""), {}, 80))
    assert str(label_panels.answers("rank", typed("2=1"), {}, 80)).startswith("2 = 1 > …   missing 3 4")
    assert "⏎ stores it" in str(label_panels.answers("rank", typed("2143"), {}, 80))


def test_an_answer_that_is_not_stored_is_said_before_everything_else() -> None:
    assert str(label_panels.remarks("A better", "why", ("wrong",), "B better")) == (
        "⚠ not stored: B better. Answer again."
    )
    said = str(label_panels.remarks("A better", "w\x07hy", ("wrong", "unsafe"), ""))
    assert said == "last: A better   flag: factually wrong, unsafe or offensive   note: why"


def test_both_ends_of_a_line_fit_and_the_left_is_cut_first() -> None:
    left, right = tinted("a long remark"), tinted("you")
    assert str(label_panels.ends(left, right, 20)) == "a long remark    you"
    assert str(label_panels.ends(left, right, 12)) == "a long…  you"


def test_numbers_are_grey_until_there_are_enough() -> None:
    few, many = [fact(n, prefer(n % 2)) for n in range(1, 9)], [fact(n, prefer(n % 2)) for n in range(1, 50)]
    tones = {}
    for name, facts in (("few", few), ("many", many)):
        rows = {row.label: row for row in label_panels.statistics(label_report(facts))}
        tones[name] = rows["first chosen"].tone
        assert (
            rows["first chosen"].value
            == f"{sum(n % 2 == 0 for n in range(1, len(facts) + 1)) / len(facts) * 100:.0f} %"
        )
    assert tones == {"few": "quiet", "many": ""}


def test_agreeing_with_oneself_is_said_once_there_is_a_repeat() -> None:
    once = [fact(1, prefer(0)), fact(2, prefer(1))]
    again = [*once, fact(3, prefer(1), purpose="repeat", task=1)]
    assert str(label_panels.yourself(label_report(once))) == ""
    assert str(label_panels.yourself(label_report(again))) == "you vs you 100 % (1/1)"
    assert str(label_panels.yourself(None)) == ""


def test_a_coefficient_is_written_as_it_is_and_a_share_in_percent() -> None:
    found = Estimate(-0.25, -0.5, 0.125, 40, enough=True)
    assert label_panels._estimate("alpha", found, True).value == "-0.250"
    share = label_panels._estimate("ceiling", Estimate(0.9, 0.8, 0.95, 40, enough=True))
    assert (share.value, share.note, share.tone) == ("90 %", "80 to 95 %", "")
    assert label_panels._estimate("ceiling", Estimate(None, None, None, 0, enough=False)).value == "-"


def test_the_last_answers_are_numbered_newest_first() -> None:
    shown = str(label_panels.last_answers([fact(n, prefer(0, 2)) for n in range(1, 6)], 2)).splitlines()
    assert [line.split()[0] for line in shown] == ["5", "4"]
    assert "A much better" in shown[0]
    assert str(label_panels.last_answers([], 3)) == "None yet."


def test_a_line_of_the_history_says_what_when_and_to_which_prompt() -> None:
    at = "2020-02-03T10:00:00+00:00"
    entry = HistoryEntry(7, 1, "pair", "label", prefer(1), "Why\x1b is the sky blue?", "n", (), False, "random", at)
    line = str(label_panels.history_line(entry, True, 70))
    assert line.startswith("* B better")
    assert "2020-02-03" in line
    assert "note" in line
    assert "Why is the sky" in line
    assert len(line) <= 70
    assert "better version" in str(label_panels.history_line(replace(entry, selection="edit"), False, 70))


def test_a_moment_of_today_is_told_without_its_date() -> None:
    now = datetime.fromisoformat("2026-11-23T20:00:00+00:00").astimezone()
    assert len(label_panels.clock_time("2026-11-23T20:00:00.000+00:00", now=now)) == 5
    assert label_panels.clock_time("2026-11-20T20:00:00.000+00:00", now=now).startswith("2026-11-2")


@pytest.mark.parametrize("kind", ["pair", "rank", "rate", "accept"])
def test_nothing_to_judge_says_why_and_what_to_press(kind: str) -> None:
    def key(action: str) -> str:
        return keys.key_of(keys.screen_of(kind), action)

    none = str(label_panels.nothing_left(Progress(kind, 0, 0, math.nan), "ada", "", "", key))
    assert "⏎ generates candidates" in none
    assert "M judges in another way" in none
    waits = str(label_panels.nothing_left(Progress(kind, 0, 0, math.nan), "ada", "generate-0003 is going on.", "", key))
    assert "generate-0003 is going on." in waits
    assert "by itself" in waits
    done = str(label_panels.nothing_left(Progress(kind, 12, 0, 4.0), "ada", "", "", key))
    assert "12 judgements by ada" in done
    assert "u goes back" in done
    assert "locked" in str(label_panels.nothing_left(Progress(kind, 0, 0, math.nan), "ada", "", "It is locked.", key))


def test_a_card_is_edited_as_lines_and_keeps_what_says_something() -> None:
    assert card_from("languages: en, de\nbackground:\nnonsense\n tone : dry: very \n") == {
        "languages": "en, de",
        "tone": "dry: very",
    }
    assert card_from(card_text({"languages": "en"})) == {"languages": "en"}
    assert card_from(card_text({})) == {}
