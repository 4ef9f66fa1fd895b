"""The head's start is the minimum it says it is, in the units of the features, and its scores average to 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.probe import head_start


def problem(count: int, width: int) -> tuple[Features, list[Pair]]:
    generator = torch.Generator().manual_seed(0)
    tokens = [Tokens((n,), (3,)) for n in range(2 * count)]
    values = torch.randn(2 * count, width, generator=generator) * torch.linspace(0.1, 30, width) + 5
    pairs = [Pair(tokens[2 * n], tokens[2 * n + 1], n % 5 == 0, 1, 0.5 + n % 3) for n in range(count)]
    pairs[1] = Pair(pairs[1].chosen, pairs[1].rejected, False, 1, 1.0, smoothing=0.3)
    return Features({one: row for row, one in enumerate(tokens)}, values), pairs


def objective(weight: Tensor, features: Features, pairs: list[Pair], ridge: float) -> Tensor:
    """In its plain form, with another library's cross-entropy; the ridge is on the scaled weights."""
    values = features.values.double()
    deviation = ((values - values.mean(0)) ** 2).mean(0).sqrt()
    total = ridge / 2 * ((weight * deviation) ** 2).sum()
    for pair in pairs:
        gap = (values[features.rows[pair.chosen]] - values[features.rows[pair.rejected]]) @ weight
        slips = 0.05 if pair.smoothing is None else pair.smoothing
        target = torch.tensor(0.5 if pair.tie else 1 - slips, dtype=torch.float64)
        total = total + pair.weight * torch.nn.functional.binary_cross_entropy_with_logits(gap, target)
    return total


@pytest.mark.parametrize("ridge", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize(("count", "width"), [(30, 4), (6, 20)])
def test_it_is_the_minimum_and_its_scores_average_to_zero(count: int, width: int, ridge: float) -> None:
    features, pairs = problem(count, width)
    weight, bias = head_start(features, pairs, 0.05, ridge)
    assert weight.shape == (width,)
    weight.requires_grad_(True)
    value = objective(weight, features, pairs, ridge)
    value.backward()
    assert weight.grad is not None
    deviation = features.values.double().std(0, unbiased=False)
    assert (weight.grad / deviation).abs().max() < 1e-5 * max(1.0, ridge)
    nudged = weight.detach() + 0.02 * torch.randn(width, generator=torch.Generator().manual_seed(1)) / deviation
    assert objective(nudged, features, pairs, ridge) > value.detach()
    scores = features.values.double() @ weight.detach() + bias
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-9)


def test_a_feature_that_never_varies_is_no_division_by_zero() -> None:
    features, pairs = problem(10, 3)
    features.values[:, 1] = 4.0
    weight, bias = head_start(features, pairs, 0.05, 1.0)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias)
