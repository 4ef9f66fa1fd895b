"""Where the reward head starts: a ridge Bradley–Terry fit on the features the base already has.

With few labels a head that starts at 0 spends the first epoch finding what a convex problem gives
at once; training then starts from there (Kumar et al., 2022, "linear probing, then fine-tuning").
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 50
_TOLERANCE = 1e-9


def ridge_bradley_terry(gaps: Tensor, targets: Tensor, weights: Tensor, *, ridge: float) -> Tensor:
    """The weight vector that minimises Σ w·cross-entropy(σ(gap·u), target) + ridge/2·|u|².

    gaps: (pairs, width) features of the better minus the worse; targets: (pairs,) in [0, 1], ½ for a
    tie; weights: (pairs,). Returns u: (width,) in fp64. By Newton's method on the dual, u = gapsᵀ·a,
    whose size is the number of pairs; the problem is convex, so that the answer is the only one.
    """
    x, y, w = gaps.double(), targets.double(), weights.double()
    kernel = x @ x.T
    a = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(_STEPS):
        p = torch.sigmoid(kernel @ a)
        residual = ridge * a + w * (p - y)
        step = torch.linalg.solve(
            ridge * torch.eye(len(x), dtype=torch.float64) + (w * p * (1 - p))[:, None] * kernel, residual
        )
        a = a - step
        if float(step.abs().max()) < _TOLERANCE:
            break
    return x.T @ a


def standardised(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features in units of their deviation, and that deviation. (rows, width) → (rows, width), (width,)"""
    deviation = features.double().std(dim=0, unbiased=False).clamp(min=1e-6)
    return features.double() / deviation, deviation
