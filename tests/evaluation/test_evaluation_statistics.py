"""Intervals and agreement, against second implementations and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_tui.evaluation.agreement import Judged, agreement
from rlhf_tui.evaluation.intervals import mean_interval

# -- intervals ------------------------------------------------------------------------------------


def test_the_interval_against_a_second_implementation() -> None:
    values = [0.5, -1.0, 2.0, 3.5, 0.0, 1.25, -0.75]
    found = mean_interval(values, resamples=999, seed=4)
    assert found.value == pytest.approx(sum(values) / 7)
    generator = np.random.default_rng(99)  # another stream: the ends agree up to the error of resampling
    means = sorted(sum(generator.choice(values, 7)) / 7 for _ in range(20_000))
    # the means of seven values come in steps of 1/28
    assert found.low == pytest.approx(means[500], abs=0.15)
    assert found.high == pytest.approx(means[19_500], abs=0.15)


def test_for_many_values_it_is_the_textbooks_normal_interval() -> None:
    values = np.random.default_rng(0).exponential(2.0, 2000)
    found = mean_interval(values.tolist(), resamples=4000, seed=1)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_it_holds_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(400):
        found = mean_interval(generator.normal(1.0, 2.0, 40).tolist(), resamples=300, seed=trial)
        held += found.low <= 1.0 <= found.high
    assert 0.90 < held / 400 < 0.98


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(0, 5))
def test_the_interval_lies_within_the_data_and_around_the_mean_and_is_repeatable(
    values: list[float], seed: int
) -> None:
    found = mean_interval(values, resamples=100, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert found == mean_interval(values, resamples=100, seed=seed)


def test_constant_data_give_an_interval_of_no_width() -> None:
    found = mean_interval([1.5] * 9, resamples=200, seed=0)
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)
    one = mean_interval([-2.0], resamples=200, seed=0)
    assert (one.value, one.low, one.high) == (-2.0, -2.0, -2.0)


def test_more_data_give_a_narrower_interval() -> None:
    values = np.random.default_rng(5).normal(size=400).tolist()
    widths = [
        found.high - found.low for found in (mean_interval(values[:n], resamples=2000, seed=0) for n in (25, 100, 400))
    ]
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


# -- agreement ------------------------------------------------------------------------------------


def test_agreement_by_hand() -> None:
    found = agreement([Judged(2.0, 10, 20), Judged(-1.0, 30, 20), Judged(0.0, 15, 15), Judged(0.5, 5, 50)])
    assert found is not None
    assert found.n == 4
    assert found.accuracy == 2.5 / 4  # a draw counts half
    assert found.shorter == 2.5 / 4  # so does a pair of equal length
    assert found.longer == 1.5 / 4
    nats = [math.log1p(math.exp(-gap)) for gap in (2.0, -1.0, 0.0, 0.5)]
    assert found.log_loss == pytest.approx(sum(nats) / 4)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (15, 20, 0.5313, 0.8881)],
)
def test_the_interval_is_wilsons_published_values(right: int, n: int, low: float, high: float) -> None:
    found = agreement([Judged(1.0 if index < right else -1.0, 1, 2) for index in range(n)])
    assert found is not None
    assert found.accuracy == right / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_a_collapsed_reward_model_is_a_coin_and_not_nearly_perfect() -> None:
    found = agreement([Judged(0.0, 1, 2)] * 20)
    assert found is not None
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(math.log(2))
    assert (found.shorter, found.longer) == (1.0, 0.0)
    assert (found.low, found.high) == pytest.approx((0.2993, 0.7007), abs=5e-5)


def test_half_a_draw_lies_between_a_miss_and_a_hit() -> None:
    found = [agreement([Judged(1.0, 1, 1)] * 7 + [Judged(gap, 1, 1)] * 3) for gap in (-1.0, 0.0, 1.0)]
    lows = [one.low for one in found if one is not None]
    highs = [one.high for one in found if one is not None]
    assert lows[0] < lows[1] < lows[2]
    assert highs[0] < highs[1] < highs[2]


def test_confident_mistakes_cost_a_finite_amount() -> None:
    found = agreement([Judged(-2000.0, 1, 1), Judged(2000.0, 1, 1)])
    assert found is not None
    assert found.log_loss == pytest.approx(1000.0)


def test_nothing_to_agree_on_is_no_number() -> None:
    assert agreement([]) is None
