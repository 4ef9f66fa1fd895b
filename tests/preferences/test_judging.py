"""Showing, answering, editing, gold, undo and redo: nothing said is lost, and only what holds is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences import judging
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`


def rows(store: Store, table: str = "judgement") -> int:
    return store.database.number(f"SELECT COUNT(*) FROM {table}")


def grouped(store: Store, kind: str, size: int = 3) -> Store:
    """The same completions, offered in another way."""
    for prompt in store.prompts():
        assert store.make_tasks(prompt.id, kind=kind, size=size) == 1
    return store


# Showing


def test_the_presentation_is_on_disk_before_the_answer(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill()
    guideline = store.set_guideline("Be brief.")
    shown = sit(store).show()
    other = sqlite3.connect(tmp_path / "preferences.db")
    written = other.execute("SELECT id, order_json, layout, guideline_id, selection, purpose FROM presentation")
    order = f"[{shown.shown[0].id},{shown.shown[1].id}]"
    assert written.fetchall() == [(shown.id, order, "side by side", guideline.id, "random", "label")]
    other.close()


@pytest.mark.parametrize("kind", ["pair", "rank"])
def test_the_order_is_the_same_when_shown_again(fill: Filled, sit: Sit, kind: str) -> None:
    store = fill(prompts=20, per_prompt=4)
    if kind == "rank":
        grouped(store, kind, 4)
    numbers = [row[0] for row in store.database.rows("SELECT id FROM task WHERE kind = ?", kind)]
    me = sit(store)
    first = {task: me.show(task) for task in numbers}
    later = sit(store)  # a new session of the same rater
    for task, shown in first.items():
        again = later.show(task)
        assert again.shown == shown.shown
        assert again.id != shown.id


def test_sides_are_balanced_and_differ_between_raters(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=400)
    for handle in ("me", "you"):
        store.add_rater(handle, uid=handle)  # a known uid: the sides are drawn from it
    me, you = sit(store), sit(store, "you")
    mine = [shown.shown[0].id < shown.shown[1].id for shown in map(me.show, range(1, 401))]
    yours = [shown.shown[0].id < shown.shown[1].id for shown in map(you.show, range(1, 401))]
    assert 160 <= sum(mine) <= 240  # 200 ± 4 standard deviations
    assert 160 <= sum(one != other for one, other in zip(mine, yours, strict=True)) <= 240


def test_every_candidate_of_a_ranking_stands_everywhere(fill: Filled, sit: Sit) -> None:
    store = grouped(fill(prompts=200, per_prompt=3), "rank")
    store.add_rater("me", uid="me")
    me = sit(store)
    numbers = [row[0] for row in store.database.rows("SELECT id FROM task WHERE kind = 'rank'")]
    orders = [[one.seed for one in me.show(number).shown] for number in numbers]
    for place in range(3):
        for seed in range(3):
            assert 40 <= sum(order[place] == seed for order in orders) <= 94  # 67 ± 4 standard deviations


def test_a_repeat_is_shown_in_the_reverse_order_every_time(fill: Filled, sit: Sit) -> None:
    store = grouped(fill(prompts=1, per_prompt=3), "rank")
    me = sit(store)
    number = store.database.number("SELECT id FROM task WHERE kind = 'rank'")
    shown = me.show(number)
    for session in (me.session, sit(store).session):
        again = store.present(
            number, rater_id=me.rater, session_id=session, layout="x", purpose="repeat", selection="repeat"
        )
        assert again.shown == shown.shown[::-1]
        assert again.purpose == "repeat"
    assert me.show(number).shown == shown.shown


def test_the_order_of_a_file_is_not_the_order_on_screen(fill: Filled, sit: Sit) -> None:
    """What was imported in this rater's name stood in the order of the file; on screen the stable hash decides."""
    store = fill(prompts=40)
    store.add_rater("me", uid="me")
    me = sit(store)
    for task, prompt in enumerate(store.prompts(), start=1):
        judging.add_presentation(
            store.database,
            task,
            rater_id=me.rater,
            session_id=None,
            purpose="label",
            order=[one.id for one in store.completions(prompt.id)],
            layout="file",
            selection="import",
        )
    as_in_the_file = [shown.shown[0].id < shown.shown[1].id for shown in map(me.show, range(1, 41))]
    assert 8 <= sum(as_in_the_file) <= 32  # 20 ± 4 standard deviations


