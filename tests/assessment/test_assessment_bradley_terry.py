"""The ridge Bradley–Terry fit: the only minimum of a convex problem, checked without trusting how it was found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_tui.assessment.bradley_terry import (
    MIDDLE_RIDGE,
    RIDGES,
    Floats,
    choose_ridge,
    cross_entropy,
    fit_dual,
    ridge_bradley_terry,
    sigmoid,
)


def problem(pairs: int, width: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    targets = np.full(pairs, 0.95)
    targets[::4] = 0.5
    return rng.normal(size=(pairs, width)), targets, 0.5 + rng.random(pairs)


def objective(
    u: list[float], gaps: list[list[float]], targets: list[float], weights: list[float], ridge: float
) -> float:
    """As the docstring says, number by number."""
    total = ridge / 2 * sum(one * one for one in u)
    for row, target, weight in zip(gaps, targets, weights, strict=True):
        score = sum(x * one for x, one in zip(row, u, strict=True))
        total -= weight * (target * log_sigmoid(score) + (1 - target) * log_sigmoid(-score))
    return total


def slope(
    u: list[float], gaps: list[list[float]], targets: list[float], weights: list[float], ridge: float
) -> list[float]:
    found = [ridge * one for one in u]
    for row, target, weight in zip(gaps, targets, weights, strict=True):
        score = sum(x * one for x, one in zip(row, u, strict=True))
        miss = weight * (math.exp(log_sigmoid(score)) - target)
        found = [one + miss * x for one, x in zip(found, row, strict=True)]
    return found


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > 0 else value - math.log1p(math.exp(value))


def descended(gaps: list[list[float]], targets: list[float], weights: list[float], ridge: float) -> list[float]:
    """Plain gradient descent, thousands of small steps."""
    u = [0.0] * len(gaps[0])
    steepest = ridge + sum(w * sum(x * x for x in row) / 4 for row, w in zip(gaps, weights, strict=True))
    for _ in range(20_000):
        down = slope(u, gaps, targets, weights, ridge)
        u = [one - d / steepest for one, d in zip(u, down, strict=True)]
        if max(abs(d) for d in down) < 1e-9:
            break
    return u


@pytest.mark.parametrize("ridge", [0.3, 3.0])
@pytest.mark.parametrize(("pairs", "width"), [(12, 3), (4, 6), (1, 2)])
def test_it_is_where_plain_gradient_descent_ends(pairs: int, width: int, ridge: float) -> None:
    gaps, targets, weights = problem(pairs, width)
    expected = descended(gaps.tolist(), targets.tolist(), weights.tolist(), ridge)
    assert ridge_bradley_terry(gaps, targets, weights, ridge=ridge) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0, 1000.0])
@pytest.mark.parametrize(("pairs", "width"), [(30, 5), (8, 40), (1, 3)])
def test_the_slope_is_level_there(pairs: int, width: int, ridge: float) -> None:
    gaps, targets, weights = problem(pairs, width)
    u = ridge_bradley_terry(gaps, targets, weights, ridge=ridge)
    assert u.shape == (width,)
    assert u.dtype == np.float64
    level = slope(u.tolist(), gaps.tolist(), targets.tolist(), weights.tolist(), ridge)
    assert max(map(abs, level)) < 1e-6 * max(1.0, ridge)


def test_nothing_near_is_lower() -> None:
    gaps, targets, weights = (part.tolist() for part in problem(20, 4))
    u = ridge_bradley_terry(gaps, targets, weights, ridge=0.5)
    least = objective(u.tolist(), gaps, targets, weights, 0.5)
    rng = np.random.default_rng(1)
    for _ in range(30):
        assert objective((u + 0.05 * rng.normal(size=4)).tolist(), gaps, targets, weights, 0.5) > least


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("ridge", [0.001, 1.0])
def test_separable_pairs_with_wide_gaps_have_a_minimum_too(scale: float, ridge: float) -> None:
    """With little ridge and features that tell all, Newton's full step overshoots."""
    gaps = scale * (np.random.default_rng(3).normal(size=(40, 10)) + 1)
    targets, weights = np.full(40, 0.95), np.ones(40)
    u = ridge_bradley_terry(gaps, targets, weights, ridge=ridge)
    level = slope(u.tolist(), gaps.tolist(), targets.tolist(), weights.tolist(), ridge)
    assert max(map(abs, level)) < 1e-5 * scale


