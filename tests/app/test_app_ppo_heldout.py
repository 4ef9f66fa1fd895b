"""The window with the held-out scores of a PPO run: what it reads from the events, draws and says."""

from __future__ import annotations

import math

import pytest

from rlhf_tui.app.screens.ppo_heldout import GOLD, KEPT, SCORE, best_update, body, evaluations, picture, reading, table
from rlhf_tui.app.state import RunState
from rlhf_tui.runs.events import Checkpoint, Event, Metric, Stamped

RISING = [(0, 0.0, 0.0, 0.0), (5, 1.0, 0.8, 0.7), (10, 2.0, 1.5, 1.2)]
HACKED = [*RISING, (15, 3.0, 2.6, 0.4)]


def state_of(rows: list[tuple[int, float, float, float]], *, best: int | None = None) -> RunState:
    state = RunState()
    news: list[Event] = []
    for update, root_kl, score, gold in rows:
        values = {"heldout_root_kl": root_kl, "heldout_score": score, "heldout_length": 20.0, "heldout_eos_rate": 1.0}
        news.append(Metric(update, values if math.isnan(gold) else values | {"gold_score": gold}))
        if update:
            news.append(Metric(update, {"score": score}))  # the update's own numbers come with the same step
    if best is not None:
        news.append(Checkpoint(best, "checkpoints/best", best=True))
    for number, event in enumerate(news):
        state.apply(Stamped(t=float(number), event=event))
    return state


def test_every_evaluation_is_read_with_its_distance_and_scores() -> None:
    found = evaluations(state_of(HACKED))
    assert [(one.update, one.root_kl, one.score, one.gold) for one in found] == HACKED
    assert all((one.length, one.eos_rate) == (20.0, 1.0) for one in found)


def test_a_run_that_resumes_replaces_what_it_repeats() -> None:
    state = state_of(RISING)
    state.apply(Stamped(t=99.0, event=Metric(5, {"heldout_root_kl": 1.1, "heldout_score": 0.9})))
    assert [(one.update, one.root_kl) for one in evaluations(state)] == [(0, 0.0), (5, 1.1)]


def test_agreement_of_the_second_reward_model_is_said() -> None:
    said = reading(evaluations(state_of(RISING)), 10)
    assert "+0.00 → +1.50 at 4.0 nats" in said
    assert "Best within the KL budget: update 10." in said
    assert "agrees: +0.00 → +1.20" in said


def test_a_second_reward_model_that_falls_is_said_with_the_update_since_when() -> None:
    said = reading(evaluations(state_of(HACKED)), 10)
    assert "fallen by 0.80 since update 10" in said


def test_a_second_reward_model_that_goes_the_other_way_does_not_agree() -> None:
    said = reading(evaluations(state_of([(0, 0.0, -0.001, 0.001), (5, 1.0, 0.3, -0.1)])), 5)
    assert "+0.00 → +0.30 at 1.0 nats" in said  # never '-0.00'
    assert "does not agree: +0.00 → -0.10" in said


def test_without_a_second_reward_model_it_says_how_to_get_one() -> None:
    found = evaluations(state_of([(u, k, s, math.nan) for u, k, s, _ in RISING]))
    assert "reward.ensemble = 2" in reading(found, None)
    assert "–" in table(found, None).plain
    assert GOLD not in picture(found, None, 60, 10).plain


def test_nothing_measured_is_said_in_words() -> None:
    assert reading([], None).startswith("Nothing has been measured")
    assert body(RunState(), 60, 10).plain.startswith("Nothing has been measured")


@pytest.mark.parametrize(("width", "height"), [(20, 6), (60, 10), (140, 30)])
def test_the_picture_has_every_mark_and_fits(width: int, height: int) -> None:
    drawn = picture(evaluations(state_of(HACKED)), 10, width, height).plain
    rows = drawn.split("\n")
    assert len(rows) == height
    assert all(len(row) <= max(width, 15) for row in rows)
    assert drawn.count(KEPT) == 1
    assert drawn.count(SCORE) >= 2
    assert drawn.count(GOLD) >= 1
    assert "+3.0" in rows[0]


def test_the_best_is_the_newest_that_was_marked() -> None:
    state = state_of(HACKED, best=5)
    state.apply(Stamped(t=99.0, event=Checkpoint(10, "checkpoints/best", best=True)))
    state.apply(Stamped(t=99.0, event=Checkpoint(15, "checkpoints/step-000015")))
    assert best_update(state) == 10
    marked = [line.split()[0] for line in table(evaluations(state), 10).plain.split("\n") if line.endswith("best")]
    assert marked == ["10"]


def test_a_single_evaluation_is_drawn() -> None:
    assert SCORE in picture(evaluations(state_of(RISING[:1])), None, 40, 8).plain