def test_a_presentation_needs_a_session_of_its_rater(fill: Filled, sit: Sit) -> None:
    store = fill()
    me, you = sit(store), sit(store, "you")
    for task, session in ((1, you.session), (99, me.session), (1, 99)):
        with pytest.raises(ValueError, match="session"):
            store.present(task, rater_id=me.rater, session_id=session, layout="x")
    with pytest.raises(ValueError, match="no rater"):
        store.present(1, rater_id=99, session_id=me.session, layout="x")
    assert rows(store, "presentation") == 0


# Answering


def test_a_judgement_becomes_a_pair_with_the_better_first(fill: Filled, sit: Sit) -> None:
    store = fill()
    shown = sit(store).show()
    number = store.judge(shown.id, prefer(1, 2), latency_ms=1)
    (pair,) = store.pairs()
    assert (pair.prompt, pair.chosen, pair.rejected) == (shown.prompt, *shown.shown[::-1])
    assert (pair.tie, pair.strength, pair.weight, pair.rater, pair.judgement_id) == (False, 2, 1.0, "me", number)


def test_an_answer_is_kept_with_its_note_flags_and_time(fill: Filled, sit: Sit) -> None:
    store = fill()
    shown = sit(store).show()
    number = store.judge(shown.id, tied(), note="因为 🙂 [b]", flags=("wrong", "unsafe", "wrong"), latency_ms=1234)
    (judged,) = store.judgements()
    assert (judged.id, judged.note, judged.flags) == (number, "因为 🙂 [b]", ("unsafe", "wrong"))
    assert (judged.latency_ms, judged.layout, judged.rater.handle) == (1234, "side by side", "me")
    assert (judged.shown, judged.verdict, judged.prompt) == (shown.shown, tied(), shown.prompt)


@pytest.mark.parametrize(
    ("kind", "size", "verdict"),
    [
        ("rank", 3, Verdict("ordered", ranks=(2, 1, 3))),
        ("rank", 3, Verdict("ordered", ranks=(1, 2, 1))),
        ("rank", 3, tied(3)),
        ("rank", 3, Verdict("both_bad")),
        ("rate", 3, Verdict("rated", ratings=(1, 5, 5))),
        ("accept", 3, Verdict("accepted", accepted=(False, False, True))),
        ("accept", 3, Verdict("accepted", accepted=(False, False, False))),
        ("rate", 2, Verdict("skip")),
        ("accept", 2, Verdict("discard")),
    ],
)
def test_every_verdict_comes_back_as_it_was_given(
    fill: Filled, sit: Sit, kind: str, size: int, verdict: Verdict
) -> None:
    store = grouped(fill(prompts=1, per_prompt=size), kind, size)
    me = sit(store)
    number = store.database.number("SELECT id FROM task WHERE kind = ?", kind)
    shown = me.judge(verdict, number)
    (judged,), (fact,) = store.judgements(), store.facts()
    assert judged.verdict == fact.verdict == store.history(me.rater)[0].verdict == verdict
    assert (judged.kind, fact.kind) == (kind, kind)
    assert judged.shown == shown.shown
    said = verdict.outcome not in ("skip", "discard")
    assert fact.shown == (tuple(one.id for one in shown.shown) if said else ())
    assert fact.characters == (tuple(len(one.text) for one in shown.shown) if said else ())
    assert store.answer(me.rater, number, "label") == fact
    assert store.answer(me.rater, number, "repeat") is None


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("pair", Verdict("better")),
        ("pair", Verdict("ordered")),
        ("pair", Verdict("ordered", ranks=(1, 2))),  # of a pair: how much better?
        ("pair", Verdict("ordered", ranks=(1, 2), strength=3)),
        ("pair", Verdict("ordered", ranks=(1, 3), strength=1)),
        ("pair", Verdict("ordered", ranks=(1, 1), strength=1)),
        ("pair", Verdict("ordered", ranks=(1, 2, 3), strength=1)),
        ("pair", Verdict("ordered", ranks=(0, 1), strength=1)),
        ("pair", Verdict("tie")),
        ("pair", Verdict("tie", ranks=(1, 2))),
        ("pair", Verdict("tie", ranks=(2, 2))),
        ("pair", Verdict("tie", ranks=(1, 1), strength=2)),
        ("pair", Verdict("both_bad", ranks=(1, 1))),
        ("pair", Verdict("skip", strength=1)),
        ("pair", Verdict("rated", ratings=(1, 2))),
        ("pair", Verdict("accepted", accepted=(True, False))),
        ("rank", Verdict("ordered", ranks=(1, 2, 3), strength=1)),
        ("rank", Verdict("ordered", ranks=(1, 2))),
        ("rank", Verdict("ordered", ranks=(1, 2, 4))),
        ("rate", Verdict("rated", ratings=(0, 1, 2))),
        ("rate", Verdict("rated", ratings=(1, 6, 2))),
        ("rate", Verdict("rated", ratings=(1, 2))),
        ("rate", Verdict("rated", ratings=(1, 2, 3), ranks=(1, 2, 3))),
        ("rate", Verdict("both_bad")),
        ("accept", Verdict("accepted")),
        ("accept", tied(3)),
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused(fill: Filled, sit: Sit, kind: str, verdict: Verdict) -> None:
    store = fill(prompts=1, per_prompt=3)
    if kind != "pair":
        grouped(store, kind)
    shown = sit(store).show(store.database.number("SELECT id FROM task WHERE kind = ?", kind))
    with pytest.raises(ValueError, match=r"answer|candidates|ranks|ratings|strength"):
        store.judge(shown.id, verdict, latency_ms=1)
    assert rows(store) == rows(store, "judgement_item") == 0


