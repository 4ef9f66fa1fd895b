"""Intervals, against second implementations and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
