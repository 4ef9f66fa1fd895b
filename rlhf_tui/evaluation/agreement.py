"""How well a reward model agrees with the rater on held-out pairs, and how well two rulers of thumb do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_tui.preferences.statistics import wilson


@dataclass(frozen=True)
class Judged:
    """One decided pair: the reward model's score gap (better minus worse) and the lengths in tokens."""

    gap: float
    better_length: int
    worse_length: int


@dataclass(frozen=True)
class Agreement:
    """Share of decided pairs in which the judged order is reproduced. A draw counts half."""

    n: int
    accuracy: float
    low: float
    high: float
    """95 % Wilson interval"""
    shorter: float
    """what 'pick the shorter' reaches"""
    longer: float
    log_loss: float
    """mean of -log σ(gap), in nats; 0.693 is a coin"""


def agreement(pairs: Sequence[Judged]) -> Agreement | None:
    """Agreement over decided pairs (ties are left to the caller); None when there are none."""
    if not pairs:
        return None
    n = len(pairs)
    right = sum(_half_step(pair.gap) for pair in pairs)
    shorter = sum(_half_step(pair.worse_length - pair.better_length) for pair in pairs) / n
    low, high = wilson(right, n)
    losses = [math.log1p(math.exp(-abs(pair.gap))) + max(0.0, -pair.gap) for pair in pairs]
    return Agreement(n, right / n, low, high, shorter, 1 - shorter, sum(losses) / n)


def _half_step(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