def test_other_nonsense_is_refused_too(fill: Filled, sit: Sit) -> None:
    store = fill()
    shown = sit(store).show()
    with pytest.raises(ValueError, match="flags"):
        store.judge(shown.id, tied(), flags=("wrong", "ugly"), latency_ms=1)
    with pytest.raises(UsageError, match="half a character"):
        store.judge(shown.id, tied(), note="\ud83d", latency_ms=1)
    with pytest.raises(ValueError, match="no presentation"):
        store.judge(99, tied(), latency_ms=1)
    assert rows(store) == 0


@pytest.mark.parametrize("table", ["judgement", "judgement_item", "presentation", "revision"])
def test_what_was_said_cannot_be_changed_or_removed(fill: Filled, sit: Sit, table: str) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    store.undo(me.rater)
    column = "place" if table == "judgement_item" else "id"
    for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column} + 1"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.database.run(sql)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "INSERT INTO presentation SELECT 9, 'u', 1, rater_id, session_id, NULL, purpose, '[1]', '', 'random', 0, "
            "'' FROM presentation",
            "shows the candidates of its task",
        ),
        (
            "INSERT INTO presentation SELECT 9, 'u', 2, rater_id, session_id, NULL, purpose, order_json, '', 'random', "
            "0, '' FROM presentation",
            "shows the candidates of its task",
        ),
        (
            "INSERT INTO judgement SELECT 9, 'u', presentation_id, 2, rater_id, purpose, 'skip', 0, '', '[]', 1, '' "
            "FROM judgement",
            "answers what its rater was shown",
        ),
        (
            "INSERT INTO judgement SELECT 9, 'u', presentation_id, task_id, rater_id, 'repeat', 'skip', 0, '', '[]', "
            "1, '' FROM judgement",
            "answers what its rater was shown",
        ),
        (
            "INSERT INTO judgement_item SELECT judgement_id, 2, completion_id, 1, NULL, NULL FROM judgement_item",
            "where it was not shown",
        ),
    ],
)
def test_the_file_itself_refuses_what_was_not_shown(fill: Filled, sit: Sit, sql: str, said: str) -> None:
    store = fill()
    sit(store).answer(task_id=1)
    with pytest.raises(sqlite3.IntegrityError, match=said):
        store.database.run(sql)


