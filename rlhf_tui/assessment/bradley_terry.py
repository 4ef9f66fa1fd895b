"""A ridge Bradley–Terry fit: the reward model that a convex problem gives, on features that stay as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Shrinkage that is tried, for features in units of their root mean square, divided by the root of their number.
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
#: Where there is nothing to choose by.
MIDDLE_RIDGE = 1.0

_STEPS = 50
_TOLERANCE = 1e-9
#: For fits that are only held against each other: the sign of a gap does not hang on the sixth digit.
_ROUGHLY = 1e-5
_INNER = 3
#: More pairs than this do not change which ridge is best, only how long it takes to see.
_MOST_TO_CHOOSE_BY = 1000


def ridge_bradley_terry(gaps: ArrayLike, targets: ArrayLike, weights: ArrayLike, *, ridge: float) -> Floats:
    """The weight vector that minimises Σ w·cross-entropy(σ(gap·u), target) + ridge/2·|u|².

    gaps: (pairs, width) features of the better minus the worse; targets: (pairs,) in [0, 1], ½ for a
    tie; weights: (pairs,); ridge > 0. Returns u: (width,) in fp64. The problem is convex, so that the answer is
    the only one. By Newton's method on the dual, u = gapsᵀ·a, whose size is the number of pairs.
    """
    x = np.asarray(gaps, dtype=np.float64)
    y, w = np.asarray(targets, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    found: Floats = x.T @ fit_dual(x @ x.T, y, w, ridge, np.zeros(len(x)), _TOLERANCE)
    return found


def fit_dual(
    kernel: Floats, targets: Floats, weights: Floats, ridge: float, start: Floats, tolerance: float = _ROUGHLY
) -> Floats:
    """The a that minimises Σ w·cross-entropy(σ(f), target) + ridge/2·aᵀKa with f = Ka; gaps of new rows: K'a.

    kernel K: (pairs, pairs) inner products of the features; targets, weights, start: (pairs,). Newton's
    method (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 3.4), each step halved until
    it does not climb: with wide gaps and little ridge the full step overshoots.
    """
    a, f = start, kernel @ start
    value = _objective(a, f, targets, weights, ridge)
    for _ in range(_STEPS):
        p = sigmoid(f)
        residual = ridge * a + weights * (p - targets)
        curvature = (weights * p * (1 - p))[:, None] * kernel
        curvature.flat[:: len(a) + 1] += ridge
        step = np.linalg.solve(curvature, residual)
        along = kernel @ step
        reached, size = np.inf, 2.0
        while reached > value and size > 1e-6:
            size /= 2
            reached = _objective(a - size * step, f - size * along, targets, weights, ridge)
        if reached > value:
            break  # as low as fp64 can tell
        a, f, value = a - size * step, f - size * along, reached
        if np.abs(size * step).max(initial=0.0) <= tolerance * (1.0 + np.abs(a).max(initial=0.0)):
            break
    return a


def _objective(a: Floats, f: Floats, targets: Floats, weights: Floats, ridge: float) -> float:
    return float(weights @ cross_entropy(f, targets) + ridge / 2 * (a @ f))


def cross_entropy(gaps: Floats, targets: Floats) -> Floats:
    """-(y·log σ(gap) + (1 - y)·log σ(-gap)), in nats, elementwise."""
    found: Floats = np.logaddexp(0.0, gaps) - targets * gaps
    return found


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-value)), without overflow."""
    found: Floats = 0.5 * (1.0 + np.tanh(0.5 * values))
    return found


def choose_ridge(kernel: Floats, targets: Floats, weights: Floats, groups: Integers) -> tuple[float, float]:
    """The one of RIDGES with the least log-loss on groups of pairs left out in turn, and that loss (nats a pair).

    MIDDLE_RIDGE, and infinity, for one group.

    kernel: (pairs, pairs) in such units that its diagonal is about 1; groups: (pairs,), of many a few are made.
    """
    if len(groups) > _MOST_TO_CHOOSE_BY:
        some = np.linspace(0, len(groups) - 1, _MOST_TO_CHOOSE_BY).astype(np.int64)
        kernel, targets, weights, groups = kernel[np.ix_(some, some)], targets[some], weights[some], groups[some]
    _, groups = np.unique(groups, return_inverse=True)
    groups = groups % _INNER
    if groups.max(initial=0) < 1:
        return MIDDLE_RIDGE, np.inf
    losses = np.zeros(len(RIDGES))
    for group in range(groups.max() + 1):
        learn, left_out = np.flatnonzero(groups != group), np.flatnonzero(groups == group)
        inner, across = kernel[np.ix_(learn, learn)], kernel[np.ix_(left_out, learn)]
        a = np.zeros(len(learn))
        for place in reversed(range(len(RIDGES))):  # from the strongest on, each from the answer before it
            a = fit_dual(inner, targets[learn], weights[learn], RIDGES[place], a)
            losses[place] += weights[left_out] @ cross_entropy(across @ a, targets[left_out])
    best = int(losses.argmin())
    return RIDGES[best], float(losses[best] / weights.sum())
