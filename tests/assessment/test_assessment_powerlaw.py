"""The fit of a learning curve: it finds a law that is there, and never promises more than the ceiling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_tui.assessment.powerlaw import FASTEST, SLOWEST, fit_power_law

PAIRS = [50.0, 100.0, 150.0, 200.0]


def law(limit: float, drop: float, rate: float, pairs: list[float] = PAIRS) -> np.ndarray:
    return np.array([[limit - drop * n**-rate for n in pairs]])


@pytest.mark.parametrize(
    ("limit", "drop", "rate"), [(0.9, 2.0, 0.5), (0.75, 1.0, 0.3), (0.8, 8.0, 0.9), (0.7, 0.3, 0.1)]
)
def test_a_law_without_noise_is_found_again(limit: float, drop: float, rate: float) -> None:
    found = fit_power_law(PAIRS, law(limit, drop, rate), 0.99)
    assert found.limit[0] == pytest.approx(limit, abs=1e-6)
    assert found.drop[0] == pytest.approx(drop, rel=1e-5)
    assert found.rate[0] == pytest.approx(rate, abs=1e-9)
    assert found.at(400)[0] == pytest.approx(limit - drop * 400**-rate, abs=1e-6)


def test_the_doubling_of_a_real_task() -> None:
    """Accuracies of a bag of words on 2,312 human comparisons, by number of pairs: 2.1 points for each doubling."""
    pairs, right = [50.0, 100.0, 200.0, 400.0, 800.0], [[0.550, 0.564, 0.591, 0.616, 0.626]]
    found = fit_power_law(pairs, right, 0.95)
    assert found.at(1600)[0] == pytest.approx(0.654, abs=0.015)
    assert np.abs(np.array([found.at(n)[0] for n in pairs]) - right[0]).max() < 0.01


def brute(points: list[float], ceiling: float) -> float:
    """The least sum of squares over a fine grid of the three numbers."""
    least = np.inf
    for rate in np.arange(SLOWEST, FASTEST + 1e-9, 0.01):
        x = np.array(PAIRS) ** -rate
        limits = np.linspace(0.3, ceiling, 141)[:, None, None]
        drops = np.linspace(0, 1.5 / x[0], 151)[None, :, None]
        misses = ((np.array(points) - limits + drops * x) ** 2).sum(axis=2)
        least = min(least, float(misses.min()))
    return least


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.4, 0.95), min_size=4, max_size=4), st.floats(0.7, 0.95))
def test_no_grid_of_laws_fits_better(points: list[float], ceiling: float) -> None:
    found = fit_power_law(PAIRS, [points], ceiling)
    assert found.limit[0] <= ceiling + 1e-12
    assert found.drop[0] >= 0
    missed = sum((found.at(n)[0] - y) ** 2 for n, y in zip(PAIRS, points, strict=True))
    assert missed <= brute(points, ceiling) + 1e-9


def test_a_curve_that_falls_is_flat() -> None:
    found = fit_power_law(PAIRS, [[0.7, 0.65, 0.6, 0.55]], 0.95)
    assert found.drop[0] == 0
    assert found.limit[0] == pytest.approx(0.625)


def test_above_the_ceiling_it_stays_below() -> None:
    found = fit_power_law(PAIRS, [[0.8, 0.85, 0.9, 0.92]], 0.85)
    assert found.limit[0] == 0.85
    assert found.at(1e6)[0] <= 0.85


def test_when_it_is_reached() -> None:
    found = fit_power_law(PAIRS, np.vstack([law(0.9, 2.0, 0.5), law(0.6, 1.0, 0.5), [[0.7] * 4]]), 0.95)
    when = found.reaches(0.7)
    assert when[0] == pytest.approx(100.0, rel=1e-4)  # 0.9 - 2 / √100
    assert when[1] == np.inf
    assert when[2] == pytest.approx(0.0)


def test_many_curves_at_once_are_each_on_its_own() -> None:
    curves = np.vstack([law(0.9, 2.0, 0.5), law(0.75, 1.0, 0.3), [[0.5, 0.7, 0.6, 0.65]]])
    together = fit_power_law(PAIRS, curves, 0.95)
    for place, curve in enumerate(curves):
        alone = fit_power_law(PAIRS, curve[None], 0.95)
        assert (together.limit[place], together.rate[place]) == (alone.limit[0], alone.rate[0])
