"""A sitting: what an answer becomes in the store, undo and redo, the guard against answers that come too early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlhf_tui.app.labelling import GUARD, Answer, Sitting, described, own_rater
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project


@pytest.fixture
def store(prompted: Project) -> Iterator[Store]:
    with prompted.store() as opened:
        yield opened


@pytest.fixture
def sitting(store: Store, clock: Any) -> Sitting:
    made = Sitting(store, own_rater(store), columns=80, rows=24, clock=clock)
    clock.now += 5
    return made


@pytest.fixture
def answer(sitting: Sitting, clock: Any) -> Callable[[Answer, int], bool]:
    def give(said: Answer, strength: int = 1) -> bool:
        clock.now += 5
        return sitting.answer(said, strength)

    return give


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


@pytest.mark.parametrize(
    ("said", "strength", "outcome", "side"),
    [
        ("left", 2, "ordered", "left"),
        ("left", 1, "ordered", "left"),
        ("tie", 1, "tie", None),
        ("right", 1, "ordered", "right"),
        ("right", 2, "ordered", "right"),
        ("both_bad", 1, "both_bad", None),
        ("skip", 1, "skip", None),
    ],
)
def test_an_answer_is_stored_as_it_was_given(
    sitting: Sitting, store: Store, said: Answer, strength: int, outcome: str, side: str | None
) -> None:
    shown = sitting.pair
    assert shown is not None
    sitting.note = "because"
    assert sitting.answer(said, strength)
    (stored,) = store.judgements()
    winner = {"left": shown.left.id, "right": shown.right.id, None: None}[side]
    assert (stored.outcome, stored.winner_id, stored.note) == (outcome, winner, "because")
    assert stored.latency_ms == 5000
    if outcome == "ordered":
        assert stored.strength == strength
    assert sitting.pair is not None
    assert sitting.pair.task_id != shown.task_id
    assert sitting.note == ""


def test_an_answer_within_the_guard_is_ignored(store: Store, clock: Any) -> None:
    sitting = Sitting(store, own_rater(store), columns=80, rows=24, clock=clock)
    clock.now += GUARD - 0.01
    assert not sitting.answer("left", 1)
    assert store.counts().judgements == 0
    clock.now += 0.02
    assert sitting.answer("left", 1)
    assert not sitting.answer("left", 1)
    assert store.counts().judgements == 1


def test_all_pairs_come_once_and_then_none(
    sitting: Sitting, store: Store, answer: Callable[[Answer, int], bool]
) -> None:
    tasks = []
    while sitting.pair is not None:
        tasks.append(sitting.pair.task_id)
        assert answer("left", 1)
    assert len(tasks) == len(set(tasks)) == 10
    assert (sitting.judged, sitting.left_over, sitting.total) == (10, 0, 10)
    assert not answer("left", 1)


def test_undo_shows_the_pair_again_and_a_new_answer_replaces_the_old(
    sitting: Sitting, store: Store, answer: Callable[[Answer, int], bool]
) -> None:
    first = sitting.pair
    answer("left", 1)
    assert sitting.undo()
    assert sitting.pair is not None
    assert first is not None
    assert (sitting.pair.task_id, sitting.pair.left.id) == (first.task_id, first.left.id)
    assert store.counts().judgements == 0
    answer("right", 2)
    (stored,) = store.judgements()
    assert (stored.winner_id, stored.strength) == (first.right.id, 2)


def test_redo_lets_the_answer_hold_again(sitting: Sitting, store: Store, answer: Callable[[Answer, int], bool]) -> None:
    first = sitting.pair
    answer("left", 1)
    sitting.undo()
    assert sitting.redo()
    assert store.counts().judgements == 1
    assert sitting.pair is not None
    assert first is not None
    assert sitting.pair.task_id != first.task_id
    assert not sitting.redo()


def test_there_is_an_end_to_undo(sitting: Sitting, answer: Callable[[Answer, int], bool]) -> None:
    answer("left", 1)
    assert sitting.undo()
    assert not sitting.undo()


def test_the_pace_is_the_median_of_this_sitting(
    sitting: Sitting, clock: Any, answer: Callable[[Answer, int], bool]
) -> None:
    assert math.isnan(sitting.seconds_each)
    answer("left", 1)
    answer("left", 1)
    clock.now += 10_000
    answer("left", 1)
    assert sitting.seconds_each == 7.5


@pytest.mark.parametrize(
    ("said", "strength", "expected"),
    [("left", 2, "A much better"), ("right", 1, "B better"), ("both_bad", 1, "both bad"), ("skip", 1, "skipped")],
)
def test_an_answer_in_words(said: Answer, strength: int, expected: str) -> None:
    assert described(said, strength) == expected
