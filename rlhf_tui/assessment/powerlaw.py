"""The law of a learning curve: a(n) = a∞ - b·n^(-c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: How fast error falls with the number of labels. Reported for language models: about 0.1 to 0.5 (Hestness et al.
#: 2017, arXiv 1712.00409); 1 is what a model with few parameters does.
SLOWEST, FASTEST = 0.1, 1.0
_STEP = 0.01


@dataclass(frozen=True)
class PowerLaw:
    """`curves` laws at once: limit a∞, drop b >= 0 and rate c, each (curves,)."""

    limit: Floats
    drop: Floats
    rate: Floats

    def at(self, n: float) -> Floats:
        """The accuracy with n pairs: (curves,)"""
        found: Floats = self.limit - self.drop * float(n) ** -self.rate
        return found

    def reaches(self, target: float) -> Floats:
        """The n at which the accuracy is `target`, infinite when it never is, 0 for a flat curve above: (curves,)"""
        room = self.limit - target
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = (self.drop / room) ** (1 / self.rate)
        found: Floats = np.where(room > 0, needed, np.where((room == 0) & (self.drop == 0), 0.0, np.inf))
        return found


def fit_power_law(pairs: ArrayLike, accuracies: ArrayLike, ceiling: float) -> PowerLaw:
    """The law nearest to the points in least squares, with a∞ at most `ceiling` and b at least 0.

    pairs: (points,); accuracies: (curves, points), fitted one by one. For a given rate c the law is a straight
    line in n^(-c), which has a formula; c is looked for on a grid. Points above the ceiling bring a∞ down to it.
    """
    n, y = np.asarray(pairs, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    rates = np.arange(round(SLOWEST / _STEP), round(FASTEST / _STEP) + 1) * _STEP
    x = n[None, :] ** -rates[:, None]  # (rates, points)
    middle = x.mean(axis=1, keepdims=True)
    centred = x - middle
    scatter = (centred**2).sum(axis=1)
    mean = y.mean(axis=1, keepdims=True)
    slope = (y - mean) @ centred.T / np.where(scatter > 0, scatter, np.inf)  # (curves, rates): -b
    drop = np.maximum(0.0, -slope)
    limit = mean + drop * middle[:, 0]
    # Against the ceiling: the best line through it; where that falls, flat.
    held = np.maximum(0.0, (ceiling - y) @ x.T / (x**2).sum(axis=1))
    drop, limit = np.where(limit > ceiling, held, drop), np.minimum(limit, ceiling)
    misses = ((y[:, None, :] - limit[:, :, None] + drop[:, :, None] * x[None]) ** 2).sum(axis=2)
    best = misses.argmin(axis=1)
    rows = np.arange(len(y))
    return PowerLaw(limit[rows, best], drop[rows, best], rates[best])