def test_from_a_bad_start_it_gets_to_the_same_place() -> None:
    """So far out the curvature is nearly none, and the full step goes a thousand times too far."""
    gaps, targets, weights = problem(20, 3)
    kernel = gaps @ gaps.T
    best = fit_dual(kernel, targets, weights, 0.1, np.zeros(20), 1e-9)
    far = fit_dual(kernel, targets, weights, 0.1, -30.0 * best, 1e-9)
    assert kernel @ far == pytest.approx(kernel @ best, abs=1e-6)


def test_more_ridge_is_a_smaller_answer_and_ties_alone_are_none_at_all() -> None:
    gaps, targets, weights = problem(20, 6)
    sizes = [float(np.linalg.norm(ridge_bradley_terry(gaps, targets, weights, ridge=r))) for r in (1, 10, 100, 1000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.05 * sizes[0]
    assert not ridge_bradley_terry(gaps, np.full(20, 0.5), weights, ridge=1.0).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=10, max_size=10))
def test_which_of_a_pair_comes_first_changes_nothing(seed: int, turned: list[bool]) -> None:
    gaps, targets, weights = problem(10, 4, seed)
    sign = np.where(turned, -1.0, 1.0)
    other = ridge_bradley_terry(gaps * sign[:, None], np.where(turned, 1 - targets, targets), weights, ridge=0.7)
    assert other == pytest.approx(ridge_bradley_terry(gaps, targets, weights, ridge=0.7), abs=1e-7)


def test_a_pair_of_weight_two_is_two_pairs() -> None:
    gaps, targets, _ = problem(6, 3)
    weights = np.array([2.0, 1, 1, 1, 1, 1])
    twice = ridge_bradley_terry(np.vstack([gaps, gaps[:1]]), np.append(targets, targets[0]), np.ones(7), ridge=1.0)
    assert ridge_bradley_terry(gaps, targets, weights, ridge=1.0) == pytest.approx(twice, abs=1e-8)


@given(st.floats(-800, 800), st.floats(0, 1))
def test_the_loss_of_a_gap(gap: float, target: float) -> None:
    expected = -(target * log_sigmoid(gap) + (1 - target) * log_sigmoid(-gap))
    assert cross_entropy(np.array([gap]), np.array([target]))[0] == pytest.approx(expected, abs=1e-9, rel=1e-9)
    assert sigmoid(np.array([gap]))[0] == pytest.approx(math.exp(log_sigmoid(gap)), abs=1e-12)


def kernel_of(features: Floats) -> Floats:
    kernel: Floats = features @ features.T / features.shape[1]
    return kernel


def test_the_ridge_that_predicts_the_pairs_left_out_best_is_chosen() -> None:
    """Against the same choice, spelt out: for each ridge and each of three groups a fit and a loss."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(90, 30))
    features *= np.where(features @ rng.normal(size=30) + 6 * rng.normal(size=90) > 0, 1, -1)[:, None]
    targets, weights, groups = np.full(90, 0.95), 0.5 + rng.random(90), np.arange(90) % 3
    losses = []
    for ridge in RIDGES:
        loss = 0.0
        for group in range(3):
            learn, out = groups != group, groups == group
            u = ridge_bradley_terry(features[learn] / 30**0.5, targets[learn], weights[learn], ridge=ridge)
            loss += weights[out] @ cross_entropy(features[out] / 30**0.5 @ u, targets[out])
        losses.append(loss)
    ridge, loss = choose_ridge(kernel_of(features), targets, weights, groups)
    assert ridge == RIDGES[int(np.argmin(losses))]
    assert loss == pytest.approx(min(losses) / weights.sum(), abs=1e-4)
    assert 0 < int(np.argmin(losses)) < len(RIDGES) - 1  # so that the test says something


def test_labels_that_mean_nothing_get_the_most_ridge_and_clear_ones_little() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(120, 40))
    groups = np.arange(120) % 4
    clear = features * np.where(features[:, 0] > 0, 1, -1)[:, None]
    assert choose_ridge(kernel_of(features), np.ones(120), np.ones(120), groups)[0] == RIDGES[-1]
    assert choose_ridge(kernel_of(clear), np.ones(120), np.ones(120), groups)[0] < MIDDLE_RIDGE


def test_of_very_many_pairs_some_choose() -> None:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(2500, 5))
    features *= np.where(features[:, 0] > 0, 1, -1)[:, None]
    assert choose_ridge(kernel_of(features), np.ones(2500), np.ones(2500), np.arange(2500) % 3)[0] < MIDDLE_RIDGE


def test_with_one_group_there_is_nothing_to_choose_by() -> None:
    assert choose_ridge(np.eye(4), np.ones(4), np.ones(4), np.array([7, 7, 7, 7])) == (MIDDLE_RIDGE, np.inf)
