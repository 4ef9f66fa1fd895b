"""Intervals for what is measured on a few dozen prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, resamples: int, seed: int) -> Interval:
    """Mean of independent values with the 95 % percentile bootstrap interval (Efron, 1979).

    `values` are one number a prompt: several completions of a prompt are averaged first, since they
    are not independent.
    """
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), size=(resamples, len(data)))
    means = data[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(data.mean()), float(low), float(high))
