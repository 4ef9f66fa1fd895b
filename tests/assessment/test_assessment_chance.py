"""More than luck: against the exact binomial, and against the interval it is read from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.assessment.chance import LUCK, beats_coin, cases_to_beat_coin, effective, loses_to_coin, luck_in_words
from rlhf_tui.assessment.thresholds import READY
from rlhf_tui.preferences.intervals import Clusters, Rate, rate, wilson


def coin_at_least(successes: int, n: int) -> float:
    """The chance that a coin is right so often or more, exactly."""
    return sum(math.comb(n, k) for k in range(successes, n + 1)) / 2**n


@pytest.mark.parametrize("n", [30, 47, 60, 100, 233, 400])
def test_a_coin_passes_less_than_once_in_a_thousand_looks(n: int) -> None:
    least = next(k for k in range(n + 1) if beats_coin(rate(k, n)))
    assert coin_at_least(least, n) < 0.001
    assert coin_at_least(least - 1, n) > 0.0003  # and not needlessly strict


@given(st.integers(1, 2000), st.data())
def test_the_other_side_is_the_same(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    assert beats_coin(rate(right, n)) == loses_to_coin(rate(n - right, n))


@given(st.integers(1, 5000), st.data())
def test_independent_cases_are_worth_their_number(n: int, data: st.DataObject) -> None:
    assert effective(rate(data.draw(st.integers(0, n)), n)) == pytest.approx(n, rel=1e-6)


def test_cases_that_hang_together_are_worth_less() -> None:
    clusters = Clusters()
    for right in (10, 10, 0, 10, 10, 0, 10, 10):  # eight rankings, each all right or all wrong
        clusters.add(right, 10)
    assert effective(clusters.rate()) == pytest.approx(7, rel=0.01)
    assert not beats_coin(clusters.rate())
    assert beats_coin(rate(60, 80))


def test_nothing_is_worth_nothing() -> None:
    nothing = rate(0, 0)
    assert effective(nothing) == 0
    assert not beats_coin(nothing)
    assert not loses_to_coin(nothing)


@pytest.mark.parametrize("share", [0.55, 0.6, 0.72, 0.9])
def test_so_many_cases_and_no_fewer_show_it(share: float) -> None:
    n = cases_to_beat_coin(share)
    assert wilson(share * n * 1.001, n * 1.001, LUCK)[0] > 0.5
    assert wilson(share * n * 0.999, n * 0.999, LUCK)[0] < 0.5


def test_a_share_at_or_below_one_half_never_shows_it() -> None:
    assert cases_to_beat_coin(0.5) == math.inf
    assert cases_to_beat_coin(0.4) == math.inf


def test_what_beats_a_coin_and_is_ready_has_something_to_spare() -> None:
    """The low end of the usual interval is above 55 %: 'ready' need not ask for that besides."""
    for n in range(30, 400):
        for right in range(math.ceil(READY * n), n + 1):
            found = rate(right, n)
            assert not beats_coin(found) or found.low > 0.55


@pytest.mark.parametrize(
    ("right", "n", "words"), [(50, 100, "A coin does as well."), (40, 100, "A coin does as well.")]
)
def test_no_better_than_a_coin_is_said_so(right: int, n: int, words: str) -> None:
    assert luck_in_words(rate(right, n)) == words


def test_how_often_a_coin_gets_as_far() -> None:
    assert luck_in_words(rate(60, 100)) == "That may be luck: a coin gets as far once in 40 times."  # z = 2: 1 in 44
    assert luck_in_words(rate(55, 100)) == "That may be luck: a coin gets as far once in 6 times."  # z = 1: 1 in 6.3
    assert luck_in_words(Rate(0, 0, None, 0.0, 1.0)) == "A coin does as well."
