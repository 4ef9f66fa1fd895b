"""Where the reward head starts: a ridge Bradley–Terry fit on the features the base already has.

With few labels a head that starts at 0 spends the first epoch finding what a convex problem gives
at once; training then starts from there (Kumar et al., 2022, "linear probing, then fine-tuning").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_tui.assessment.bradley_terry import ridge_bradley_terry
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair


def head_start(
    features: Features, pairs: Sequence[Pair], label_smoothing: float, ridge: float
) -> tuple[Tensor, Tensor]:
    """Weight (width,) and bias () of a head on the base's features, in fp64; its scores average to 0 on `pairs`.

    `label_smoothing` is for pairs that have none of their own; `ridge` is for features in units of their deviation.
    """
    candidates = features.of([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]).double()
    deviation = candidates.std(dim=0, unbiased=False).clamp(min=1e-6)
    scaled = candidates / deviation
    smoothing = [label_smoothing if pair.smoothing is None else pair.smoothing for pair in pairs]
    targets = [0.5 if pair.tie else 1 - slips for pair, slips in zip(pairs, smoothing, strict=True)]
    found = ridge_bradley_terry(
        (scaled[: len(pairs)] - scaled[len(pairs) :]).numpy(), targets, [pair.weight for pair in pairs], ridge=ridge
    )
    weight = torch.from_numpy(found) / deviation
    return weight, -(candidates @ weight).mean()
