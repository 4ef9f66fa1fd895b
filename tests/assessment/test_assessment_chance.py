"""More than luck: against the exact binomial, and against the interval it is read from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.assessment.chance import (
    LUCK,
    beats_coin,
    cases_to_beat_coin,
    enough_to_tell,
    loses_to_coin,
    luck_in_words,
)
from rlhf_tui.assessment.thresholds import LEAST_PROMPTS, READY
from rlhf_tui.preferences.intervals import Clusters, Rate, counted_as, rate, wilson


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
    found = rate(data.draw(st.integers(0, n)), n)
    assert counted_as(found) == counted_as(found, LUCK) == n


def test_cases_that_hang_together_are_worth_less() -> None:
    clusters = Clusters()
    for right in (10, 10, 0, 10, 10, 0, 10, 10):  # eight rankings, each all right or all wrong
        clusters.add(right, 10)
    # As many as 7 prompts; of 8 they count less, t being 2.365 with 7 degrees of freedom and 1.990 with 79.
    assert clusters.rate().worth == pytest.approx(7, rel=0.01)
    assert counted_as(clusters.rate()) == pytest.approx(7 * (1.990 / 2.365) ** 2, rel=0.01)
    assert not beats_coin(clusters.rate())
    assert beats_coin(rate(60, 80))


def test_nothing_is_worth_nothing() -> None:
    nothing = rate(0, 0)
    assert counted_as(nothing) == 0
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


# -- simulated: pairs of one prompt hang together, and there are few prompts ---------------------------

#: What a coin does once in 2000 looks: one side of a 99.9 % interval.
ASKED = 0.0005
LOOKS = 4000


def most_by_chance(chance: float, looks: int) -> int:
    """So many are exceeded in fewer than one of ten thousand tests: the binomial's quantile."""
    left, count, term = 1.0, 0, (1 - chance) ** looks
    while (left := left - term) > 1e-4:
        count += 1
        term *= (looks - count + 1) / count * chance / (1 - chance)
    return count


def passed(sizes: Sequence[int], shares: np.ndarray, seed: int, tell=beats_coin) -> int:
    """In how many draws a model passes that is right about each prompt's pairs so often. shares: (draws, prompts)"""
    right = np.random.default_rng(seed).binomial(np.asarray(sizes), shares)
    count = 0
    for row in right.tolist():
        clusters = Clusters()
        for successes, n in zip(row, sizes, strict=True):
            clusters.add(successes, n)
        count += tell(clusters.rate())
    return count


def coins(prompts: int, likeness: float) -> np.ndarray:
    """How often a model that is no better than a coin is right about the pairs of each prompt.

    `likeness` is the correlation of two pairs of a prompt: 0.3, or 1 where it is right about all or none.
    """
    rng = np.random.default_rng(1000 + prompts)
    if likeness == 1:
        return rng.integers(2, size=(LOOKS, prompts)).astype(float)
    spread = (1 / likeness - 1) / 2
    return rng.beta(spread, spread, size=(LOOKS, prompts))


@pytest.mark.parametrize("likeness", [0.3, 1.0])
@pytest.mark.parametrize("prompts", [2, 3, 5, 10, 40])
def test_a_coin_passes_no_more_often_on_few_prompts(prompts: int, likeness: float) -> None:
    """20 pairs of each prompt. Where the scatter of so few prompts is taken for the truth, a coin passes one look in
    20 on 2 prompts, one in 30 on 3 and one in 250 on 10 (likeness 0.3)."""
    allowed = most_by_chance(ASKED, LOOKS)
    assert allowed < 15
    for tell in (beats_coin, loses_to_coin):
        assert passed([20] * prompts, coins(prompts, likeness), prompts, tell) <= allowed


@pytest.mark.parametrize("prompts", [10, 40])
@pytest.mark.parametrize("likeness", [0.3, 1.0])
def test_nor_where_most_pairs_are_of_few_of_them(prompts: int, likeness: float) -> None:
    """One prompt has half of the pairs: as 40 prompts these would pass one look in 100 (likeness 0.3)."""
    sizes = [20 * (prompts - 1)] + [20] * (prompts - 1)
    assert passed(sizes, coins(prompts, likeness), prompts) <= most_by_chance(ASKED, LOOKS)


def test_what_it_gets_wrong_may_be_of_a_kind_that_few_prompts_do_not_show() -> None:
    """Why there is a least number of prompts: the figures that 'rlhf-tui help reward' gives as its reason."""

    def passing(prompts: int) -> float:
        rng = np.random.default_rng(prompts)
        shares = np.where(rng.random((LOOKS, prompts)) < 5 / 7, 0.7, 0.0)
        assert shares.mean() == pytest.approx(0.5, abs=0.01)
        return passed([20] * prompts, shares, prompts) / LOOKS

    assert passing(10) == pytest.approx(1 / 40, abs=0.01)
    assert passing(LEAST_PROMPTS) == pytest.approx(1 / 200, abs=0.004)


def test_a_model_that_is_good_passes_on_enough_prompts() -> None:
    """The guard is no wall: right about 80 % of 4 pairs of each of 20 prompts, half of such models pass."""
    rng = np.random.default_rng(0)
    shares = rng.beta(8, 2, size=(400, LEAST_PROMPTS))
    assert passed([4] * LEAST_PROMPTS, shares, 0, lambda found: enough_to_tell(found) and beats_coin(found)) > 200


def test_enough_pairs_of_too_few_prompts_tell_nothing() -> None:
    for prompts in (LEAST_PROMPTS - 1, LEAST_PROMPTS):
        clusters = Clusters()
        for place in range(prompts):
            clusters.add(8 + place % 3, 10)
        found = clusters.rate()
        assert found.enough
        assert enough_to_tell(found) == (prompts == LEAST_PROMPTS)
