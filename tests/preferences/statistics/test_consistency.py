"""How far raters agree with themselves: the formula of the ceiling, repeats, changes of mind, gold items."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.consistency import ceiling, consistency, gold_answer, reliability
from rlhf_tui.preferences.intervals import rate, wilson
from rlhf_tui.preferences.records import Fact, Verdict, prefer, tied

Make = Callable[..., Fact]


def twice(fact: Make, first: Verdict, again: Verdict, shown: tuple[int, ...] = (1, 2), task: int = 1) -> list[Fact]:
    """A judgement and its repeat, which stands in reverse order."""
    return [
        fact(first, shown, task_id=task),
        fact(again, shown[::-1], task_id=task, purpose="repeat", selection="repeat"),
    ]


@pytest.mark.parametrize(
    ("agreement", "single"),
    [(0.63, 0.755), (0.657, 0.780), (0.709, 0.823), (0.726, 0.836), (0.82, 0.900), (0.90, 0.947), (1, 1), (0.5, 0.5)],
)
def test_the_reliability_of_single_labels(agreement: float, single: float) -> None:
    assert reliability(agreement) == pytest.approx(single, abs=6e-4)


@given(single=st.floats(0.5, 1))
def test_reliability_solves_its_equation(single: float) -> None:
    """Two labels that are each right with chance c agree when both are right or both are wrong."""
    agreement = single**2 + (1 - single) ** 2
    assert reliability(agreement) == pytest.approx(single, abs=1e-7)


@given(agreement=st.floats(0, 0.5))
def test_less_than_half_is_a_coin(agreement: float) -> None:
    assert reliability(agreement) == 0.5


def test_the_ceiling_of_twenty_repeats() -> None:
    found = ceiling(rate(16, 20))
    low, high = wilson(16, 20)
    assert (found.n, found.enough) == (20, False)
    assert (found.value, found.low, found.high) == pytest.approx((0.887, reliability(low), reliability(high)), abs=1e-3)
    nothing = ceiling(rate(0, 0))
    assert (nothing.value, nothing.low, nothing.high, nothing.enough) == (None, None, None, False)


def test_repeats_count_by_completion_not_by_side(fact: Make) -> None:
    """The same completion again is the other side again."""
    facts = [
        *twice(fact, prefer(0, 1), prefer(1, 2), task=1),  # the same, more strongly
        *twice(fact, prefer(0), prefer(0), task=2),  # the other one, on the same side
        *twice(fact, prefer(1), tied(), task=3),
        *twice(fact, tied(), tied(), task=4),
        *twice(fact, Verdict("both_bad"), Verdict("both_bad"), task=5),
        *twice(fact, Verdict("both_bad"), prefer(0), task=6),
        *twice(fact, prefer(0), Verdict("skip"), task=7),
        *twice(fact, Verdict("discard"), prefer(0), task=8),
        fact(prefer(0), (1, 2), task_id=9, purpose="repeat"),  # the first answer was taken back
    ]
    found = consistency(facts)
    assert found.repeats == 6
    assert (found.same.successes, found.same.n) == (3, 6)
    assert (found.self_consistency.successes, found.self_consistency.n) == (1, 2)
    assert found.ceiling == ceiling(found.self_consistency)


def test_a_rater_is_held_against_themselves_only(fact: Make) -> None:
    mine, yours = twice(fact, prefer(0), prefer(1)), fact(prefer(1), (1, 2), task_id=1, rater="you")
    assert consistency([yours, *mine]).self_consistency.successes == 1


def test_rankings_ratings_and_acceptances_are_taken_apart(fact: Make) -> None:
    ranked = consistency(
        twice(fact, Verdict("ordered", ranks=(1, 2, 3)), Verdict("ordered", ranks=(3, 1, 1)), (1, 2, 3))
    )
    # then 1 > 2 > 3; now 3 is last, and 2 and 1 are equal
    assert (ranked.same.successes, ranked.same.n) == (2, 3)
    assert (ranked.self_consistency.successes, ranked.self_consistency.n) == (2, 2)
    rated = consistency(twice(fact, Verdict("rated", ratings=(5, 3)), Verdict("rated", ratings=(3, 4))))
    assert (rated.same.successes, rated.same.n) == (1, 2)
    assert (rated.self_consistency.successes, rated.self_consistency.n) == (1, 1)
    accepted = consistency(
        twice(fact, Verdict("accepted", accepted=(True, False)), Verdict("accepted", accepted=(True, True)))
    )
    assert (accepted.same.successes, accepted.same.n) == (1, 2)
    assert accepted.self_consistency.n == 0


def test_a_habit_of_side_is_told_from_noise(fact: Make) -> None:
    """Who always takes the first contradicts themselves on every repeat, and always for the same side."""
    habit = [one for k in range(20) for one in twice(fact, prefer(0), prefer(0), task=k)]
    found = consistency(habit)
    assert (found.flips.n, found.flips.side_habit, found.flips.noise) == (20, 20, 0)
    assert found.self_consistency.share == 0.0
    unsure = [one for k in range(20) for one in twice(fact, prefer(k % 2), prefer(k % 2), task=k)]
    noise = consistency(unsure).flips
    assert (noise.first_side, noise.second_side) == (10, 10)
    assert (noise.n, noise.side_habit, noise.noise) == (20, 0, 20)
    unreversed = [fact(prefer(0), (1, 2), task_id=1), fact(prefer(1), (1, 2), task_id=1, purpose="repeat")]
    assert consistency(unreversed).flips.elsewhere == 1


def test_the_ceiling_finds_the_noise_of_a_simulated_rater(fact: Make) -> None:
    """Each single label is right with chance 0.85: so the ceiling should say."""
    rng = random.Random(11)
    facts = []
    for task in range(3000):
        first, again = (0 if rng.random() < 0.85 else 1 for _ in range(2))
        facts += twice(fact, prefer(first), prefer(1 - again), task=task)
    found = consistency(facts).ceiling
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.85 < found.high
    assert found.high - found.low < 0.05


def test_gold_answers_are_right_by_completion(fact: Make) -> None:
    right = fact(prefer(0), (1, 2), task_id=1, rater="teacher")
    gold = {1: right}
    assert gold_answer(fact(prefer(1), (2, 1), task_id=1), gold) == (1, 1)
    assert gold_answer(fact(prefer(0), (2, 1), task_id=1), gold) == (0, 1)
    assert gold_answer(fact(tied(), (2, 1), task_id=1), gold) == (0, 1)
    assert gold_answer(fact(Verdict("both_bad"), (2, 1), task_id=1), gold) == (0, 1)
    assert gold_answer(right, gold) == (0, 0)
    assert gold_answer(fact(Verdict("skip"), task_id=1), gold) == (0, 0)
    assert gold_answer(fact(prefer(0), (2, 1), task_id=2), gold) == (0, 0)
