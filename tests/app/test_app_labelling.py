"""A sitting: what an answer becomes in the store, undo and redo, edits, gold, and that nothing is lost or doubled."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.app.labelling import GUARD, Sitting, described, own_rater
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Presentation, Store

#: Without repeats every task is asked once.
ONCE = Rules(repeat_share=0.0)
PROMPTS = 10

Answer = Callable[..., bool]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Ten prompts with four candidates each, in twenty pairs."""
    path = tmp_path / "preferences.db"
    with Store.create(path, name="test", seed=7) as made:
        add(made, PROMPTS)
    with Store.open(path, patience=0.01) as opened:
        yield opened


def add(store: Store, prompts: int, source: str = "test") -> None:
    """Prompts with four candidates each, and their pairs."""
    known = len(store.prompts())
    rows = [NewPrompt((Message("user", f"{source} {number}?"),), source) for number in range(prompts)]
    store.add_prompts(rows, heldout_fraction=0.2)
    model = store.add_model("starter", "base")
    for prompt in store.prompts()[known:]:
        texts = [f"{prompt.text} answer {number}" for number in range(4)]
        store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
        store.make_tasks(prompt.id)


Sit = Callable[..., Sitting]


@pytest.fixture
def sit(store: Store, clock: Any) -> Sit:
    """Sits the first human rater down; the guard has passed."""

    def down(opened: Store | None = None, **rules: Any) -> Sitting:
        where = opened or store
        made = Sitting(
            where, own_rater(where), rules=Rules(**{"repeat_share": 0.0, **rules}), columns=80, rows=24, clock=clock
        )
        clock.now += 5
        return made

    return down


@pytest.fixture
def sitting(sit: Sit) -> Sitting:
    return sit()


@pytest.fixture
def answer(sitting: Sitting, clock: Any) -> Answer:
    def give(verdict: Verdict | None = None) -> bool:
        clock.now += 5
        return sitting.answer(verdict or prefer(0))

    return give


def on_show(sitting: Sitting) -> Presentation:
    assert sitting.shown is not None
    return sitting.shown


# Who


def test_the_first_human_rater_is_taken(store: Store) -> None:
    store.add_rater("demo", kind="model")
    store.add_rater("ada")
    assert own_rater(store).handle == "ada"


def test_without_a_human_rater_the_login_name_becomes_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "grace")
    assert (own_rater(store).handle, own_rater(store).kind) == ("grace", "human")


def test_without_a_login_name_it_is_you(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError

    monkeypatch.setattr("getpass.getuser", nobody)
    assert own_rater(store).handle == "you"


def test_a_login_name_that_a_model_has_is_left_to_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "demo")
    store.add_rater("demo", kind="model")
    assert own_rater(store).handle == "demo-human"


# Answering


@pytest.mark.parametrize(
    "verdict",
    [
        prefer(0, 2),
        prefer(0),
        tied(),
        prefer(1),
        prefer(1, 2),
        Verdict("both_bad"),
        Verdict("skip"),
        Verdict("discard"),
    ],
)
def test_an_answer_is_stored_as_it_was_given(sitting: Sitting, store: Store, verdict: Verdict) -> None:
    shown = on_show(sitting)
    sitting.note, sitting.flags = "because", ("wrong", "broken")
    assert sitting.answer(verdict)
    (stored,) = store.judgements()
    assert (stored.verdict, stored.note, stored.flags) == (verdict, "because", ("broken", "wrong"))
    assert (stored.shown, stored.latency_ms, stored.layout) == (shown.shown, 5000, "side-by-side")
    assert on_show(sitting).task_id != shown.task_id
    assert not sitting.note
    assert not sitting.flags


def test_a_note_and_flags_wait_for_the_task_that_was_left_without_an_answer(
    sitting: Sitting, store: Store, answer: Answer
) -> None:
    first = on_show(sitting)
    answer()
    second, sitting.note, sitting.flags = on_show(sitting), "hm", ("wrong",)
    assert sitting.undo()
    assert (on_show(sitting).task_id, sitting.note, sitting.flags) == (first.task_id, "", ())
    assert sitting.begun
    assert answer(prefer(1))
    assert (on_show(sitting).task_id, sitting.note, sitting.flags) == (second.task_id, "hm", ("wrong",))
    (entry,) = store.history(sitting.rater.id)
    sitting.reopen(entry.judgement_id)
    assert (sitting.note, sitting.begun) == ("", True)
    assert answer(tied())
    assert (sitting.note, sitting.flags) == ("hm", ("wrong",))
    assert answer(tied())
    assert not sitting.begun
    assert [fact.note for fact in store.judgements() if fact.note] == ["hm"]
    assert not sitting.note


