"""Showing, answering, undo and redo: nothing said is lost, and only what holds is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.preferences.queue import next_task, remaining
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`


def rows(store: Store) -> int:
    return store.database.number("SELECT COUNT(*) FROM judgement")


def test_the_presentation_is_on_disk_before_the_answer(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill()
    guideline = store.set_guideline("Be brief.")
    shown = sit(store).show()
    other = sqlite3.connect(tmp_path / "preferences.db")
    written = other.execute("SELECT id, left_id, right_id, layout, guideline_id FROM presentation").fetchall()
    other.close()
    assert written == [(shown.id, shown.left.id, shown.right.id, "side by side", guideline.id)]


def test_sides_are_the_same_when_shown_again(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=20)
    me = sit(store)
    first = {task: me.show(task) for task in range(1, 21)}
    later = sit(store)  # a new session of the same rater
    for task, shown in first.items():
        again = later.show(task)
        assert (again.left, again.right) == (shown.left, shown.right)
        assert again.id != shown.id


def test_sides_are_balanced_and_differ_between_raters(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=400)
    me, you = sit(store), sit(store, "you")
    mine = [shown.left.id < shown.right.id for shown in map(me.show, range(1, 401))]
    yours = [shown.left.id < shown.right.id for shown in map(you.show, range(1, 401))]
    assert 160 <= sum(mine) <= 240  # 200 ± 4 standard deviations
    assert 160 <= sum(one != other for one, other in zip(mine, yours, strict=True)) <= 240


def test_a_judgement_becomes_a_pair_with_the_better_first(fill: Filled, sit: Sit) -> None:
    store = fill()
    shown = sit(store).show()
    number = store.judge(shown.id, outcome="ordered", winner_id=shown.right.id, strength=2, latency_ms=1)
    (pair,) = store.pairs()
    assert (pair.prompt, pair.chosen, pair.rejected) == (shown.prompt, shown.right, shown.left)
    assert (pair.tie, pair.strength, pair.weight, pair.rater, pair.judgement_id) == (False, 2, 1.0, "me", number)


def test_only_ordered_and_ties_are_pairs(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    for outcome in ("tie", "both_bad", "skip", "ordered"):
        me.answer(outcome)
    assert [(pair.tie, pair.strength) for pair in store.pairs()] == [(True, 0), (False, 1)]
    counts = store.counts()
    assert (counts.judgements, counts.pairs, counts.ties, counts.both_bad, counts.skipped) == (3, 1, 1, 1, 1)
    assert (counts.raters, counts.pairs_waiting) == (1, 1)


def test_heldout_prompts_never_reach_the_training_pairs(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=40)
    me = sit(store)
    while next_task(store, me.rater) is not None:
        me.answer()
    heldout = {prompt.id for prompt in store.prompts("heldout")}
    assert heldout
    assert {pair.prompt.id for pair in store.pairs("heldout")} == heldout
    assert not heldout & {pair.prompt.id for pair in store.pairs("train")}
    assert len(store.pairs("train")) + len(store.pairs("heldout")) == len(store.pairs()) == 40
    with pytest.raises(ValueError, match="split"):
        store.pairs("test")


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "better"},
        {"outcome": "ordered"},
        {"outcome": "tie", "winner_id": 1},
        {"outcome": "ordered", "winner_id": 999},
        {"outcome": "tie", "strength": 3},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(fill: Filled, sit: Sit, answer: dict[str, object]) -> None:
    store = fill()
    shown = sit(store).show(1)
    with pytest.raises(ValueError, match=r"outcome|winner|shown|strength"):
        store.judge(shown.id, latency_ms=1, **answer)  # type: ignore[arg-type]
    assert rows(store) == 0


def test_a_presentation_needs_a_session_of_its_rater(fill: Filled, sit: Sit) -> None:
    store = fill()
    me, you = sit(store), sit(store, "you")
    with pytest.raises(ValueError, match="session"):
        store.present(1, rater_id=me.rater, session_id=you.session, layout="x")


@pytest.mark.parametrize("table", ["judgement", "presentation", "revision"])
def test_what_was_said_cannot_be_changed_or_removed(fill: Filled, sit: Sit, table: str) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    store.undo(me.rater)
    for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id + 1"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.database.run(sql)


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
    store.judge(again.id, outcome="both_bad", latency_ms=1)
    assert store.redo(me.rater) is None  # a new answer ends redo
    assert [(entry.task_id, entry.outcome) for entry in store.history(me.rater)] == [(shown.task_id, "both_bad")]


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
    me.answer(task_id=1, side="left")
    before = store.pairs()
    me.answer(task_id=1, side="right")
    (changed,) = store.pairs()
    assert changed.chosen == before[0].rejected
    store.undo(me.rater)
    assert store.pairs() == before


def test_history_is_newest_first_and_says_which_side_won(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    shown = [me.answer(side="right"), me.answer("skip"), me.answer(side="left")]
    history = store.history(me.rater, limit=2)
    assert [(entry.task_id, entry.winner) for entry in history] == [
        (shown[2].task_id, "left"),
        (shown[1].task_id, None),
    ]
    assert history[0].prompt == shown[2].prompt.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["ordered", "tie", "skip", "undo", "redo"]), max_size=14))
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
            store.make_pair_tasks(prompt.id)
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
            else:
                task = step % 3 + 1
                me.answer(kind, task_id=task)
                done.append((task, kind))
                undone = []
            holds = dict(done)  # the newest answer to each task
            assert {judged.task_id: judged.outcome for judged in store.judgements()} == holds


# The queue


def test_the_queue_offers_every_pair_once_in_a_stable_random_order(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=30)
    me = sit(store)
    order = []
    for left in range(30, 0, -1):
        assert remaining(store, me.rater) == left
        assert next_task(store, me.rater) == next_task(store, me.rater)
        order.append(me.answer().task_id)
    assert next_task(store, me.rater) is None
    assert remaining(store, me.rater) == 0
    assert sorted(order) == list(range(1, 31)) != order
    assert store.undo(me.rater) is not None
    assert next_task(store, me.rater) == order[-1]


def test_what_was_skipped_comes_back_last_in_the_next_session(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=5)
    me = sit(store)
    skipped = [me.answer("skip").task_id, me.answer("skip").task_id]
    assert me.answer().task_id not in skipped
    assert remaining(store, me.rater) == 2
    store.end_session(me.session)
    later = sit(store)
    assert remaining(store, me.rater) == 4
    order = [later.answer().task_id for _ in range(4)]
    assert order[2:] == skipped
    assert store.counts(me.rater).skipped == 0


def test_pairs_that_nobody_judged_come_first(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=10)
    me, you = sit(store), sit(store, "you")
    taken = {me.answer().task_id for _ in range(5)}
    order = [you.answer().task_id for _ in range(10)]
    assert set(order[5:]) == taken
    assert store.counts().pairs_waiting == 0
    assert store.counts(me.rater).pairs_waiting == 5


def test_the_order_is_the_projects_own_and_any_machine_draws_it_again(tmp_path: Path, sit: Sit) -> None:
    def order(name: str, seed: int) -> list[str]:
        with Store.create(tmp_path / name, name=name, seed=seed) as store:
            store.add_prompts([NewPrompt((Message("user", str(k)),), "x") for k in range(20)], heldout_fraction=0.2)
            model = store.add_model("m", "base")
            for prompt in store.prompts():
                store.add_completions(NewCompletion(prompt.id, model, None, text) for text in "ab")
                store.make_pair_tasks(prompt.id)
            me = sit(store)
            shown = [me.answer() for _ in range(20)]
            return [f"{presentation.prompt.text}{presentation.left.text}" for presentation in shown]

    assert order("a", 1) == order("b", 1)
    assert [text[:-1] for text in order("c", 2)] != [text[:-1] for text in order("d", 1)]


# The hash a run records


def test_the_snapshot_hash_follows_what_holds(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    empty = store.snapshot_hash()
    me.answer()
    one = store.snapshot_hash()
    me.answer("skip")
    assert store.snapshot_hash() == one != empty
    me.answer("tie")
    two = store.snapshot_hash()
    assert two != one
    store.undo(me.rater)
    assert store.snapshot_hash() == one
    store.redo(me.rater)
    assert store.snapshot_hash() == two
