"""Where the reward head starts: a ridge Bradley–Terry fit on the features the base already has.

With few labels a head that starts at 0 spends the first epoch finding what a convex problem gives
at once; training then starts from there (Kumar et al., 2022, "linear probing, then fine-tuning").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_tui.assessment.bradley_terry import choose_ridge, fit_dual
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair

_TOLERANCE = 1e-9


def head_start(features: Features, pairs: Sequence[Pair], label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Weight (width,) and bias () of a head on the base's features, in fp64; its scores average to 0 on `pairs`.

    Each feature counts in units of its root mean square over the pairs' gaps; how much the fit is shrunk is chosen by
    cross-validation over the prompts. `label_smoothing` is for pairs that have none of their own.
    """
    gaps = features.gaps(pairs).double().numpy()
    size = np.sqrt(np.mean(gaps**2, axis=0))
    unit = np.where(size > 1e-9 * size.max(initial=0.0), size, np.inf) * np.sqrt(len(size))
    scaled = gaps / unit
    smoothing = [label_smoothing if pair.smoothing is None else pair.smoothing for pair in pairs]
    targets = np.array([0.5 if pair.tie else 1 - slips for pair, slips in zip(pairs, smoothing, strict=True)])
    weights = np.array([pair.weight for pair in pairs])
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(pair.chosen.prompt for pair in pairs))}
    kernel = scaled @ scaled.T
    ridge, _ = choose_ridge(kernel, targets, weights, np.array([numbers[pair.chosen.prompt] for pair in pairs]))
    dual = fit_dual(kernel, targets, weights, ridge, np.zeros(len(pairs)), _TOLERANCE)
    weight = torch.from_numpy(scaled.T @ dual / unit)
    candidates = features.of([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]).double()
    return weight, -(candidates @ weight).mean()