def test_an_answer_is_on_disk_before_the_next_pair_is_drawn(
    sitting: Sitting, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = store.present

    def look(*words: Any, **named: Any) -> Presentation:
        other = sqlite3.connect(store.database.path)
        seen.append(other.execute("SELECT COUNT(*) FROM judgement").fetchone()[0])
        other.close()
        return real(*words, **named)

    monkeypatch.setattr(store, "present", look)
    sitting.answer(tied())
    assert seen == [1]


def test_an_answer_within_the_guard_is_ignored(store: Store, clock: Any) -> None:
    sitting = Sitting(store, own_rater(store), rules=ONCE, columns=80, rows=24, clock=clock)
    sitting.note = "typed already"
    clock.now += GUARD - 0.01
    assert sitting.too_early
    assert not sitting.answer(prefer(0))
    assert store.counts().judgements == 0
    assert sitting.note == "typed already"
    clock.now += 0.02
    assert sitting.answer(prefer(0))
    assert not sitting.answer(prefer(0))  # the next has only just appeared
    assert store.counts().judgements == 1


@pytest.mark.parametrize("step", ["undo", "reopen"])
def test_the_guard_holds_for_whatever_appears(sitting: Sitting, answer: Answer, step: str) -> None:
    answer()
    if step == "undo":
        sitting.undo()
    else:
        sitting.reopen(sitting.facts[-1].judgement_id)
    assert sitting.too_early
    assert not sitting.answer(tied())


def test_without_a_guard_every_answer_counts(store: Store, clock: Any) -> None:
    """Line mode: nobody holds a key there."""
    sitting = Sitting(store, own_rater(store), rules=ONCE, columns=80, rows=24, clock=clock, guard=0.0)
    assert sitting.answer(tied())
    assert sitting.answer(tied())


def test_all_pairs_come_once_and_then_none(sitting: Sitting, store: Store, answer: Answer) -> None:
    tasks = []
    while sitting.shown is not None:
        tasks.append(sitting.shown.task_id)
        assert (sitting.judged, sitting.left_over) == (len(tasks) - 1, 21 - len(tasks))
        assert answer()
    assert len(tasks) == len(set(tasks)) == 20
    assert (sitting.judged, sitting.left_over, sitting.total) == (20, 0, 20)
    assert not answer()
    assert sitting.facts == store.facts(sitting.rater.id)


def test_progress_counts_what_this_sitting_is_about(store: Store, sit: Sit, clock: Any) -> None:
    """Pairs judged before are no progress in a sitting that ranks."""
    first = sit()
    for _ in range(5):
        clock.now += 5
        first.answer(tied())
    ranking = sit(kind="rank", size=4)
    assert (ranking.judged, ranking.left_over, ranking.total) == (0, PROMPTS, PROMPTS)


@pytest.mark.parametrize(
    ("kind", "size", "verdict"),
    [
        ("rank", 4, Verdict("ordered", ranks=(2, 1, 4, 3))),
        ("rate", 2, Verdict("rated", ratings=(5, 2))),
        ("accept", 4, Verdict("accepted", accepted=(True, False, True, False))),
    ],
)
def test_every_mode_shows_its_own_kind(
    store: Store, sit: Sit, clock: Any, kind: str, size: int, verdict: Verdict
) -> None:
    sitting = sit(kind=kind, size=size)
    count = 0
    while sitting.shown is not None:
        assert (sitting.shown.kind, len(sitting.shown.shown)) == (kind, size)
        clock.now += 5
        assert sitting.answer(verdict)
        count += 1
    assert count == PROMPTS * 4 // size
    assert {judged.verdict for judged in store.judgements()} == {verdict}


def test_a_verdict_of_another_kind_changes_nothing(sitting: Sitting, store: Store) -> None:
    before, sitting.note = on_show(sitting), "kept"
    with pytest.raises(ValueError, match="ranks"):
        sitting.answer(tied(3))
    assert (sitting.shown, sitting.note) == (before, "kept")
    assert store.facts() == []


def test_repeats_and_the_answers_to_them(store: Store, sit: Sit, clock: Any) -> None:
    store.add_rater("me", uid="me")  # a known uid: the places of repeats are drawn from it
    sitting = sit(repeat_share=0.25, repeat_from=8, repeat_gap=4)
    purposes = []
    while sitting.shown is not None:
        purposes.append(sitting.shown.purpose)
        clock.now += 5
        sitting.answer(prefer(0))
    assert 1 <= purposes.count("repeat") <= 6
    assert purposes.count("label") == sitting.judged == 20  # a repeat is no further task
    repeat = next(fact for fact in sitting.facts if fact.purpose == "repeat")
    label = next(fact for fact in sitting.facts if fact.purpose == "label" and fact.task_id == repeat.task_id)
    assert repeat.shown == label.shown[::-1]


# Undo, redo, reopen


def test_undo_shows_the_pair_again_and_a_new_answer_replaces_the_old(
    sitting: Sitting, store: Store, answer: Answer
) -> None:
    first = on_show(sitting)
    answer()
    assert sitting.undo()
    assert sitting.last == "taken back"
    assert (on_show(sitting).task_id, on_show(sitting).shown) == (first.task_id, first.shown)
    assert (store.counts().judgements, sitting.judged, sitting.left_over) == (0, 0, 20)
    answer(prefer(1, 2))
    (stored,) = store.judgements()
    assert stored.verdict == prefer(1, 2)
    assert (sitting.judged, sitting.left_over) == (1, 19)


def test_redo_lets_the_answer_hold_again(sitting: Sitting, store: Store, answer: Answer) -> None:
    first = on_show(sitting)
    answer()
    second = on_show(sitting)
    sitting.undo()
    assert sitting.redo()
    assert store.counts().judgements == 1
    assert first.task_id != on_show(sitting).task_id == second.task_id
    assert not sitting.redo()


def test_undo_reaches_back_into_earlier_sittings_and_ends(sitting: Sitting, sit: Sit, answer: Answer) -> None:
    answer()
    answer()
    sitting.close()
    later = sit()
    assert later.undo()
    assert later.undo()
    assert not later.undo()
    assert later.left_over == 20


def test_after_any_number_of_undos_every_pair_is_asked_once(sitting: Sitting, store: Store, answer: Answer) -> None:
    for _ in range(4):
        answer()
    for _ in range(3):
        sitting.undo()
    count = 1
    while sitting.shown is not None:
        assert answer()
        count += 1
    assert count == 20
    assert len({fact.task_id for fact in store.facts()}) == 20


def test_reopening_shows_the_same_order_and_the_new_answer_counts(
    sitting: Sitting, store: Store, answer: Answer
) -> None:
    first = on_show(sitting)
    answer(prefer(0))
    answer(tied())
    waiting = on_show(sitting)
    sitting.reopen(store.history(sitting.rater.id)[1].judgement_id)
    assert on_show(sitting).shown == first.shown
    assert answer(prefer(1))
    assert {fact.task_id: fact.verdict for fact in store.facts()}[first.task_id] == prefer(1)
    assert on_show(sitting).task_id == waiting.task_id
    assert (sitting.judged, sitting.left_over) == (2, 18)
    assert sitting.undo()  # and the first answer is there again
    assert {fact.task_id: fact.verdict for fact in sitting.facts}[first.task_id] == prefer(0)
    assert sitting.facts == store.facts(sitting.rater.id)


def test_reopening_works_when_nothing_is_left(sitting: Sitting, store: Store, answer: Answer) -> None:
    while sitting.shown is not None:
        answer()
    sitting.reopen(store.history(sitting.rater.id)[0].judgement_id)
    assert answer(tied())
    assert sitting.shown is None
    assert store.counts().ties == 1


def test_what_is_reopened_and_left_keeps_its_answer(sitting: Sitting, store: Store, answer: Answer) -> None:
    answer(tied())
    sitting.reopen(sitting.facts[0].judgement_id)
    sitting.advance()
    assert store.counts().ties == 1
    assert on_show(sitting).task_id != sitting.facts[0].task_id


def test_nobody_answers_in_the_name_of_another(sitting: Sitting, store: Store, clock: Any) -> None:
    other = Sitting(store, store.add_rater("other"), rules=ONCE, columns=80, rows=24, clock=clock)
    clock.now += 5
    other.answer(tied())
    theirs = store.facts(other.rater.id)
    clock.now += 5
    try:
        sitting.reopen(theirs[0].judgement_id)
        clock.now += 5
        sitting.answer(prefer(0))
    except (UserError, ValueError):
        pass  # refusing is as good
    assert store.facts(other.rater.id) == theirs


# Edits and gold


def test_an_edit_leaves_the_pair_on_show_and_beats_the_original(sitting: Sitting, store: Store) -> None:
    shown, sitting.note, sitting.flags = on_show(sitting), "still writing", ("wrong",)
    sitting.edit(1, "By hand.")
    assert (sitting.shown, sitting.note, sitting.flags) == (shown, "still writing", ("wrong",))
    (pair,) = store.pairs()
    assert (pair.chosen.text, pair.rejected) == ("By hand.", shown.shown[1])
    assert sitting.last == "better version stored"
    assert sitting.answer(prefer(0))
    assert len(store.pairs()) == 2
    assert sitting.left_over == 19


@pytest.mark.parametrize("text", ["", "   ", "same"])
def test_an_edit_that_is_none_is_refused_and_nothing_moves(sitting: Sitting, store: Store, text: str) -> None:
    shown = on_show(sitting)
    with pytest.raises(UserError, match=r"empty|same"):
        sitting.edit(0, shown.shown[0].text if text == "same" else text)
    assert sitting.shown == shown
    assert store.facts() == []


def test_an_edit_is_taken_back_and_given_again_without_moving_on(sitting: Sitting, store: Store) -> None:
    shown = on_show(sitting)
    sitting.edit(0, "By hand.")
    sitting.note = "still writing"
    assert sitting.undo()
    assert (sitting.shown, sitting.note, sitting.last) == (shown, "still writing", "edited answer taken back")
    assert store.pairs() == []
    assert sitting.left_over == 20
    assert sitting.redo()
    assert len(store.pairs()) == 1
    assert on_show(sitting).task_id == shown.task_id
    assert sitting.note == "still writing"


def test_an_edit_taken_back_is_never_asked_about(sitting: Sitting, answer: Answer) -> None:
    sitting.edit(0, "By hand.")
    edited = sitting.facts[0].task_id
    sitting.undo()
    while sitting.shown is not None:
        assert sitting.shown.task_id != edited
        answer()


def test_an_edit_counts_as_no_pair_of_the_queue(sitting: Sitting) -> None:
    sitting.edit(0, "By hand.")
    assert sitting.total == 20


def test_gold_is_marked_and_unmarked(sitting: Sitting, store: Store, answer: Answer) -> None:
    answer()
    number = sitting.facts[0].judgement_id
    assert sitting.gold(number)
    assert store.gold() == {sitting.facts[0].task_id: number}
    assert not sitting.gold(number)
    assert store.gold() == {}


def test_what_was_marked_as_gold_is_the_first_to_be_repeated(store: Store, sit: Sit, clock: Any) -> None:
    store.add_rater("me", uid="me")  # a known uid: the places of repeats are drawn from it
    sitting = sit(repeat_share=0.25, repeat_from=10, repeat_gap=4)
    while sitting.judged < 7:
        clock.now += 5
        sitting.answer(prefer(0))
    chosen = sitting.facts[2]
    sitting.gold(chosen.judgement_id)
    while on_show(sitting).purpose != "repeat":
        clock.now += 5
        sitting.answer(prefer(0))
    assert on_show(sitting).task_id == chosen.task_id


# When something fails


def test_an_answer_that_cannot_be_stored_stays_on_screen_with_its_note(
    sitting: Sitting, store: Store, clock: Any
) -> None:
    before, sitting.note, sitting.flags = on_show(sitting), "long and dear", ("unsafe",)
    writer = sqlite3.connect(store.database.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="locked"):
        sitting.answer(tied())
    assert (sitting.shown, sitting.note, sitting.flags) == (before, "long and dear", ("unsafe",))
    assert (sitting.judged, sitting.left_over, sitting.last) == (0, 20, "")
    assert math.isnan(sitting.seconds_each)
    writer.execute("ROLLBACK")
    writer.close()
    clock.now += 5
    assert sitting.answer(tied())
    (judged,) = store.judgements()
    assert (judged.note, judged.flags, judged.latency_ms) == ("long and dear", ("unsafe",), 10_000)


class Broken(Exception):
    """Whatever may happen."""


def broken(*_: object, **__: object) -> None:
    raise Broken


@pytest.mark.parametrize("what", ["present", "answer", "changed"])
def test_an_answer_is_never_given_twice_when_what_follows_fails(
    sitting: Sitting, store: Store, clock: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = on_show(sitting)
    sitting.note = "once"
    with monkeypatch.context() as patch:
        patch.setattr(store, what, broken)
        with pytest.raises(Broken):
            sitting.answer(prefer(0))
        assert sitting.shown is None
        assert not sitting.answer(prefer(0))  # the key is pressed again
    assert store.counts().judgements == 1
    clock.now += 5
    assert sitting.look()
    assert on_show(sitting).task_id != first.task_id
    assert sitting.note == ""
    clock.now += 5
    assert sitting.answer(tied())
    assert [judged.note for judged in store.judgements()] == ["once", ""]
    assert sitting.facts == store.facts(sitting.rater.id)


def test_an_undo_that_cannot_be_stored_changes_nothing(sitting: Sitting, store: Store, answer: Answer) -> None:
    answer()
    before, sitting.note = on_show(sitting), "dear"
    writer = sqlite3.connect(store.database.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    for step in (sitting.undo, lambda: sitting.edit(0, "By hand."), lambda: sitting.gold(1)):
        with pytest.raises(UserError, match="locked"):
            step()
    assert (sitting.shown, sitting.note, sitting.judged) == (before, "dear", 1)
    writer.execute("ROLLBACK")
    writer.close()
    assert store.counts().judgements == 1


# Others at work


def test_looking_changes_nothing_while_something_is_on_show(sitting: Sitting, store: Store) -> None:
    before, sitting.note = on_show(sitting), "typing"
    with Store.open(store.database.path) as elsewhere:
        add(elsewhere, 2, "more")
    assert not sitting.look()
    assert (sitting.shown, sitting.note) == (before, "typing")
    assert sitting.left_over == 24


def test_new_pairs_are_shown_when_nothing_was_left(sitting: Sitting, store: Store, answer: Answer) -> None:
    while sitting.shown is not None:
        answer()
    assert not sitting.look()
    with Store.open(store.database.path) as elsewhere:
        add(elsewhere, 2, "more")
    assert sitting.look()
    assert on_show(sitting).prompt.source == "more"
    assert (sitting.left_over, sitting.total) == (4, 24)
    assert sitting.too_early


def test_what_the_same_rater_answers_elsewhere_is_not_asked_again(
    sitting: Sitting, store: Store, sit: Sit, clock: Any
) -> None:
    with Store.open(store.database.path) as elsewhere:
        there = sit(elsewhere)
        assert on_show(there).task_id == on_show(sitting).task_id  # both have it on screen
        for _ in range(3):
            clock.now += 5
            there.answer(tied())
        clock.now += 5
        sitting.answer(prefer(0))  # answered in both: the later answer counts
    asked = []
    while sitting.shown is not None:
        asked.append(sitting.shown.task_id)
        clock.now += 5
        sitting.answer(prefer(0))
    assert len(asked) == 17
    assert len(sitting.facts) == len(store.facts()) == 20
    assert store.counts().ties == 2


# Pace and words


def test_the_pace_is_the_median_of_this_sitting_without_the_pauses(
    sitting: Sitting, clock: Any, answer: Answer
) -> None:
    assert math.isnan(sitting.seconds_each)
    answer()  # 10 seconds: the fixture waited too
    answer()
    assert sitting.seconds_each == 7.5
    clock.now += 10_000
    answer()
    assert sitting.seconds_each == 7.5


def test_a_sitting_is_recorded_from_beginning_to_end(sitting: Sitting, store: Store) -> None:
    find = "SELECT columns, rows, ended_at IS NULL FROM session"
    assert tuple(store.database.rows(find)[0]) == (80, 24, 1)
    sitting.close()
    sitting.close()
    assert tuple(store.database.rows(find)[0]) == (80, 24, 0)
    assert store.counts().completions == PROMPTS * 4  # the store is still open


@pytest.mark.parametrize(
    ("verdict", "kind", "expected"),
    [
        (prefer(0, 2), "pair", "A much better"),
        (prefer(1), "pair", "B better"),
        (tied(), "pair", "tie"),
        (Verdict("both_bad"), "pair", "both bad"),
        (Verdict("both_bad"), "rank", "all bad"),
        (Verdict("skip"), "rate", "skipped"),
        (Verdict("discard"), "pair", "discarded"),
        (Verdict("ordered", ranks=(2, 1, 3)), "rank", "2  1  3"),
        (Verdict("ordered", ranks=(2, 1, 2)), "rank", "2  1=3"),
        (tied(3), "rank", "tie"),
        (Verdict("rated", ratings=(5, 1)), "rate", "rated 5 1"),
        (Verdict("accepted", accepted=(True, False)), "accept", "yes no"),
    ],
)
def test_a_verdict_in_words(verdict: Verdict, kind: str, expected: str) -> None:
    assert described(verdict, kind) == expected