def test_time_never_runs_backwards(fill: Filled, sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back must not make an old answer the newest."""
    store = fill()
    me = sit(store)
    me.answer(task_id=1, place=0)
    monkeypatch.setattr(judging, "now", lambda: "1999-01-01T00:00:00.000+00:00")
    me.answer(task_id=1, place=1)
    me.answer("tie", task_id=2)
    assert [judged.verdict for judged in store.judgements()] == [prefer(1), tied()]
    taken = [store.undo(me.rater), store.undo(me.rater)]
    assert [shown.task_id for shown in taken if shown] == [2, 1]
    given = store.redo(me.rater)
    assert given is not None
    assert given.task_id == 1
    assert [judged.verdict for judged in store.judgements()] == [prefer(1)]


# Reopening, editing, gold


def test_reopening_shows_the_same_order_and_a_new_answer_replaces_the_old(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    shown = me.answer(place=0)
    me.answer("tie")
    number = store.history(me.rater)[1].judgement_id
    again = store.reopen(number)
    assert again == shown
    assert rows(store) == 2  # only looked at
    store.judge(again.id, prefer(1, 2), latency_ms=1)
    assert rows(store) == 3
    verdicts = {judged.task_id: judged.verdict for judged in store.judgements()}
    assert verdicts[shown.task_id] == prefer(1, 2)
    with pytest.raises(ValueError, match="no judgement 99"):
        store.reopen(99)


def test_a_better_version_is_a_new_completion_and_beats_the_old(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=1)
    me = sit(store)
    original = me.show().shown[1]
    fact = store.edit(original.id, "  Written by hand 🙂 ", rater_id=me.rater, session_id=me.session)
    (pair,) = store.pairs()
    assert (pair.chosen.text, pair.rejected) == ("  Written by hand 🙂 ", original)
    assert (pair.strength, pair.tie, pair.weight) == (1, False, 1.0)
    assert pair.chosen.edited_from == original.id
    assert (fact.selection, fact.kind, fact.latency_ms, fact.verdict) == ("edit", "pair", None, prefer(0))
    assert me.who.handle not in pair.chosen.model  # a name that an export may show
    assert store.counts().pairs_waiting == 1  # nobody else is asked about it


def test_the_same_edit_twice_is_one_completion_and_two_of_one_original_are_two(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=1)
    me = sit(store)
    original = me.show().shown[0]
    for text in ("better", "better", "best"):
        store.edit(original.id, text, rater_id=me.rater, session_id=me.session)
    assert len(store.completions(original.prompt_id)) == 4
    assert len(store.pairs()) == 2


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), (" \n", "empty"), ("{} ", "the same"), ("\ud83d", "half a character")]
)
def test_an_edit_that_is_none_is_refused(fill: Filled, sit: Sit, text: str, said: str) -> None:
    store = fill(prompts=1)
    me = sit(store)
    original = me.show().shown[0]
    with pytest.raises(UsageError, match=said):
        store.edit(original.id, text.format(original.text), rater_id=me.rater, session_id=me.session)
    with pytest.raises(ValueError, match="no completion 99"):
        store.edit(99, "x", rater_id=me.rater, session_id=me.session)
    assert len(store.completions(original.prompt_id)) == 2
    assert rows(store) == 0


def test_an_edit_can_be_taken_back_and_given_again(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=1)
    me = sit(store)
    store.edit(1, "better", rater_id=me.rater, session_id=me.session)
    taken = store.undo(me.rater)
    assert taken is not None
    assert taken.selection == "edit"
    assert store.pairs() == []
    assert store.redo(me.rater) == taken
    assert len(store.pairs()) == 1


def test_gold_is_marked_and_unmarked(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    shown = me.answer()
    number = store.history(me.rater)[0].judgement_id
    assert store.mark_gold(number)
    assert store.gold() == {shown.task_id: number}
    assert store.history(me.rater)[0].gold
    assert not store.mark_gold(number)
    assert store.gold() == {}
    assert store.mark_gold(number)
    assert store.gold() == {shown.task_id: number}
    with pytest.raises(ValueError, match="judgement 99"):
        store.mark_gold(99)


def test_a_task_has_one_golden_answer_the_last_that_was_marked(fill: Filled, sit: Sit) -> None:
    store = fill()
    me, you = sit(store), sit(store, "you")
    me.answer(task_id=1)
    you.answer("tie", task_id=1)
    mine, yours = (store.history(one.rater)[0].judgement_id for one in (me, you))
    assert store.mark_gold(mine)
    assert store.mark_gold(yours)
    assert store.gold() == {1: yours}
    assert [store.history(one.rater)[0].gold for one in (me, you)] == [False, True]


def test_a_clock_that_was_set_back_does_not_keep_gold(fill: Filled, sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    number = store.history(me.rater)[0].judgement_id
    assert store.mark_gold(number)
    monkeypatch.setattr(judging, "now", lambda: "1999-01-01T00:00:00.000+00:00")
    assert not store.mark_gold(number)
    assert store.gold() == {}


@pytest.mark.parametrize("verdict", [Verdict("skip"), Verdict("discard")])
def test_what_says_nothing_cannot_be_the_known_answer(fill: Filled, sit: Sit, verdict: Verdict) -> None:
    store = fill()
    me = sit(store)
    me.judge(verdict)
    with pytest.raises(ValueError, match=r"skip|discard|says nothing"):
        store.mark_gold(store.history(me.rater)[0].judgement_id)
    assert store.gold() == {}


def test_an_answer_taken_back_is_no_longer_gold(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    store.mark_gold(store.history(me.rater)[0].judgement_id)
    store.undo(me.rater)
    assert store.gold() == {}
    store.redo(me.rater)
    assert len(store.gold()) == 1


def test_an_answer_its_rater_replaced_is_no_longer_gold(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer(task_id=1, place=0)
    store.mark_gold(store.history(me.rater)[0].judgement_id)
    me.answer(task_id=1, place=1)
    assert store.gold() == {}


# Undo and redo


def test_undo_takes_back_the_newest_and_loses_nothing(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    shown = me.answer("tie")
    assert store.undo(me.rater) == shown
    assert rows(store) == 2
    assert store.counts().judgements == 1
    store.close()
    with Store.open(tmp_path / "preferences.db") as reopened:  # persisted, and so is redo
        assert reopened.counts().ties == 0
        assert reopened.redo(me.rater) == shown
        assert reopened.counts().ties == 1


def test_a_presentation_taken_back_can_be_answered_again(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    shown = me.answer()
    again = store.undo(me.rater)
    assert again is not None
    store.judge(again.id, Verdict("both_bad"), latency_ms=1)
    assert store.redo(me.rater) is None  # a new answer ends redo
    history = [(entry.task_id, entry.verdict.outcome) for entry in store.history(me.rater)]
    assert history == [(shown.task_id, "both_bad")]


def test_undo_stops_at_the_beginning_and_leaves_others_alone(fill: Filled, sit: Sit) -> None:
    store = fill()
    me, you = sit(store), sit(store, "you")
    me.answer()
    you.answer()
    assert store.undo(me.rater) is not None
    assert store.undo(me.rater) is None
    assert store.redo(you.rater) is None
    assert [pair.rater for pair in store.pairs()] == ["you"]


def test_a_changed_answer_replaces_the_first_and_undo_brings_it_back(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer(task_id=1, place=0)
    before = store.pairs()
    me.answer(task_id=1, place=1)
    (changed,) = store.pairs()
    assert changed.chosen == before[0].rejected
    store.undo(me.rater)
    assert store.pairs() == before


def test_undo_takes_a_repeat_back_and_leaves_the_label(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer(task_id=1)
    shown = store.present(1, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat", selection="repeat")
    store.judge(shown.id, tied(), latency_ms=1)
    assert (store.counts().repeats, store.counts().judgements, len(store.pairs())) == (1, 1, 1)
    taken = store.undo(me.rater)
    assert taken == shown
    assert (store.counts().repeats, store.counts().judgements, len(store.pairs())) == (0, 1, 1)


def test_history_is_newest_first_and_says_which_won(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    shown = [me.answer(place=1), me.answer("skip"), me.answer(place=0)]
    history = store.history(me.rater, limit=2)
    assert [(entry.task_id, entry.verdict) for entry in history] == [
        (shown[2].task_id, prefer(0)),
        (shown[1].task_id, Verdict("skip")),
    ]
    assert history[0].prompt == shown[2].prompt.text


KINDS = ["ordered", "tie", "both_bad", "skip", "discard", "undo", "redo", "reopen"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(KINDS), max_size=16))
def test_undo_and_redo_behave_like_an_editor(
    tmp_path_factory: pytest.TempPathFactory, sit: Sit, steps: list[str]
) -> None:
    """Against the obvious model: a list of answers and a list of those taken back."""
    path = tmp_path_factory.mktemp("editor") / "p.db"
    done: list[tuple[int, str]] = []
    undone: list[tuple[int, str]] = []
    with Store.create(path, name="x", seed=1) as store:
        store.add_prompts([NewPrompt((Message("user", str(k)),), "x") for k in range(3)], heldout_fraction=0.2)
        model = store.add_model("m", "base")
        for prompt in store.prompts():
            store.add_completions(NewCompletion(prompt.id, model, None, text) for text in "ab")
            store.make_tasks(prompt.id)
        me = sit(store)
        for step, kind in enumerate(steps):
            if kind == "undo":
                shown = store.undo(me.rater)
                assert (shown is None) == (not done)
                undone += [done.pop()] if done else []
                assert shown is None or shown.task_id == undone[-1][0]
            elif kind == "redo":
                shown = store.redo(me.rater)
                assert (shown is None) == (not undone)
                done += [undone.pop()] if undone else []
                assert shown is None or shown.task_id == done[-1][0]
            elif kind == "reopen":
                history = store.history(me.rater)
                if history:
                    again = store.reopen(history[-1].judgement_id)
                    store.judge(again.id, Verdict("both_bad"), latency_ms=1)
                    done.append((again.task_id, "both_bad"))
                    undone = []
            else:
                task = step % 3 + 1
                me.answer(kind, task_id=task)
                done.append((task, kind))
                undone = []
            holds = dict(done)  # the newest answer to each task
            assert {judged.task_id: judged.verdict.outcome for judged in store.judgements()} == holds
